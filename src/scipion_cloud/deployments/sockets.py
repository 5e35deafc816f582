"""Unix sockets at paths of any length: the system takes 107 bytes, so they are reached by their folder."""

import contextlib
import http.client
import os
import socket
from collections.abc import Iterator
from pathlib import Path

SOCKET = "agent.sock"


@contextlib.contextmanager
def address(folder: Path) -> Iterator[str]:
    """A short path of the agent's socket in a folder, valid within the block. Raises OSError."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{fd}/{SOCKET}"
    finally:
        os.close(fd)


def listen(folder: Path) -> socket.socket:
    """A listening socket, for this user only; the caller holds the folder's lock. Raises OSError.

    One that is left behind is replaced.
    """
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        with address(folder) as path:
            Path(path).unlink(missing_ok=True)
            os.fchmod(listener.fileno(), 0o600)  # before it has a name: nobody else ever gets to connect
            listener.bind(path)
        listener.listen(64)
    except BaseException:
        listener.close()
        raise
    return listener


class Connection(http.client.HTTPConnection):
    """HTTP through the socket at a short path. OSError where nobody listens, and nothing is left open."""

    def __init__(self, path: str, timeout: float | None) -> None:
        super().__init__("agent", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        """Called with the first request."""
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self.sock.settimeout(self.timeout)
            self.sock.connect(self._path)
        except BaseException:
            self.close()
            raise
