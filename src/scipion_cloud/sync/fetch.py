"""The bytes of one file of a generation, verified."""

from __future__ import annotations

import io
import os
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import TYPE_CHECKING, BinaryIO, cast

from blake3 import blake3

from scipion_cloud.errors import StorageError, StorageMissing, SyncError
from scipion_cloud.storage import Storage
from scipion_cloud.sync.entry import Entry
from scipion_cloud.sync.layout import kept_key, key_of
from scipion_cloud.sync.progress import Progress

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

TINY = 64 * 1024  # bytes; many such files are read in one call
SMALL = 1024 * 1024  # bytes; such files are read at once
PART = 16 * 1024 * 1024  # bytes that are asked for at once; between parts a stop is heard
MANY = 64 * 1024 * 1024  # bytes; larger files come in parts, several at a time
THREADS = 4  # parts of one file at a time; on a local disk one, since they would wait for the file's lock
BLOCK = 64 * 1024  # bytes; holes are multiples of it
CHUNK = 256 * 1024
ZEROS = bytes(BLOCK)


class Stopped(Exception):
    """The caller's `stop` was set before the file was there."""


def fetch(
    storage: Storage,
    entry: Entry,
    fd: int,
    *,
    progress: Progress | None = None,
    stop: threading.Event | None = None,
) -> None:
    """Write a file's bytes to an open, empty local file (open for reading too) and verify them there.

    They are under the file's own name or, once a later save replaced it, in what is kept; a save that runs
    meanwhile moves them from the one to the other. Raises SyncError if they are nowhere whole, StorageError,
    OSError if the local file cannot take them, and Stopped.
    """
    own, kept = key_of(entry.path, storage.capabilities), kept_key(entry.digest)
    for key in (own, kept, own):
        try:
            if _take(storage, key, entry, fd, progress or Progress(), stop):
                return
        except StorageMissing:
            continue
        except StorageError as e:
            if type(e) is not StorageError:
                raise
            continue  # a folder or link has this name now
    raise SyncError(
        f"{entry.path.decode(errors='replace')!r} is damaged or missing in the storage: its bytes are not "
        "those that were saved. Restore another generation, or run `scipion-cloud data verify --repair`."
    )


def fetch_small(storage: Storage, entries: Sequence[Entry]) -> dict[bytes, bytes]:
    """The bytes of small files by path, verified; `fetch` knows more ways to those that are missing there.

    Raises StorageTransient, StorageDenied.
    """
    small = [entry for entry in entries if entry.size <= TINY]
    if storage.capabilities.batch == 1 or not small:
        return {}
    wanted = [(key_of(entry.path, storage.capabilities), entry.size + 1) for entry in small]
    found = zip(small, storage.read_small(wanted), strict=True)
    return {e.path: content for e, content in found if content is not None and _is_whole(content, e)}


def put(fd: int, content: bytes, *, sparse: bool = False) -> None:
    """Write all bytes of a file to an open, empty local one, with holes if it is `sparse`. Raises OSError."""
    if sparse:
        os.ftruncate(fd, len(content))
        _put_blocks(fd, content, 0)
    else:
        _put(fd, content, 0)


def _is_whole(content: bytes, entry: Entry) -> bool:
    return len(content) == entry.size and blake3(content).digest() == entry.digest


def _take(
    storage: Storage, key: str, entry: Entry, fd: int, progress: Progress, stop: threading.Event | None
) -> bool:
    """Fetch one key; whether it is what it has to be."""
    if entry.size <= SMALL:
        content = b"".join(storage.read(key, 0, entry.size + 1))
        if not _is_whole(content, entry):
            return False
        put(fd, content, sparse=entry.sparse)
        progress.add(size=entry.size)
        return True
    if storage.stat(key).size != entry.size:
        return False
    done = 0
    try:
        for part in bring(storage, key, entry.size, fd, sparse=entry.sparse):
            done += part
            progress.add(size=part)
            if stop is not None and stop.is_set():
                raise Stopped
        whole = done == entry.size and digest_of(fd, entry.size) == entry.digest
    except BaseException:
        progress.add(size=-done)
        raise
    if not whole:
        progress.add(size=-done)
    return whole


