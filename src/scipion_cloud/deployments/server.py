"""HTTP on the agent's Unix socket: its status, its page, and the orders that people and programs give.

Whoever can open the socket may do everything: it is for the user of the agent alone (mode 0600).
"""

import contextlib
import json
import socket
import socketserver
import threading
from collections.abc import Callable, Iterator
from datetime import datetime
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import parse_qs, urlsplit

from scipion_cloud.deployments.orders import Order
from scipion_cloud.deployments.sockets import listen
from scipion_cloud.deployments.status import AgentStatus
from scipion_cloud.errors import InvalidInput, ScipionCloudError

PAGE = Path(__file__).with_name("page")
FILES = {
    "/": ("index.html", "text/html; charset=utf-8"),
    "/page.css": ("page.css", "text/css; charset=utf-8"),
    "/page.js": ("page.js", "text/javascript; charset=utf-8"),
}
CSP = (
    "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; img-src 'self' data:; "
    "base-uri 'none'; form-action 'none'"
)
HEADER = "X-Scipion-Cloud"  # every POST carries it, which a form of a foreign page cannot
_IDLE = 60.0  # s; a connection over which nothing comes is closed

Query = dict[str, str]


class Served(Protocol):
    """What the server needs of an agent."""

    def status(self) -> AgentStatus:
        """How it stands."""
        ...

    def save(self) -> Order:
        """Save now. Raises Conflict when there is nothing to be saved yet, or no more."""
        ...

    def revert(self, generation: int) -> Order:
        """Save, then go to an earlier generation. Raises Conflict or NotFound."""
        ...

    def confirm(self) -> None:
        """Allow the save that asks. Raises Conflict when none does."""
        ...

    def close(self) -> None:
        """Save and release."""
        ...

    def set_deadline(self, at: datetime | None) -> None:
        """When to close. Raises InvalidInput."""
        ...


class _Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    """Serves from a socket that listens already."""

    daemon_threads = True
    block_on_close = False

    def __init__(self, listener: socket.socket, agent: Served) -> None:
        self.agent = agent
        socketserver.BaseServer.__init__(self, "", _Handler)
        self.socket = listener

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that hung up is nobody's business."""


@contextlib.contextmanager
def serving(agent: Served, state: Path) -> Iterator[None]:
    """Answer on the socket of a state folder within the block. Raises OSError."""
    server = _Server(listen(state), agent)
    thread = threading.Thread(target=server.serve_forever, args=(0.1,), name="server", daemon=True)
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    server_version = "scipion-cloud-agent"
    sys_version = ""
    timeout = _IDLE
    server: _Server

    def address_string(self) -> str:
        """Unix sockets have no peer's address."""
        return "socket"

    def log_message(self, format: str, *args: Any) -> None:
        """The status is asked for every second: no log."""

    def do_GET(self) -> None:
        """The status, or a file of the page."""
        path = urlsplit(self.path).path
        if path == "/status":
            self._answer(HTTPStatus.OK, self.server.agent.status().to_json())
        elif path in FILES:
            name, kind = FILES[path]
            self._answer(HTTPStatus.OK, (PAGE / name).read_bytes(), kind)
        else:
            self._refuse(HTTPStatus.NOT_FOUND, "There is no such page.")

    def do_POST(self) -> None:
        """An order."""
        self.rfile.read(min(int(self.headers.get("Content-Length") or 0), 1 << 16))
        parts = urlsplit(self.path)
        query = {name: values[-1] for name, values in parse_qs(parts.query).items()}
        action = _ACTIONS.get(parts.path)
        if action is None:
            return self._refuse(HTTPStatus.NOT_FOUND, "There is no such order.")
        if self.headers.get(HEADER) is None:
            return self._refuse(HTTPStatus.FORBIDDEN, f"Orders need the header {HEADER}: 1.")
        try:
            order = action(self.server.agent, query)
            if order is None or query.get("wait") != "1":
                return self._answer(HTTPStatus.ACCEPTED, b'{"accepted": true}')
            order.done.wait()
        except InvalidInput as e:
            return self._refuse(HTTPStatus.UNPROCESSABLE_ENTITY, str(e))
        except ScipionCloudError as e:
            return self._refuse(HTTPStatus.CONFLICT, str(e))
        if order.error is not None:
            return self._refuse(HTTPStatus.CONFLICT, order.error)
        return self._answer(HTTPStatus.OK, json.dumps(order.answer).encode())

    def _refuse(self, status: HTTPStatus, text: str) -> None:
        self._answer(status, json.dumps({"detail": text}).encode())

    def _answer(self, status: HTTPStatus, body: bytes, kind: str = "application/json") -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        self.send_header("Content-Security-Policy", CSP)
        self.send_header("X-Content-Type-Options", "nosniff")
        self.send_header("Referrer-Policy", "no-referrer")
        self.end_headers()
        self.wfile.write(body)


def _revert(agent: Served, query: Query) -> Order:
    text = query.get("generation", "")
    if not (text.isascii() and text.isdigit() and len(text) < 11):
        raise InvalidInput(
            "Say which: /revert?generation=N, with N as `scipion-cloud data generations` shows it."
        )
    return agent.revert(int(text))


def _deadline(agent: Served, query: Query) -> None:
    try:
        at = datetime.fromisoformat(query["at"]) if query.get("at") else None
    except ValueError as e:
        raise InvalidInput("A deadline looks like 2026-11-20T18:00:00Z; an empty one takes it away.") from e
    if at is not None and at.tzinfo is None:
        raise InvalidInput("A deadline needs its time zone: 2026-11-20T18:00:00Z.")
    agent.set_deadline(at)


_ACTIONS: dict[str, Callable[[Served, Query], Order | None]] = {
    "/save": lambda agent, _: agent.save(),
    "/close": lambda agent, _: agent.close(),
    "/confirm": lambda agent, _: agent.confirm(),
    "/revert": _revert,
    "/deadline": _deadline,
}
