"""wsgidav (PyPI) on cheroot, in a process of its own.

with wsgidav(tmp_path) as server:
    open_storage(server.url, server.credentials)
"""

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from scipion_cloud.testing.servers.daemon import free_port
from scipion_cloud.testing.servers.davserver import PASSWORD, USER, DavServer, dav_server

# cheroot cuts off all but ten idle connections, also those that a client is about to use
_RUN = (
    "import cheroot.server, wsgidav.server.server_cli as cli;"
    "cheroot.server.HTTPServer.keep_alive_conn_limit = 100; cli.run()"
)


@contextmanager
def wsgidav(folder: Path) -> Iterator[DavServer]:
    """Serve `folder`/files. Raises SetupError if it does not start."""
    files, port = folder / "files", free_port()
    files.mkdir()
    settings = {
        "host": "127.0.0.1",
        "port": port,
        # as many as may ask at once in a test, and some; it resets who finds its usual queue of 5 full
        "server_args": {"numthreads": 24, "request_queue_size": 128},
        "provider_mapping": {"/": str(files)},
        "simple_dc": {"user_mapping": {"*": {USER: {"password": PASSWORD}}}},
        "http_authenticator": {"accept_basic": True, "accept_digest": False, "default_to_digest": False},
        "verbose": 1,
        "logging": {"enable": False},
    }
    config = folder / "wsgidav.json"
    config.write_text(json.dumps(settings))
    command: list[str | Path] = [sys.executable, "-c", _RUN, "--config", config]
    with dav_server(command, port, files, folder / "wsgidav.log") as server:
        yield server