def bring(storage: Storage, key: str, size: int, fd: int, *, sparse: bool = False) -> Iterator[int]:
    """Write a file of `size` bytes to an open local one, in parts; how many bytes came with each.

    The local file has nothing but what came, and holes where there is nothing but zeros if it is `sparse`.
    """
    os.ftruncate(fd, 0)
    if sparse:
        os.ftruncate(fd, size)
    starts = range(0, size, PART)
    if not storage.capabilities.ranges:
        yield from _stream(storage, key, fd, sparse)
        return
    if size <= MANY or storage.capabilities.parallel == 1:
        for start in starts:
            yield _part(storage, key, fd, start, sparse)
        return
    with ThreadPoolExecutor(THREADS) as pool:
        parts = [pool.submit(_part, storage, key, fd, start, sparse) for start in starts]
        try:
            for part in as_completed(parts):
                yield part.result()
        finally:
            pool.shutdown(cancel_futures=True)


def _part(storage: Storage, key: str, fd: int, start: int, sparse: bool) -> int:
    if not sparse:
        return storage.download(key, fd, start, PART)
    done = 0
    for chunk in storage.read(key, start, PART):
        _put_blocks(fd, chunk, start + done)
        done += len(chunk)
    return done


def _stream(storage: Storage, key: str, fd: int, sparse: bool) -> Iterator[int]:
    place = 0
    for chunk in storage.read(key):
        (_put_blocks if sparse else _put)(fd, chunk, place)
        place += len(chunk)
        yield len(chunk)


def _put(fd: int, data: bytes, place: int) -> None:
    view = memoryview(data)
    while view:
        written = os.pwrite(fd, view, place)
        place += written
        view = view[written:]


def _put_blocks(fd: int, data: bytes, place: int) -> None:
    """Write what is not zero; the file has its size, so that the rest stays a hole."""
    for start in range(0, len(data), BLOCK):
        block = data[start : start + BLOCK]
        if block != ZEROS[: len(block)]:
            _put(fd, block, place + start)


def digest_of(fd: int, size: int) -> bytes:
    """BLAKE3 of an open file, read from its beginning; b"" if it is not `size` bytes long."""
    hasher = blake3()
    buffer = memoryview(bytearray(min(CHUNK, size + 1)))
    done = 0
    while count := os.preadv(fd, [buffer], done):
        hasher.update(buffer[:count])
        done += count
        if done > size:
            break
    return hasher.digest() if done == size else b""


def holds(storage: Storage, key: str, entry: Entry) -> bool:
    """Whether the bytes of a file stand whole under a key; read only if their number is right."""
    try:
        if storage.stat(key).size != entry.size:
            return False
        hasher = blake3()
        for chunk in storage.read(key, 0, entry.size + 1):
            hasher.update(chunk)
    except StorageMissing:
        return False
    except StorageError as e:
        if type(e) is not StorageError:
            raise
        return False  # a folder or link
    return hasher.digest() == entry.digest


def copy(storage: Storage, source: str, target: str) -> None:
    """Give a file's bytes a second key. Raises StorageMissing."""
    with Remote(storage, source) as content:
        storage.write(target, cast(BinaryIO, content))


class Remote(io.RawIOBase):
    """A file of a storage as a file of Python."""

    def __init__(self, storage: Storage, key: str) -> None:
        self._storage = storage
        self._key = key
        self._size = storage.stat(key).size
        self._place = 0
        self._chunks: Iterator[bytes] | None = None
        self._rest = memoryview(b"")

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._place

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        place = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._place, os.SEEK_END: self._size}[whence]
        if place != self._place:
            self._place, self._chunks, self._rest = place, None, memoryview(b"")
        return place

    def readinto(self, buffer: WriteableBuffer) -> int:
        with memoryview(buffer).cast("B") as target:
            if self._chunks is None:
                self._chunks = iter(self._storage.read(self._key, self._place))
            while not self._rest and (chunk := next(self._chunks, None)) is not None:
                self._rest = memoryview(chunk)
            count = min(len(target), len(self._rest))
            target[:count] = self._rest[:count]
        self._rest = self._rest[count:]
        self._place += count
        return count
