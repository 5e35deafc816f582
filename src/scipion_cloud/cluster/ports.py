"""TCP ports for servers of our own, chosen once and kept: jobs that live know them."""

import json
import random
import socket
from collections.abc import Collection
from pathlib import Path

PORTS = range(10_000, 32_000)  # below those that the kernel gives to whoever asks for any


def kept_ports(file: Path, count: int, *, check: bool = False) -> list[int]:
    """The first `count` ports that `file` keeps; what is missing is chosen now.

    With `check`, those that somebody else has taken meanwhile are replaced: only while our servers are down.
    """
    before = known_ports(file)
    ports = [port if not check or is_free(port) else free_port(before) for port in before]
    while len(ports) < count:
        ports.append(free_port(ports))
    if ports != before:
        fresh = file.with_name(file.name + ".new")
        fresh.write_text(json.dumps(ports))
        fresh.replace(file)
    return ports[:count]


def known_ports(file: Path) -> list[int]:
    """What the file keeps; nothing without one."""
    try:
        return [int(port) for port in json.loads(file.read_text())]
    except (FileNotFoundError, ValueError):
        return []


def free_port(but: Collection[int] = ()) -> int:
    """A port of this machine that nobody has now, and none of these."""
    while True:
        port = random.choice(PORTS)  # noqa: S311 - not a secret
        if port not in but and is_free(port):
            return port


def is_free(port: int) -> bool:
    """True if a server could listen there now."""
    with socket.socket() as s:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as Slurm does
        try:
            s.bind(("", port))
        except OSError:
            return False
    return True
