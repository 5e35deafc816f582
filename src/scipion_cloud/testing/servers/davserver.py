"""What the WebDAV servers of the tests have in common."""

import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from scipion_cloud.testing.servers.daemon import daemon

USER = "scientist"
PASSWORD = "apoferritin"  # noqa: S105 - of a server on 127.0.0.1 that lives as long as a test


@dataclass(frozen=True)
class DavServer:
    """A running server: the URL of its root, as `open_storage` takes it, and the folder that it shows."""

    url: str
    folder: Path
    process: subprocess.Popen[bytes]

    @property
    def credentials(self) -> dict[str, str]:
        """What lets one in."""
        return {"user": USER, "password": PASSWORD}


@contextmanager
def dav_server(command: Sequence[str | Path], port: int, folder: Path, log: Path) -> Iterator[DavServer]:
    """Run a server that listens on `port` and shows `folder`; it ends with the block or with us.

    Raises SetupError with the end of its log if it does not start.
    """
    with daemon(command, log, port=port) as process:
        yield DavServer(f"dav://127.0.0.1:{port}", folder, process)
