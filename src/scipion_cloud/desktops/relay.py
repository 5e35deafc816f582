"""Between a browser's WebSocket and a desktop's VNC socket: bytes both ways, never through a TCP port."""

import asyncio
import os
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path

from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketState

from scipion_cloud.desktops.rfb import ClientStream, ProtocolError

CHUNK = 128 * 1024
Refusal = Callable[[], Awaitable[str | None]]


class CloseCode(IntEnum):
    """Why the relay hung up; the page acts on it."""

    PROTOCOL = 4400  # reload
    REFUSED = 4403  # do not come back: rights or the desktop are gone
    ENDED = 4410  # the X server went away: ask for the desktop's state


@dataclass(frozen=True)
class _Closing:
    code: CloseCode
    reason: str


async def relay(
    websocket: WebSocket,
    socket_path: Path,
    *,
    view_only: bool,
    refusal: Refusal,
    check_every: float = 5.0,
) -> None:
    """Carry an accepted WebSocket's binary messages to the Unix socket and back until one side ends.

    Each side is read only as fast as the other takes it. `refusal` is asked every `check_every` seconds and
    answers None, or the reason for which the connection must end now.
    """
    try:
        reader, writer = await connect(socket_path)
    except OSError:
        await websocket.close(CloseCode.ENDED, "The desktop is not running.")
        return
    ends = [
        asyncio.create_task(_from_browser(websocket, writer, ClientStream(view_only=view_only))),
        asyncio.create_task(_from_desktop(websocket, reader)),
        asyncio.create_task(_watch(refusal, check_every)),
    ]
    try:
        done, _ = await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for end in ends:
            end.cancel()
        await asyncio.gather(*ends, return_exceptions=True)
        writer.close()
    closing = done.pop().result()
    if closing and websocket.application_state is WebSocketState.CONNECTED:
        with suppress(RuntimeError, WebSocketDisconnect):  # the browser may have left meanwhile
            await websocket.close(closing.code, closing.reason)


async def connect(socket_path: Path) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Open a Unix socket whose path may be longer than the 107 bytes of the kernel. Raises OSError."""
    folder = os.open(socket_path.parent, os.O_PATH | os.O_DIRECTORY)
    try:
        return await asyncio.open_unix_connection(f"/proc/self/fd/{folder}/{socket_path.name}", limit=CHUNK)
    finally:
        os.close(folder)


async def _from_browser(
    websocket: WebSocket, writer: asyncio.StreamWriter, stream: ClientStream
) -> _Closing | None:
    while True:
        message = await websocket.receive()
        if message["type"] == "websocket.disconnect":
            return None
        try:
            writer.write(stream.feed(message.get("bytes") or b""))
            await writer.drain()
        except ProtocolError as e:
            return _Closing(CloseCode.PROTOCOL, str(e)[:120])
        except OSError:
            return _Closing(CloseCode.ENDED, "The desktop has ended.")


async def _from_desktop(websocket: WebSocket, reader: asyncio.StreamReader) -> _Closing | None:
    while True:
        try:
            data = await reader.read(CHUNK)
        except OSError:
            data = b""
        if not data:
            return _Closing(CloseCode.ENDED, "The desktop has ended.")
        try:
            await websocket.send_bytes(data)
        except (RuntimeError, WebSocketDisconnect):
            return None


async def _watch(refusal: Refusal, every: float) -> _Closing:
    while True:
        await asyncio.sleep(every)
        reason = await refusal()
        if reason:
            return _Closing(CloseCode.REFUSED, reason)
