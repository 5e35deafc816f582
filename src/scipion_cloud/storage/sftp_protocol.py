"""SFTP version 3 over a socket, with as many requests under way as one likes.

draft-ietf-secsh-filexfer-02, and OpenSSH's PROTOCOL for its extensions. Names are bytes. A reply is found by
the number of its request, so that a reader may leave requests under way while somebody else has the
connection; one thread at a time uses it.
"""

import socket
import struct
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import IntEnum
from typing import BinaryIO, cast

SILENCE = 45.0  # s without a byte after which a connection counts as dead
VERSION = 3
READ, WRITE, CREATE, TRUNCATE = 0x01, 0x02, 0x08, 0x10
PACKET = 32 * 1024  # bytes of content that every server takes in one request
BATCH = 128 * 1024  # bytes, at least, that wait to be sent in one system call while no reply is waited for

_HEAD = struct.Struct(">IBII")  # every packet but the first: length, type, number, and a word that all have
_TIMES = 0x08


class Ask(IntEnum):
    """Requests."""

    INIT = 1
    OPEN = 3
    CLOSE = 4
    READ = 5
    WRITE = 6
    LSTAT = 7
    FSTAT = 8
    FSETSTAT = 10
    OPENDIR = 11
    READDIR = 12
    REMOVE = 13
    MKDIR = 14
    RMDIR = 15
    STAT = 17
    RENAME = 18
    READLINK = 19
    SYMLINK = 20
    EXTENDED = 200


class Answer(IntEnum):
    """Replies."""

    VERSION = 2
    STATUS = 101
    HANDLE = 102
    DATA = 103
    NAME = 104
    ATTRS = 105
    EXTENDED = 201


class Code(IntEnum):
    """How a request ended."""

    OK = 0
    EOF = 1
    NO_SUCH_FILE = 2
    PERMISSION_DENIED = 3
    FAILURE = 4
    BAD_MESSAGE = 5
    NO_CONNECTION = 6
    CONNECTION_LOST = 7
    OP_UNSUPPORTED = 8


class SftpStatus(Exception):
    """The server refused a request; the connection is as good as before."""

    def __init__(self, code: int, text: str) -> None:
        self.code = code
        self.text = text
        self.path: bytes | None = None  # what was refused, where a request was one of many
        super().__init__(f"{text or 'failure'} (SFTP status {code})")


class ConnectionDead(Exception):
    """The connection ended, was silent for too long, or carries nonsense."""


@dataclass(frozen=True, slots=True)
class Attributes:
    """What a server tells of a file; None for what it does not tell."""

    size: int | None
    mode: int | None  # with the bits of the kind
    mtime: int | None  # s since 1970


Reply = tuple[int, int, bytes]  # type, its first word, the rest


