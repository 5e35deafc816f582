"""A FAKE of Onedata: no Onedata runs here. It answers as the documentation and the sources of Onezone and
Oneprovider (21.02) say, in memory, and says in the header `Server` that it is a fake.

with onedata_fake() as fake:
    open_storage(fake.url("space"), {"token": TOKEN})

One address is Onezone and the one Oneprovider of all spaces. What is done as the real one does it: both
dialects of attributes, errors of files as HTTP 400, a PUT of content without an offset truncates first, a
file is to be seen before its content is there, names with '@' when another provider made the same one, pages
of 1 to 10,000, a CDMI move onto a file that is there fails with 500, tokens that are narrow or none.
"""

import ssl
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import ThreadingHTTPServer
from pathlib import Path
from urllib.parse import quote

from scipion_cloud.errors import SetupError
from scipion_cloud.testing.servers.onedata_http import Handler
from scipion_cloud.testing.servers.onedata_tree import Tree

TOKEN = "MDAxY2xvY2F0aW9uLaZtb3ZpZXM"  # noqa: S105 - opens all spaces of the fake
SPACES = {"5pace1d": "space", "tw1n0001": "twins", "tw1n0002": "twins", "51ngle": "my data (2026)"}


@dataclass
class Scope:
    """What a token allows."""

    spaces: dict[str, str]
    readonly: bool = False


@dataclass
class OnedataFake:
    """The running fake, and what tests may change in it."""

    version: str
    tls: bool
    port: int = 0
    tree: Tree = field(default_factory=lambda: Tree(SPACES))
    tokens: dict[str, Scope] = field(default_factory=lambda: {TOKEN: Scope(SPACES)})
    online: bool = True
    busy: int = 0  # so many requests more are answered with 503
    requests: list[str] = field(default_factory=list)  # "METHOD path" of all so far

    @property
    def host(self) -> str:
        """Name and port of both Onezone and Oneprovider."""
        return f"localhost:{self.port}"

    @property
    def camel_case(self) -> bool:
        """Whether attributes are fileId, not file_id."""
        return tuple(map(int, self.version.split("."))) >= (21, 2, 5)

    def url(self, path: str) -> str:
        """The URL of a space, or of a folder in one."""
        return f"onedata{'' if self.tls else '+http'}://{self.host}/{quote(path)}"


@contextmanager
def onedata_fake(version: str = "21.02.8", certificate: Path | None = None) -> Iterator[OnedataFake]:
    """Run the fake in threads of this process; with TLS if it is given a folder for its `cert.pem`."""
    fake = OnedataFake(version, certificate is not None)
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Fake", (Handler,), {"fake": fake}))
    server.daemon_threads = True
    server.block_on_close = False
    fake.port = server.server_address[1]
    if certificate:
        _certify(certificate)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate / "cert.pem", certificate / "key.pem")
        server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield fake
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def _certify(folder: Path) -> None:
    """A certificate for localhost that is its own authority."""
    command = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "rsa:2048",
        "-nodes",
        "-days",
        "2",
        "-subj",
        "/CN=localhost",
    ]
    command += ["-addext", "subjectAltName=DNS:localhost", "-addext", "keyUsage=digitalSignature,keyCertSign"]
    command += ["-keyout", str(folder / "key.pem"), "-out", str(folder / "cert.pem")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SetupError(f"No certificate could be made: {done.stderr}. Run: apt-get install -y openssl")
