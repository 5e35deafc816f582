"""The portal's listening socket, and who sits on it if we cannot have it."""

import errno
import socket

import psutil

from scipion_cloud.errors import SetupError

BACKLOG = 1024


def listen(host: str, port: int) -> socket.socket:
    """A listening TCP socket, which outlives restarts of the portal, so that no request meets a closed door.

    Raises SetupError that names the program on the port and says how to choose another one.
    """
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.create_server(address[:2], family=family, backlog=BACKLOG)
    except OSError as e:
        if e.errno == errno.EADDRINUSE:
            raise SetupError(
                f"Port {port} is taken{_by(port)}. Choose another:  scipion-cloud up --port {port + 1}"
            ) from e
        if e.errno == errno.EACCES:
            raise SetupError(
                f"Port {port} is for administrators, like all below 1024. Use --port 8080."
            ) from e
        raise SetupError(f"{host} is no address of this machine ({e.strerror}). Try --host 127.0.0.1") from e
    listener.set_inheritable(True)
    return listener


def owner(port: int) -> psutil.Process | None:
    """The process that listens on a TCP port of this machine, as far as we may know."""
    try:
        connections = psutil.net_connections("tcp")
    except psutil.AccessDenied:
        return None
    for connection in connections:
        # the address of a socket that is not bound is an empty tuple
        bound = getattr(connection.laddr, "port", None)
        if connection.status == psutil.CONN_LISTEN and bound == port and connection.pid:
            try:
                return psutil.Process(connection.pid)
            except psutil.NoSuchProcess:
                return None
    return None


def _by(port: int) -> str:
    process = owner(port)
    if process is None:
        return ""
    try:
        return f" by {process.name()} (process {process.pid})"
    except psutil.Error:
        return ""
