"""What a browser says to a VNC server (RFB 3.7 and 3.8, client to server), read bit by bit and filtered.

The relay passes everything through `ClientStream`, so that view-only is enforced on our side of the wire and
no message that we cannot measure ever reaches the server. Sources: RFC 6143 and the community's rfbproto.rst.
"""

from collections.abc import Callable, Generator
from dataclasses import dataclass
from enum import IntEnum

from scipion_cloud.errors import DesktopError

VERSIONS = (b"RFB 003.007\n", b"RFB 003.008\n")
NO_SECURITY = b"\x01"
SHARED = b"\x01"
# With this extension a pointer event would have two lengths; the server must not learn of it.
EXTENDED_MOUSE_BUTTONS = (-316).to_bytes(4, "big", signed=True)
RAW = bytes(4)
PIECE = 4096  # largest part of a message that is held back, bytes; a multiple of 4 for the list of encodings


class ProtocolError(DesktopError):
    """The browser's side of a desktop connection sent something that is not understood; reload the page."""


class Message(IntEnum):
    """Types of the messages that a client may send."""

    SET_PIXEL_FORMAT = 0
    SET_ENCODINGS = 2
    UPDATE_REQUEST = 3
    KEY = 4
    POINTER = 5
    CUT_TEXT = 6
    CONTINUOUS_UPDATES = 150
    FENCE = 248
    XVP = 250
    SET_DESKTOP_SIZE = 251
    QEMU = 255


@dataclass(frozen=True)
class _Shape:
    head: int  # bytes up to and with the last one that tells the length
    body: Callable[[bytes], int] = lambda _head: 0  # bytes that follow
    looks_only: bool = False  # changes nothing on the desktop: a viewer may send it


_SHAPES = {
    Message.SET_PIXEL_FORMAT: _Shape(20, looks_only=True),
    Message.SET_ENCODINGS: _Shape(4, lambda head: 4 * int.from_bytes(head[2:4], "big"), looks_only=True),
    Message.UPDATE_REQUEST: _Shape(10, looks_only=True),
    Message.KEY: _Shape(8),
    Message.POINTER: _Shape(6),
    # a negative length announces the extended clipboard
    Message.CUT_TEXT: _Shape(8, lambda head: abs(int.from_bytes(head[4:8], "big", signed=True))),
    Message.CONTINUOUS_UPDATES: _Shape(10, looks_only=True),
    Message.FENCE: _Shape(9, lambda head: head[8], looks_only=True),
    Message.XVP: _Shape(4),
    Message.SET_DESKTOP_SIZE: _Shape(8, lambda head: 16 * head[6]),
    Message.QEMU: _Shape(12),
}


class ClientStream:
    """One browser's half of a connection.

    With `view_only`, input, clipboard, resizing and power messages are dropped. Connections are always
    shared: nobody throws another viewer out. Holds back less than `PIECE` bytes, however long a message is.
    """

    def __init__(self, *, view_only: bool) -> None:
        self._view_only = view_only
        self._held = bytearray()
        self._out = bytearray()
        self._reader = self._read()
        self._wanted = next(self._reader)

    def feed(self, data: bytes) -> bytes:
        """Take the next bytes from the browser, return those for the server. Raises ProtocolError."""
        self._held += data
        start = 0
        while len(self._held) - start >= self._wanted:
            end = start + self._wanted
            self._wanted = self._reader.send(bytes(self._held[start:end]))
            start = end
        del self._held[:start]
        out = bytes(self._out)
        self._out.clear()
        return out

    def _read(self) -> Generator[int, bytes, None]:
        """Yields how many bytes are wanted next and receives exactly those."""
        version = yield 12
        if version not in VERSIONS:
            raise ProtocolError(f"The browser speaks another protocol than RFB 3.8: {version!r}.")
        self._out += version
        security = yield 1
        if security != NO_SECURITY:
            raise ProtocolError(
                f"The browser asks for security type {security[0]}; only 1 (none) is offered."
            )
        self._out += security
        yield 1  # whether to share the desktop: always
        self._out += SHARED
        while True:
            yield from self._read_message()

    def _read_message(self) -> Generator[int, bytes, None]:
        first = yield 1
        try:
            message = Message(first[0])
        except ValueError:
            raise ProtocolError(f"The browser sent a message of unknown type {first[0]}.") from None
        shape = _SHAPES[message]
        head = first + (yield shape.head - 1)
        if message is Message.QEMU and head[1] != 0:
            raise ProtocolError(f"The browser sent an unknown QEMU message {head[1]}.")
        if message is Message.POINTER:
            head = head[:1] + bytes([head[1] & 0x7F]) + head[2:]  # bit 7 belongs to that extension, too
        forward = shape.looks_only or not self._view_only
        if forward:
            self._out += head
        left = shape.body(head)
        while left:
            piece = yield min(left, PIECE)
            left -= len(piece)
            if forward:
                self._out += _without_mouse_buttons(piece) if message is Message.SET_ENCODINGS else piece


def _without_mouse_buttons(encodings: bytes) -> bytes:
    """A list of encodings (4 bytes each) in which that extension gives way to Raw, which all know."""
    each = (encodings[i : i + 4] for i in range(0, len(encodings), 4))
    return b"".join(RAW if encoding == EXTENDED_MOUSE_BUTTONS else encoding for encoding in each)