class Protocol:
    """One connection. Raises ConnectionDead from any method, after which it is of no use."""

    def __init__(self, sock: socket.socket) -> None:
        sock.settimeout(SILENCE)
        self._sock = sock
        self._incoming = cast(BinaryIO, sock.makefile("rb", buffering=64 * 1024))
        self._outgoing: list[bytes | memoryview] = []
        self._waiting = 0  # bytes in it
        self._number = 0
        self._replies: dict[int, Reply] = {}
        self._forgotten: set[int] = set()
        # a reader that is collected as garbage may be so in the midst of another method of ours
        self._given_up: deque[tuple[bytes, list[int]]] = deque()
        try:
            self.extensions = self._greet()
            self.read_size, self.write_size = self._limits()
        except BaseException:
            self._incoming.close()
            raise

    def _greet(self) -> dict[bytes, bytes]:
        """Agree on the version; the server's extensions."""
        self._outgoing.append(struct.pack(">IBI", 5, Ask.INIT, VERSION))
        self._flush()
        length, kind = struct.unpack(">IB", self._read(5))
        if kind != Answer.VERSION or not 5 <= length < 1024 * 1024:
            raise ConnectionDead(
                "the server does not speak SFTP; does the account print something at sign-in?"
            )
        body = self._read(length - 1)
        fields = list(_strings(body, 4))
        return dict(zip(fields[::2], fields[1::2], strict=False))

    def _limits(self) -> tuple[int, int]:
        """The most bytes of content in one reply and in one request."""
        if b"limits@openssh.com" not in self.extensions:
            return PACKET, PACKET
        head, _, read, write = struct.unpack(">QQQQ", self.extended(b"limits@openssh.com")[:32])
        most = max(PACKET, min(head or PACKET, 256 * 1024) - 1024)
        return min(read or PACKET, most), min(write or PACKET, most)

    # --- requests and replies

    def send(self, kind: Ask, *parts: bytes | memoryview) -> int:
        """Put a request on its way, at the latest when a reply is waited for; its number."""
        self._number = number = (self._number + 1) & 0xFFFFFFFF
        length = 5 + sum(map(len, parts))
        self._outgoing.append(struct.pack(">IBI", length, kind, number))
        self._outgoing.extend(parts)
        self._waiting += length
        if self._waiting > BATCH or len(self._outgoing) > 512:  # a call takes 1024 pieces at most
            self._flush()
        return number

    def reply(self, number: int) -> Reply:
        """Wait for the reply to a request. Raises SftpStatus where the request was refused."""
        if self._outgoing:
            self._flush()
        while (found := self._replies.pop(number, None)) is None:
            self._receive()
        kind, word, rest = found
        if kind == Answer.STATUS and word != Code.OK:
            text = next(_strings(rest, 0), b"").decode(errors="replace")
            raise SftpStatus(word, text)
        return found

    def ask(self, kind: Ask, *parts: bytes | memoryview) -> Reply:
        """Send a request and wait for its reply."""
        return self.reply(self.send(kind, *parts))

    def settle(self, numbers: Iterable[int]) -> None:
        """Wait for all of these; raise the first refusal when all are there."""
        refused: SftpStatus | None = None
        for number in numbers:
            try:
                self.reply(number)
            except SftpStatus as e:
                refused = refused or e
        if refused:
            raise refused

    def forget(self, *numbers: int) -> None:
        """Nobody will ask for these replies."""
        for number in numbers:
            if self._replies.pop(number, None) is None:
                self._forgotten.add(number)

    def give_up(self, handle: bytes, numbers: list[int]) -> None:
        """Close a file and forget requests later, when the connection is used next. From any thread."""
        self._given_up.append((handle, numbers))

    def tidy(self) -> None:
        """Carry out what was given up."""
        while self._given_up:
            handle, numbers = self._given_up.popleft()
            self.forget(*numbers, self.send(Ask.CLOSE, handle))

    def extended(self, name: bytes, *parts: bytes) -> bytes:
        """Carry out an extension's request; what its reply holds."""
        kind, word, rest = self.ask(Ask.EXTENDED, string(name), *parts)
        return struct.pack(">I", word) + rest if kind == Answer.EXTENDED else b""

    def handle(self, number: int) -> bytes:
        """The handle that a request for one gets, ready to be sent."""
        kind, length, rest = self.reply(number)
        self._expect(kind, Answer.HANDLE)
        return struct.pack(">I", length) + rest

    def opened(self, looked: int, opened: int) -> tuple[int | None, bytes, SftpStatus | None]:
        """What a path is and its handle, of two requests for one path: mode, handle, the first refusal."""
        mode: int | None = None
        handle, refusal = b"", None
        try:
            mode = self.attributes(looked).mode
        except SftpStatus as e:
            refusal = e
        try:
            handle = self.handle(opened)
        except SftpStatus as e:
            refusal = refusal or e
        return mode, handle, refusal

    def attributes(self, number: int) -> Attributes:
        """The attributes that a request for them gets."""
        kind, flags, rest = self.reply(number)
        self._expect(kind, Answer.ATTRS)
        return _attributes(flags, rest, 0)[0]

    def names(self, number: int) -> list[tuple[bytes, Attributes]]:
        """The names that a request for them gets, with the attributes that come with them."""
        kind, count, rest = self.reply(number)
        self._expect(kind, Answer.NAME)
        found, place = [], 0
        for _ in range(count):
            name, place = _string(rest, place)
            _, place = _string(rest, place)  # a line as `ls -l` prints it
            (flags,) = struct.unpack_from(">I", rest, place)
            attributes, place = _attributes(flags, rest, place + 4)
            found.append((name, attributes))
        return found

    def _expect(self, kind: int, wanted: Answer) -> None:
        if kind != wanted:
            raise ConnectionDead(f"the server answered with {kind} where {wanted} is due")

    # --- bytes

    def _receive(self) -> None:
        """Take one packet in."""
        length, kind, number, word = _HEAD.unpack(self._read(_HEAD.size))
        if not 9 <= length <= 16 * 1024 * 1024:
            raise ConnectionDead("the server sent what is no SFTP")
        rest = self._read(length - 9)
        if number in self._forgotten:
            self._forgotten.remove(number)
        else:
            self._replies[number] = (kind, word, rest)

    def _read(self, count: int) -> bytes:
        try:
            found = self._incoming.read(count)
        except TimeoutError as e:
            raise ConnectionDead(f"the server was silent for {SILENCE:.0f} s") from e
        except (OSError, ValueError) as e:
            raise ConnectionDead(str(e)) from e
        if len(found) < count:
            raise ConnectionDead("the connection ended")
        return found

    def _flush(self) -> None:
        """Send what is waiting to be sent."""
        parts, self._outgoing, self._waiting = self._outgoing, [], 0
        try:
            while parts:
                sent = self._sock.sendmsg(parts)
                whole = 0
                while whole < len(parts) and sent >= len(parts[whole]):
                    sent -= len(parts[whole])
                    whole += 1
                del parts[:whole]
                if sent:
                    parts[0] = memoryview(parts[0])[sent:]
        except TimeoutError as e:
            raise ConnectionDead(f"the server took nothing for {SILENCE:.0f} s") from e
        except OSError as e:
            raise ConnectionDead(str(e)) from e


