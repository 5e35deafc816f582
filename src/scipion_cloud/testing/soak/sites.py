"""Real storages to be soaked in."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from scipion_cloud.storage import Storage, open_storage
from scipion_cloud.testing.servers.moto import moto
from scipion_cloud.testing.servers.openssh import openssh_server
from scipion_cloud.testing.servers.radosgw import radosgw

NAMES = ("posix", "s3", "sftp")


@dataclass(frozen=True)
class Site:
    """A storage that is empty."""

    name: str
    url: str
    credentials: Mapping[str, str]
    port: int = 0  # of its server on this machine, if it has one
    rest: float = 0.0  # s in which its server ends what a killed client has asked for

    def at(self, port: int) -> str:
        """Its URL behind another port: a proxy's."""
        return self.url.replace(f"127.0.0.1:{self.port}", f"127.0.0.1:{port}")

    def open(self) -> Storage:
        """Open it from here."""
        return open_storage(self.url, self.credentials)


@contextmanager
def site(name: str, folder: Path, *, light: bool = False) -> Iterator[Site]:
    """A storage below a folder, until the end of the block; `light`: a server that starts at once.

    Raises SetupError if its server does not start.
    """
    folder.mkdir(parents=True)
    if name == "posix":
        (folder / "storage").mkdir()
        yield Site(name, (folder / "storage").as_uri(), {})
    elif name == "sftp":
        (folder / "storage").mkdir()
        with openssh_server(folder / "storage") as ssh:
            yield Site(name, ssh.url, ssh.credentials, ssh.port, rest=0.5)
    else:
        with moto(folder) if light else radosgw() as s3:
            yield Site(name, s3.url(s3.bucket()), s3.credentials, s3.port, rest=0.5)
