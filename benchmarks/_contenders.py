"""Programs that bring a folder into a storage and back, each to a place of its own there."""

import json
import os
import shutil
import sys
import sysconfig
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from _cost import Cost, run
from _disk import settle

from scipion_cloud.testing.servers.openssh import OpenSsh, openssh_server
from scipion_cloud.testing.servers.radosgw import Radosgw, radosgw

RCLONE = Path(sysconfig.get_path("scripts")) / "rclone"
# more at a time than its defaults, as its manual advises for many small files
_RCLONE_OPTIONS = ("--config", "/dev/null", "-l", "--transfers", "16", "--checkers", "16", "-q")


class Contender(Protocol):
    """A program with a place in a storage."""

    @property
    def name(self) -> str:
        """As the table shows it."""
        ...

    def push(self, folder: Path) -> Cost:
        """Make the storage what the folder is."""
        ...

    def pull(self, folder: Path) -> Cost:
        """Make the folder, which is missing, what the storage is."""
        ...


@dataclass(frozen=True)
class Ours:
    """Scipion Cloud: durable (syncfs, or what the server promises), verified by BLAKE3, under a lease."""

    url: str
    credentials: Mapping[str, str] = field(default_factory=dict, repr=False)
    name: str = "ours"

    def push(self, folder: Path) -> Cost:
        """A save."""
        return self._run("save", folder)

    def pull(self, folder: Path) -> Cost:
        """A restore."""
        return self._run("restore", folder)

    def again(self, folder: Path, times: int = 5) -> list[Cost]:
        """Saves by a process that has the index in memory, as an agent has."""
        with tempfile.NamedTemporaryFile() as file:
            self._run("save", folder, "--again", str(times), answer=Path(file.name))
            return [Cost(*told) for told in json.loads(Path(file.name).read_text())]

    def _run(self, action: str, folder: Path, *more: str, answer: Path | None = None) -> Cost:
        script = Path(__file__).with_name("_ours.py")
        words: list[str | Path] = [sys.executable, script, action, self.url, folder, *more]
        return run(words, env={"SCB_CREDENTIALS": json.dumps(self.credentials)}, answer=answer)


@dataclass(frozen=True)
class Rsync:
    """`rsync -a --delete`: nothing is durable and nothing is read again; with `safe` followed by syncfs."""

    place: str
    safe: bool = False
    ssh: str = ""

    @property
    def name(self) -> str:
        """With what makes it durable."""
        return "rsync + syncfs" if self.safe else "rsync"

    def push(self, folder: Path) -> Cost:
        """To the storage."""
        return self._run(f"{folder}/", self.place, Path(self.place))

    def pull(self, folder: Path) -> Cost:
        """From the storage."""
        folder.mkdir()
        return self._run(f"{self.place}/", str(folder), folder)

    def _run(self, source: str, target: str, local: Path) -> Cost:
        shell = ["-e", self.ssh] if self.ssh else []
        cost = run(["rsync", "-a", "--delete", *shell, source, target])
        return cost + run(["sync", "-f", local]) if self.safe else cost


@dataclass(frozen=True)
class Rclone:
    """`rclone sync -l`: nothing is durable; checksums are compared where the server has any."""

    place: str
    env: Mapping[str, str] = field(default_factory=dict, repr=False)
    name: str = "rclone"

    def push(self, folder: Path) -> Cost:
        """To the storage."""
        return run([RCLONE, "sync", *_RCLONE_OPTIONS, folder, self.place], env=self.env)

    def pull(self, folder: Path) -> Cost:
        """From the storage."""
        return run([RCLONE, "sync", *_RCLONE_OPTIONS, self.place, folder], env=self.env)


@dataclass(frozen=True)
class Limit:
    """The same bytes in one file: as fast as the disk or the wire goes; durable on the disk."""

    name: str
    size: int  # bytes
    folder: Path
    up: tuple[str | Path, ...]  # commands; "FILE" is put in for the local file
    down: tuple[str | Path, ...]

    def push(self, folder: Path) -> Cost:  # noqa: ARG002 - only their number matters
        """There, in one file."""
        file = self.folder / "one-file"
        if not file.exists():
            pool = os.urandom(1 << 20)
            with file.open("wb") as out:
                for _ in range(0, self.size, len(pool)):
                    out.write(pool)
                out.truncate(self.size)
            settle(self.folder)
        return self._run(self.up, file) + run(["sync", "-f", self.folder])

    def pull(self, folder: Path) -> Cost:
        """Back, as one file."""
        folder.mkdir()
        return self._run(self.down, folder / "one-file") + run(["sync", "-f", folder])

    def _run(self, command: tuple[str | Path, ...], file: Path) -> Cost:
        return run([str(file) if word == "FILE" else word for word in command])