def string(content: bytes) -> bytes:
    """Bytes as they stand in a packet."""
    return struct.pack(">I", len(content)) + content


def open_file(path: bytes, flags: int) -> tuple[bytes, bytes]:
    """What a request to open a file says."""
    return string(path), struct.pack(">II", flags, 0)


def times(mtime: int) -> bytes:
    """Attributes that set the times of a file (s since 1970, held within what 32 bits can tell)."""
    held = max(0, min(mtime, 0xFFFFFFFF))
    return struct.pack(">III", _TIMES, held, held)


def _string(data: bytes, place: int) -> tuple[bytes, int]:
    """The string at a place, and the place behind it."""
    (length,) = struct.unpack_from(">I", data, place)
    end = place + 4 + length
    if end > len(data):
        raise ConnectionDead("the server sent what is no SFTP")
    return data[place + 4 : end], end


def _strings(data: bytes, place: int) -> Iterator[bytes]:
    while place + 4 <= len(data):
        found, place = _string(data, place)
        yield found


def _attributes(flags: int, data: bytes, place: int) -> tuple[Attributes, int]:
    """The attributes at a place (behind their flags), and the place behind them."""
    size = mode = mtime = None
    if flags & 0x01:
        (size,) = struct.unpack_from(">Q", data, place)
        place += 8
    if flags & 0x02:
        place += 8  # owner and group
    if flags & 0x04:
        (mode,) = struct.unpack_from(">I", data, place)
        place += 4
    if flags & _TIMES:
        _, mtime = struct.unpack_from(">II", data, place)
        place += 8
    if flags & 0x80000000:
        (count,) = struct.unpack_from(">I", data, place)
        place += 4
        for _ in range(2 * count):
            _, place = _string(data, place)
    return Attributes(size, mode, mtime), place
