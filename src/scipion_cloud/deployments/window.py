"""An agent's page for a browser on the same machine: 127.0.0.1, below a path that nobody can guess."""

import contextlib
import secrets
import threading
from collections.abc import Iterator
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import httpx

from scipion_cloud.deployments.client import AgentClient
from scipion_cloud.deployments.server import HEADER
from scipion_cloud.errors import Conflict

_PASSED = (
    "Content-Type",
    "Cache-Control",
    "Content-Security-Policy",
    "X-Content-Type-Options",
    "Referrer-Policy",
)


@contextlib.contextmanager
def window(state: Path, port: int = 0) -> Iterator[str]:
    """Serve the page within the block; gives its URL. Other users of the machine do not know its path.

    Raises OSError if the port is taken.
    """
    prefix = f"/{secrets.token_urlsafe(18)}"
    server = ThreadingHTTPServer(("127.0.0.1", port), _handler(AgentClient(state), prefix))
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.1,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}{prefix}/"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def _handler(client: AgentClient, prefix: str) -> type[BaseHTTPRequestHandler]:
    """Passes on what comes below the prefix."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        timeout = 60.0

        def log_message(self, format: str, *args: Any) -> None:
            """No log."""

        def do_GET(self) -> None:
            self._pass_on()

        def do_POST(self) -> None:
            self.rfile.read(min(int(self.headers.get("Content-Length") or 0), 1 << 16))
            self._pass_on()

        def _pass_on(self) -> None:
            parts = urlsplit(self.path)
            if not secrets.compare_digest(parts.path[: len(prefix) + 1].encode(), f"{prefix}/".encode()):
                return self._answer(HTTPStatus.NOT_FOUND, b"", {})
            path = parts.path[len(prefix) :]
            try:
                if self.command == "GET":
                    answer = client.fetch(path)
                elif self.headers.get(HEADER) is None:
                    return self._answer(HTTPStatus.FORBIDDEN, b"", {})
                else:
                    answer = client.post(path, dict(parse_qsl(parts.query)))
            except Conflict as e:
                if path == "/status" and (last := client.last_status()) is not None:
                    return self._answer(HTTPStatus.OK, last.to_json(), {"Content-Type": "application/json"})
                return self._answer(HTTPStatus.BAD_GATEWAY, str(e).encode(), {"Content-Type": "text/plain"})
            self._answer(answer.status_code, answer.content, _kept(answer))

        def _answer(self, status: int, body: bytes, headers: dict[str, str]) -> None:
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    return Handler


def _kept(answer: httpx.Response) -> dict[str, str]:
    return {name: answer.headers[name] for name in _PASSED if name in answer.headers}
