"""The bytes of files by SFTP, with many requests under way."""

import stat
import struct
from collections import deque
from collections.abc import Iterator
from datetime import datetime
from typing import BinaryIO

from scipion_cloud.errors import StorageError
from scipion_cloud.storage.sftp_names import FSYNC
from scipion_cloud.storage.sftp_pool import Pool
from scipion_cloud.storage.sftp_protocol import (
    CREATE,
    READ,
    TRUNCATE,
    WRITE,
    Ask,
    Code,
    Protocol,
    SftpStatus,
    open_file,
    string,
    times,
)

AHEAD = 4 * 1024 * 1024  # bytes under way for one file; ssh has 2 MiB under way itself


def read_file(pool: Pool, path: bytes, start: int, length: int | None) -> Iterator[bytes]:
    """The bytes of a file from `start`, `length` of them at most. Raises SftpStatus, StorageError.

    The connection is free for others between the chunks: who reads slowly, or many files at once, blocks
    nobody.
    """
    with pool.use() as sftp:
        handle = _open_for_reading(sftp, path)
        sized = sftp.send(Ask.FSTAT, handle)
        first = min(sftp.read_size, AHEAD if length is None else length)
        under_way = deque([(start, first, _ask(sftp, handle, start, first))])
        size = sftp.attributes(sized).size or 0
        end = size if length is None else min(size, start + length)
        place = start + first
        chunk, place = _next(sftp, handle, under_way, place, end)
    try:
        while chunk:
            yield chunk
            if not under_way:
                break
            with pool.use(sftp):
                chunk, place = _next(sftp, handle, under_way, place, end)
    finally:
        sftp.give_up(handle, [number for _, _, number in under_way])


def _open_for_reading(sftp: Protocol, path: bytes) -> bytes:
    """The handle of a file that is one. Raises SftpStatus, StorageError."""
    looked = sftp.send(Ask.LSTAT, string(path))
    opened = sftp.send(Ask.OPEN, *open_file(path, READ))
    mode, handle, refusal = sftp.opened(looked, opened)
    if mode is not None and not stat.S_ISREG(mode):
        if handle:
            sftp.forget(sftp.send(Ask.CLOSE, handle))
        raise StorageError("It is not a file.")
    if refusal:
        if handle:
            sftp.forget(sftp.send(Ask.CLOSE, handle))
        raise refusal
    return handle


def _ask(sftp: Protocol, handle: bytes, place: int, count: int) -> int:
    return sftp.send(Ask.READ, handle, struct.pack(">QI", place, count))


def _next(
    sftp: Protocol, handle: bytes, under_way: deque[tuple[int, int, int]], place: int, end: int
) -> tuple[bytes, int]:
    """The next chunk, empty at the end; asks for what comes after it, from `place` on."""
    at, count, number = under_way.popleft()
    while place < end and place - at < AHEAD:
        step = min(sftp.read_size, end - place)
        under_way.append((place, step, _ask(sftp, handle, place, step)))
        place += step
    count = max(0, min(count, end - at))
    chunks = []
    try:
        while True:
            chunk = sftp.reply(number)[2]
            chunks.append(chunk)
            count -= len(chunk)
            if count <= 0 or not chunk:
                break
            at += len(chunk)  # a server may give fewer bytes than it was asked for
            number = _ask(sftp, handle, at, count)
    except SftpStatus as e:
        if e.code != Code.EOF:
            raise
    return chunks[0] if len(chunks) == 1 else b"".join(chunks), place


def write_file(
    sftp: Protocol, path: bytes, content: BinaryIO | bytes, size: int, mtime: datetime | None
) -> None:
    """Put `size` bytes into a file, made or emptied before, and onto the server's disk where it can.

    Raises SftpStatus, StorageError if `content` ends early, and what reading it raises.
    """
    handle = sftp.handle(sftp.send(Ask.OPEN, *open_file(path, WRITE | CREATE | TRUNCATE)))
    under_way: deque[int] = deque()
    most = max(2, AHEAD // sftp.write_size)
    try:
        for place, chunk in _chunks(content, size, sftp.write_size):
            request = struct.pack(">QI", place, len(chunk))
            under_way.append(sftp.send(Ask.WRITE, handle, request, chunk))
            if len(under_way) >= most:
                sftp.reply(under_way.popleft())
        under_way.extend(finish_writing(sftp, handle, seconds(mtime)))
    finally:
        under_way.append(sftp.send(Ask.CLOSE, handle))
        sftp.settle(under_way)


def finish_writing(sftp: Protocol, handle: bytes, mtime: int | None) -> Iterator[int]:
    """Give a file its time and bring it to the server's disk; the numbers of the requests."""
    if mtime is not None:  # before fsync, and after the last byte, which sets the time again
        yield sftp.send(Ask.FSETSTAT, handle, times(mtime))
    if FSYNC in sftp.extensions:
        yield sftp.send(Ask.EXTENDED, string(FSYNC), handle)


def seconds(mtime: datetime | None) -> int | None:
    """A time as SFTP counts it, since 1970."""
    return None if mtime is None else int(mtime.timestamp() // 1)


def _chunks(content: BinaryIO | bytes, size: int, most: int) -> Iterator[tuple[int, bytes | memoryview]]:
    """Where each chunk belongs, and the chunk."""
    if isinstance(content, bytes):
        view = memoryview(content)
        for place in range(0, size, most):
            yield place, view[place : place + most]
        return
    content.seek(0)
    place = 0
    while place < size:
        chunk = content.read(min(most, size - place))
        if not chunk:
            raise StorageError(
                f"The file has become shorter while it was written: {place} bytes, not {size}."
            )
        yield place, chunk
        place += len(chunk)
