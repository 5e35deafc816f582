"""Leaving room for others on the wire and on the server."""

import io
import math
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from threading import Lock
from typing import Any, BinaryIO, cast

from scipion_cloud.storage.base import CHUNK, Stat, Storage, size_of
from scipion_cloud.storage.wrapper import Wrapper


@dataclass(frozen=True)
class Limits:
    """What a storage may be asked for, of all threads together."""

    read: float = math.inf  # bytes per second
    write: float = math.inf  # bytes per second
    requests: float = math.inf  # per second
    sleep: Callable[[float], object] = field(default=time.sleep, repr=False)
    clock: Callable[[], float] = field(default=time.monotonic, repr=False)  # seconds


class Bucket:
    """Tokens that come at a rate; those of a second are kept. Who takes some waits until they are there."""

    def __init__(self, rate: float, limits: Limits) -> None:
        self._rate = rate
        self._limits = limits
        self._lock = Lock()
        self._spent_until = -math.inf  # when the last tokens that were taken are there

    def take(self, count: int) -> None:
        """Take tokens, in the order of the asking."""
        with self._lock:
            now = self._limits.clock()
            self._spent_until = max(self._spent_until, now - 1) + count / self._rate
            wait = self._spent_until - now
        if wait > 0:
            self._limits.sleep(wait)


class Throttled(Wrapper):
    """Asks for no more than the limits allow."""

    def __init__(self, inner: Storage, limits: Limits) -> None:
        super().__init__(inner)
        self._read = Bucket(limits.read, limits)
        self._written = Bucket(limits.write, limits)
        self._requests = Bucket(limits.requests, limits)

    def __repr__(self) -> str:
        return f"Throttled({self.inner!r})"

    def children(self, folder: str = "") -> Iterator[Stat]:
        self._requests.take(1)
        return super().children(folder)

    def walk(self, folder: str = "") -> Iterator[Stat]:
        self._requests.take(1)
        return super().walk(folder)

    def stat(self, key: str) -> Stat:
        self._requests.take(1)
        return super().stat(key)

    def read(self, key: str, start: int = 0, length: int | None = None) -> Iterator[bytes]:
        self._requests.take(1)
        for chunk in super().read(key, start, length):
            self._read.take(len(chunk))
            yield chunk

    def write(
        self, key: str, content: BinaryIO | bytes, *, mtime: datetime | None = None, new: bool = False
    ) -> None:
        self._requests.take(1)
        slow = cast(BinaryIO, _Slow(content, self._written))
        super().write(key, slow, mtime=mtime, new=new)

    def create(self, key: str, content: bytes) -> None:
        self._requests.take(1)
        self._written.take(len(content))
        super().create(key, content)

    def move(self, source: str, target: str) -> None:
        self._requests.take(1)
        super().move(source, target)

    def remove(self, key: str) -> None:
        self._requests.take(1)
        super().remove(key)

    def make_folder(self, key: str) -> None:
        self._requests.take(1)
        super().make_folder(key)

    def remove_folder(self, key: str) -> None:
        self._requests.take(1)
        super().remove_folder(key)

    def symlink(self, key: str, target: bytes) -> None:
        self._requests.take(1)
        super().symlink(key, target)

    def readlink(self, key: str) -> bytes:
        self._requests.take(1)
        return super().readlink(key)

    def download(self, key: str, fd: int, start: int = 0, length: int | None = None) -> int:
        return Storage.download(self, key, fd, start, length)  # chunk by chunk, through `read`

    def flush(self) -> None:
        self._requests.take(1)
        super().flush()


class _Slow(io.RawIOBase):
    """A content that is read as fast as tokens come; no file of the system, which could be copied past us."""

    def __init__(self, content: BinaryIO | bytes, bucket: Bucket) -> None:
        self._content = io.BytesIO(content) if isinstance(content, bytes) else content
        self._size = size_of(content)
        self._bucket = bucket

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._content.tell()

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        if whence == os.SEEK_END:
            return self._content.seek(self._size + offset)
        return self._content.seek(offset, whence)

    def readinto(self, buffer: Any, /) -> int:
        view = memoryview(buffer).cast("B")
        data = self._content.read(min(len(view), CHUNK))
        self._bucket.take(len(data))
        view[: len(data)] = data
        return len(data)
