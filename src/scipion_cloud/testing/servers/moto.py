"""moto's S3 server: strict about conditions, in memory; it lets everybody in.

with moto(folder) as server:
    storage = open_storage(server.url(server.bucket()), server.credentials)
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from scipion_cloud.testing.servers.daemon import daemon, free_port
from scipion_cloud.testing.servers.s3server import S3Server


@contextmanager
def moto(folder: Path, certificate: Path | None = None, key: Path | None = None) -> Iterator[S3Server]:
    """Run the server; `folder` takes its log. With a certificate and its key it speaks TLS."""
    port = free_port()
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    if certificate and key:
        command += ["--ssl", "--ssl-cert", str(certificate), "--ssl-key", str(key)]
    with daemon(command, folder / "moto.log", port=port):
        yield S3Server(port, "https" if certificate else "http")
