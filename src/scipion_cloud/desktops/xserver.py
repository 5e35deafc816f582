"""Xtigervnc without a TCP port: its screen is reached through a Unix socket that only its owner can open."""

import asyncio
import os
import secrets
import socket
import struct
from asyncio.subprocess import Process
from contextlib import suppress
from pathlib import Path

from scipion_cloud.desktops.processes import ends_with_us
from scipion_cloud.desktops.settings import SOCKET
from scipion_cloud.errors import DesktopError

START_TIMEOUT = 30.0  # seconds
MAX_CLIPBOARD = 4 * 1024 * 1024  # bytes
FAMILY_WILD = 0xFFFF


async def start(folder: Path, title: str, geometry: str) -> tuple[Process, str]:
    """Start an X server for the session in `folder`; returns its process and display (`:7`) once it is ready.

    The X side is locked by a fresh cookie (`folder/xauthority`); the VNC side by the mode 0600 of
    `folder/vnc.sock`, and beyond that by the portal's relay. Raises DesktopError.
    """
    (folder / SOCKET).unlink(missing_ok=True)
    cookies = folder / "xauthority"
    _write_cookie(cookies)
    reads, writes = os.pipe()
    command = [
        "Xtigervnc",
        *("-displayfd", str(writes), "-auth", cookies.name, "-nolisten", "tcp", "-noreset"),
        *("-desktop", title, "-geometry", geometry, "-depth", "24", "-dpi", "96"),
        # the path is relative, since those of Unix sockets end at 107 bytes
        *("-rfbunixpath", SOCKET, "-rfbunixmode", "0600", "-rfbport", "-1"),
        *("-SecurityTypes", "None", "-UseBlacklist=0", "-AlwaysShared"),
        # what is merely selected in the desktop does not replace the browser's clipboard
        *("-SendPrimary=0", "-MaxCutText", str(MAX_CLIPBOARD)),
    ]
    with (folder / "xserver.log").open("wb") as log:
        try:
            process = await asyncio.create_subprocess_exec(
                *command,
                cwd=folder,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=[writes],
                preexec_fn=ends_with_us,
            )
        except FileNotFoundError:
            os.close(reads)
            raise DesktopError(
                "Xtigervnc is missing: install the package tigervnc-standalone-server."
            ) from None
        finally:
            os.close(writes)
    number = await _first_line(reads)
    if not number:
        raise DesktopError(f"The X server did not start: {_last_line(folder / 'xserver.log')}")
    return process, f":{number}"


def remove_traces(display: str) -> None:
    """Take away the socket of a killed X server, unless another server has taken the display over."""
    path = Path(f"/tmp/.X11-unix/X{display.lstrip(':')}")  # noqa: S108 - X's own place
    with suppress(OSError), socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink()


def _write_cookie(file: Path) -> None:
    """An Xauthority file with one cookie, good for any display: family, address, number, name, data."""
    fields = (b"", b"", b"MIT-MAGIC-COOKIE-1", secrets.token_bytes(16))
    entry = struct.pack(">H", FAMILY_WILD) + b"".join(struct.pack(">H", len(f)) + f for f in fields)
    with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as stream:
        stream.write(entry)


async def _first_line(descriptor: int) -> str:
    """What the X server writes there once it is ready: its number. Empty if it ended or took too long."""
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader()
    transport, _ = await loop.connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(descriptor, "rb")
    )
    try:
        return (await asyncio.wait_for(reader.readline(), START_TIMEOUT)).decode().strip()
    except TimeoutError:
        return ""
    finally:
        transport.close()


def _last_line(log: Path) -> str:
    lines = log.read_text(errors="replace").split("\n")
    return next((line.strip() for line in reversed(lines) if line.strip()), "it wrote nothing.")
