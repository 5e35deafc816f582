"""Connections by the ssh program: it does the cryptography, in a process of its own.

Where credentials are given, they alone are used: neither the keys nor the agent nor the settings of the
account that runs us take part. Where none are, ssh is used as that account has set it up: its keys, agent,
jump hosts and known hosts. Secrets pass through memory files that end with the sign-in: they are never on a
disk, in an argument or in the environment.
"""

import base64
import binascii
import os
import re
import socket
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization

from scipion_cloud.errors import InvalidInput, StorageDenied, StorageError, StorageTransient
from scipion_cloud.storage.sftp_protocol import ConnectionDead, Protocol

CONNECT_WITHIN = 30  # s
ALIAS = "storage"  # what the server is called in the known hosts that we make for one connection
_KEY_LINE = re.compile(r"(?:^|\s)((?:ssh|ecdsa|sk)-[\w@.-]+)\s+(AAAA[\w+/]+=*)(?:\s|$)")
OPTIONS = {
    "StrictHostKeyChecking": "yes",
    "UpdateHostKeys": "no",
    "VisualHostKey": "no",
    "ForwardAgent": "no",
    "ForwardX11": "no",
    "ClearAllForwardings": "yes",
    "Tunnel": "no",
    "PermitLocalCommand": "no",
    "RemoteCommand": "none",
    "RequestTTY": "no",
    "ControlMaster": "no",
    "ControlPath": "none",  # each connection a stream of its own
    "ConnectTimeout": str(CONNECT_WITHIN),
    "ServerAliveInterval": "15",
    "ServerAliveCountMax": "3",
    "NumberOfPasswordPrompts": "1",
    "Compression": "no",  # what projects hold is packed already, or noise
    "Ciphers": "^aes128-gcm@openssh.com",  # at first: processors have instructions for it
    "LogLevel": "ERROR",
}
_DENIED = re.compile("Permission denied|Too many authentication failures|No more authentication methods")
_UNKNOWN = re.compile("Host key verification failed|HOST IDENTIFICATION HAS CHANGED|host key is known for")
_HOPELESS = re.compile(
    "no matching|Could not resolve hostname.*not known|subsystem request failed|Bad configuration option"
)


@dataclass(frozen=True)
class Server:
    """Whom to connect to, and as whom."""

    host: str
    port: int | None = None
    user: str | None = None
    password: str | None = field(default=None, repr=False)
    private_key: bytes | None = field(default=None, repr=False)  # OpenSSH's format, without passphrase
    host_keys: tuple[str, ...] = ()  # "ssh-ed25519 AAAA..."; any of them will do

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}" if self.port else host


class Connection(Protocol):
    """SFTP through an ssh process that ends with it."""

    def __init__(self, sock: socket.socket, ssh: subprocess.Popen[bytes], said: int) -> None:
        self._ssh = ssh
        self._said = said
        self._socket = sock
        super().__init__(sock)

    @property
    def alive(self) -> bool:
        """False once ssh has ended."""
        return self._ssh.poll() is None

    def why(self) -> str:
        """What ssh said last."""
        return _last_words(self._said)

    def close(self) -> None:
        """End it."""
        self._incoming.close()
        _end(self._socket, self._ssh, self._said)


def connect(server: Server) -> Connection:
    """Sign in. Raises StorageDenied, StorageTransient, StorageError."""
    ours, theirs = socket.socketpair()
    said = os.memfd_create("ssh-said")
    with ExitStack() as secrets, theirs:
        environment = dict(os.environ)
        command = ["ssh", *_arguments(server, environment, secrets)]
        try:
            ssh = subprocess.Popen(
                command,
                stdin=theirs.fileno(),
                stdout=theirs.fileno(),
                stderr=said,
                env=environment,
                start_new_session=True,  # nobody at a terminal is asked, and Ctrl-C is ours to handle
            )
        except FileNotFoundError as e:
            ours.close()
            os.close(said)
            raise StorageError("The program ssh is missing. Run: apt-get install -y openssh-client") from e
        theirs.close()
        try:
            return Connection(ours, ssh, said)
        except ConnectionDead as e:
            with suppress(subprocess.TimeoutExpired):  # what it has to say it says before it ends
                ssh.wait(5)
            words = _last_words(said)
            _end(ours, ssh, said)
            raise _refusal(server, words or str(e)) from None
        except BaseException:
            _end(ours, ssh, said)
            raise


def _end(sock: socket.socket, ssh: subprocess.Popen[bytes], said: int) -> None:
    sock.close()
    ssh.kill()  # it has nothing to lose: whatever was asked for has been answered, or is in doubt anyway
    ssh.wait()
    with suppress(OSError):
        os.close(said)


def _last_words(said: int) -> str:
    with suppress(OSError):
        words = os.pread(said, 16 * 1024, 0).decode(errors="replace")
        return " ".join(line.strip() for line in words.splitlines() if line.strip("@ \r\n"))
    return ""


def _refusal(server: Server, words: str) -> StorageError:
    """The error for what ssh said when it gave up."""
    if _UNKNOWN.search(words):
        return StorageDenied(
            f"The key of {server} is not the one that is known, or none is known. Ask its operators for its "
            f"host key (`ssh-keyscan {server.host}` shows what it claims to be) and give it as 'Host key'."
        )
    if _DENIED.search(words):
        if server.private_key or server.password:
            advice = "Check the user, and that the key or password is right for it."
        else:
            advice = "Give a private key or a password; the account that runs this service has none for it."
        return StorageDenied(f"{server} does not let {server.user or 'us'} sign in. {advice} ({words})")
    if _HOPELESS.search(words):
        return StorageError(f"{server} cannot be used by SFTP: {words}")
    return StorageTransient(f"{server} cannot be reached: {words}")


