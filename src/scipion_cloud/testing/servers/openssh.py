"""An OpenSSH server for the length of a test: SFTP for our own account, by a key made for it.

with openssh_server(folder) as server:
    storage = open_storage(server.url, server.credentials)
"""

import contextlib
import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

import psutil
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from scipion_cloud.errors import SetupError
from scipion_cloud.testing.servers.daemon import daemon, free_port

# only SFTP, only by the key, only from this machine; nobody's own ~/.ssh takes part
SETTINGS = """\
ListenAddress 127.0.0.1
Port {port}
HostKey {folder}/host_key
PidFile none
AuthorizedKeysFile {keys}
StrictModes no
UsePAM no
PasswordAuthentication no
KbdInteractiveAuthentication no
PermitRootLogin prohibit-password
DisableForwarding yes
UseDNS no
MaxStartups 200
MaxSessions 100
LogLevel ERROR
Subsystem sftp internal-sftp
"""
SFTP_ONLY = "ForceCommand internal-sftp\n"


@dataclass(frozen=True)
class OpenSsh:
    """A running server."""

    root: Path
    port: int
    user: str
    private_key: str = field(repr=False)
    host_key: str  # "ssh-ed25519 AAAA..."
    process: subprocess.Popen[bytes] = field(repr=False)

    @property
    def url(self) -> str:
        """Of the folder that it serves, as `open_storage` takes it."""
        return self.url_at(self.port)

    def url_at(self, port: int) -> str:
        """The same behind another port of this machine: a proxy's."""
        return f"sftp://{quote(self.user)}@127.0.0.1:{port}{quote(str(self.root))}"

    @property
    def credentials(self) -> dict[str, str]:
        """What lets one in."""
        return {"private_key": self.private_key, "host_key": self.host_key}

    def cut(self) -> int:
        """End all connections, as a crash would; how many processes ended. New connections are taken."""
        try:
            sessions = psutil.Process(self.process.pid).children(recursive=True)
        except psutil.NoSuchProcess:
            return 0
        for session in sessions:
            with contextlib.suppress(psutil.NoSuchProcess):
                session.kill()
        psutil.wait_procs(sessions, timeout=10)
        return len(sessions)


@contextmanager
def openssh_server(
    root: Path, *, commands: bool = False, authorized_keys: Path | None = None, settings: str = ""
) -> Iterator[OpenSsh]:
    """Serve `root` (and, since SFTP knows no root, all that our account may read). Ends with the block or us.

    With `commands` these can be given too, as rsync does. A file of authorized keys may let in more than the
    key made here; `settings` are lines for sshd_config. Raises SetupError where sshd is missing or does not
    start.
    """
    sshd = shutil.which("sshd", path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/usr/local/sbin")
    if sshd is None:
        raise SetupError("sshd is missing. Run: apt-get install -y openssh-server")
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)  # sshd locks itself in there before people sign in
    with tempfile.TemporaryDirectory(prefix="sshd-") as name:
        folder = Path(name)
        host_key = new_key(folder / "host_key")
        (folder / "authorized_keys").write_text(new_key(folder / "client_key"))
        port = free_port()
        keys = f"{folder}/authorized_keys {authorized_keys or ''}"
        written = SETTINGS.format(port=port, folder=folder, keys=keys) + settings
        (folder / "sshd_config").write_text(written + ("" if commands else SFTP_ONLY))
        # sshd starts itself anew for every connection, hence by its whole path
        command: list[str | Path] = [sshd, "-D", "-e", "-f", folder / "sshd_config"]
        with daemon(command, folder / "sshd.log", port=port) as process:
            user = pwd.getpwuid(os.geteuid()).pw_name
            client_key = (folder / "client_key").read_text()
            server = OpenSsh(root.resolve(), port, user, client_key, host_key, process)
            try:
                yield server
            finally:
                server.cut()


def new_key(path: Path) -> str:
    """Make a key at `path`; its public half in one line."""
    key = Ed25519PrivateKey.generate()
    path.touch(mode=0o600)
    path.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.OpenSSH,
            serialization.NoEncryption(),
        )
    )
    public = key.public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
    return public.decode()