@dataclass(frozen=True)
class Place:
    """A storage for one tree: who competes there, and how all that they have put is removed."""

    contenders: tuple[Contender, ...]
    files: Path | None  # where the storage's files are, if they are on our disk

    def clear(self) -> None:
        """Empty it, if that is to be done."""
        if self.files is not None:
            shutil.rmtree(self.files)
            self.files.mkdir()


@contextmanager
def posix(root: Path, size: int) -> Iterator[Place]:
    """A folder of the same disk."""
    files = _folder(root, "posix")
    one = files / "one"
    yield Place(
        (
            Ours(f"file://{files}/ours"),
            Rsync(f"{files}/rsync"),
            Rsync(f"{files}/rsync-safe", safe=True),
            Rclone(f"{files}/rclone"),
            Limit("disk (cp + syncfs)", size, root, ("cp", "FILE", one), ("cp", one, "FILE")),
        ),
        files,
    )


@contextmanager
def s3(root: Path, size: int) -> Iterator[Place]:
    """Ceph's gateway on a cluster in memory."""
    with radosgw() as server:
        yield _s3_place(server, root, size)


def _s3_place(server: Radosgw, root: Path, size: int) -> Place:
    keys = server.credentials
    env = {
        "RCLONE_CONFIG_S_TYPE": "s3",
        "RCLONE_CONFIG_S_PROVIDER": "Ceph",
        "RCLONE_CONFIG_S_ENDPOINT": server.endpoint,
        "RCLONE_CONFIG_S_ACCESS_KEY_ID": keys["access_key"],
        "RCLONE_CONFIG_S_SECRET_ACCESS_KEY": keys["secret_key"],
    }
    bucket = server.bucket()
    wire = (sys.executable, Path(__file__).with_name("_wire.py"), server.endpoint, bucket)
    return Place(
        (
            Ours(server.url(server.bucket()), keys),
            Rclone(f"S:{server.bucket()}", env),
            Limit("wire (one object)", size, root, (*wire, "up", "FILE"), (*wire, "down", "FILE")),
        ),
        None,
    )


@contextmanager
def sftp(root: Path, size: int) -> Iterator[Place]:
    """OpenSSH on this machine; its files are on the same disk."""
    files = _folder(root, "sftp")
    with openssh_server(files, commands=True) as server, tempfile.TemporaryDirectory(prefix="scb-") as name:
        yield _sftp_place(server, Path(name), files, root, size)


def _sftp_place(server: OpenSsh, keys: Path, files: Path, root: Path, size: int) -> Place:
    key, known = keys / "key", keys / "known"
    key.touch(mode=0o600)
    key.write_text(server.private_key)
    known.write_text(f"[127.0.0.1]:{server.port} {server.host_key}\n")
    options = ("-i", str(key), "-o", f"UserKnownHostsFile={known}", "-o", "Ciphers=^aes128-gcm@openssh.com")
    there = f"{server.user}@127.0.0.1"
    env = {
        "RCLONE_CONFIG_S_TYPE": "sftp",
        "RCLONE_CONFIG_S_HOST": "127.0.0.1",
        "RCLONE_CONFIG_S_PORT": str(server.port),
        "RCLONE_CONFIG_S_USER": server.user,
        "RCLONE_CONFIG_S_KEY_FILE": str(key),
        "RCLONE_CONFIG_S_KNOWN_HOSTS_FILE": str(known),
        "RCLONE_CONFIG_S_SHELL_TYPE": "none",  # else it starts a program on the server for each file
    }
    one = f"{there}:{files}/one"
    scp = ("scp", "-q", "-F", "none", "-P", str(server.port), *options)
    return Place(
        (
            Ours(f"{server.url}/ours", server.credentials),
            Rsync(
                f"{there}:{files}/rsync",
                ssh=" ".join(["ssh", "-F", "none", "-p", str(server.port), *options]),
            ),
            Rclone(f"S:{files}/rclone", env),
            Limit("wire (scp + syncfs)", size, root, (*scp, "FILE", one), (*scp, one, "FILE")),
        ),
        files,
    )


def _folder(root: Path, name: str) -> Path:
    path = root / name
    path.mkdir()
    return path


PLACES = {"posix": posix, "s3": s3, "sftp": sftp}
