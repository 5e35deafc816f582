"""rclone as an SFTP server, with a password. It has no symlinks, and replaces where others refuse to.

with rclone_sftp(folder) as server:
    storage = open_storage(server.url, server.credentials)
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from scipion_cloud.testing.servers.daemon import daemon, free_port
from scipion_cloud.testing.servers.openssh import new_key
from scipion_cloud.testing.servers.rclone import rclone

USER = "anna"
PASSWORD = 'it\'s a "secret" $HOME %d \\ é'  # noqa: S105 - of a server of a test


@dataclass(frozen=True)
class RcloneSftp:
    """A running server."""

    files: Path  # the folder that it serves
    port: int
    host_key: str

    @property
    def url(self) -> str:
        """Of what it serves, as `open_storage` takes it."""
        return f"sftp://{USER}@127.0.0.1:{self.port}/"

    @property
    def credentials(self) -> dict[str, str]:
        """What lets one in."""
        return {"password": PASSWORD, "host_key": self.host_key}


@contextmanager
def rclone_sftp(folder: Path) -> Iterator[RcloneSftp]:
    """Serve `folder`/files. Raises SetupError where rclone is missing or does not start."""
    files, port = folder / "files", free_port()
    files.mkdir()
    host_key = new_key(folder / "host_key")
    command: list[str | Path] = [rclone(), "serve", "sftp", files, "--config", "/dev/null"]
    command += ["--addr", f"127.0.0.1:{port}", "--user", USER, "--pass", PASSWORD]
    command += ["--key", folder / "host_key", "--vfs-cache-mode", "writes", "--cache-dir", folder / "cache"]
    with daemon(command, folder / "rclone.log", port=port):
        yield RcloneSftp(files, port, host_key)