def _arguments(server: Server, environment: dict[str, str], secrets: ExitStack) -> Iterator[str]:
    """How to call ssh. What is secret is in `secrets`, for as long as that is open."""
    options = dict(OPTIONS)
    if server.host_keys:
        lines = "".join(f"{ALIAS} {key}\n" for key in server.host_keys).encode()
        options |= {
            "HostKeyAlias": ALIAS,
            "UserKnownHostsFile": secrets.enter_context(_memory_file(lines)),
            "GlobalKnownHostsFile": "none",
        }
    if server.private_key or server.password:
        environment.pop("SSH_AUTH_SOCK", None)
        options |= {"IdentityAgent": "none", "IdentitiesOnly": "yes"}
        yield from ("-F", "none")
    if server.private_key:
        options["IdentityFile"] = secrets.enter_context(_memory_file(server.private_key))
    else:
        options["IdentityFile"] = "none"
    if server.password:
        # a program that prints it; it reads the password from memory of ours that nobody else may open
        password = secrets.enter_context(_memory_file(server.password.encode() + b"\n"))
        script = f"#!/bin/sh\nexec cat {password}\n".encode()
        environment["SSH_ASKPASS"] = secrets.enter_context(_memory_file(script, mode=0o700))
        environment["SSH_ASKPASS_REQUIRE"] = "force"
        environment.setdefault("DISPLAY", ":")  # without it, ssh before 8.4 asks nobody
    methods = (["publickey"] if server.private_key else []) + (
        ["password", "keyboard-interactive"] if server.password else []
    )
    if methods:
        options["PreferredAuthentications"] = ",".join(methods)
    options["BatchMode"] = "no" if server.password else "yes"
    if not (server.private_key or server.password):
        del options["IdentityFile"]
    for name, value in options.items():
        yield from ("-o", f"{name}={value}")
    if server.user:
        yield from ("-l", server.user)
    if server.port:
        yield from ("-p", str(server.port))
    yield from ("-T", "-a", "-x", "-s", "--", server.host, "sftp")


@contextmanager
def _memory_file(content: bytes, mode: int = 0o600) -> Iterator[str]:
    """The path under which other processes of our account can read `content`, for the length of the block."""
    writing = os.memfd_create("ssh")
    try:
        os.fchmod(writing, mode)
        os.write(writing, content)
        reading = os.open(f"/proc/self/fd/{writing}", os.O_RDONLY | os.O_CLOEXEC)
    finally:
        os.close(writing)  # what is open for writing is not executed
    try:
        yield f"/proc/{os.getpid()}/fd/{reading}"
    finally:
        os.close(reading)


def server_of(host: str, port: int | None, user: str | None, credentials: Mapping[str, str]) -> Server:
    """Whom these name. Raises InvalidInput for what cannot be right."""
    if not re.fullmatch(r"[\w.:%-]+", host) or host.startswith("-"):
        raise InvalidInput(errors={"url": "An SFTP URL names a host: sftp://user@server.example.org/folder."})
    if user is not None and (not user or user.startswith("-") or re.search(r"[\s\0'\"`$\\;&<>|(){}]", user)):
        raise InvalidInput(errors={"url": f"{user!r} is not the name of an account."})
    password = credentials.get("password")
    if password and ("\n" in password or "\0" in password):
        raise InvalidInput(errors={"password": "The password has more than one line."})
    key = credentials.get("private_key")
    return Server(
        host,
        port,
        user,
        password,
        _private_key(key, credentials.get("passphrase")) if key else None,
        _host_keys(credentials.get("host_key", "")),
    )


def _private_key(text: str, passphrase: str | None) -> bytes:
    """The key in OpenSSH's format, without its passphrase. Raises InvalidInput."""
    data = text.replace("\r\n", "\n").strip().encode() + b"\n"  # as a form or a clipboard leaves it
    openssh = data.startswith(b"-----BEGIN OPENSSH PRIVATE KEY")
    load = serialization.load_ssh_private_key if openssh else serialization.load_pem_private_key
    secret = passphrase.encode() if passphrase else None
    try:
        try:
            key = load(data, secret)
        except (TypeError, ValueError):
            if secret is None:
                raise
            key = load(data, None)  # it has no passphrase
        return key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.OpenSSH,
            serialization.NoEncryption(),
        )
    except (TypeError, ValueError, UnsupportedAlgorithm) as e:
        protected = passphrase is None and ("password" in str(e).lower() or "ENCRYPTED" in text)
        if protected:
            raise InvalidInput(errors={"passphrase": "The private key needs its passphrase."}) from None
        if passphrase:
            told = {"passphrase": "The private key cannot be read with this passphrase."}
            raise InvalidInput(errors=told) from None
        told = {
            "private_key": "This is not a private key in OpenSSH's format or in PEM; give the whole file."
        }
        raise InvalidInput(errors=told) from None


def _host_keys(text: str) -> tuple[str, ...]:
    """The keys in what ssh-keyscan prints, or in a .pub file, without names. Raises InvalidInput."""
    lines = [line.strip() for line in text.splitlines()]
    keys = []
    for line in lines:
        if not line or line.startswith("#"):
            continue
        found = _KEY_LINE.search(line)
        try:
            if found is None:
                raise ValueError("no key")
            base64.b64decode(found[2], validate=True)
        except (ValueError, binascii.Error):
            told = {"host_key": "Give lines like 'ssh-ed25519 AAAA...', as ssh-keyscan prints them."}
            raise InvalidInput(errors=told) from None
        keys.append(f"{found[1]} {found[2]}")
    return tuple(keys)
