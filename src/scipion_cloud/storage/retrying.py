"""Trying again what may succeed later."""

import logging
import random
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import BinaryIO, TypeVar

from scipion_cloud.errors import StorageExists, StorageMissing, StorageTransient
from scipion_cloud.storage.base import NewFile, Stat, Storage
from scipion_cloud.storage.wrapper import Wrapper

T = TypeVar("T")

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Patience:
    """How often and how long to try again.

    The n-th pause is of random length below `min(longest, first * 2**n)`: many that were refused at the same
    moment shall not come back at the same moment.
    """

    attempts: int = 8
    first: float = 0.2  # seconds
    longest: float = 20.0  # seconds
    total: float = 120.0  # seconds, from the first attempt, or from the last progress, to the last attempt
    sleep: Callable[[float], object] = field(default=time.sleep, repr=False)
    uniform: Callable[[], float] = field(default=random.random, repr=False)  # 0 to 1
    clock: Callable[[], float] = field(default=time.monotonic, repr=False)  # seconds


class Retrying(Wrapper):
    """Tries again after StorageTransient, until that succeeds, fails otherwise, or patience ends.

    A read that breaks goes on where it broke: should the file have been replaced meanwhile, the rest is of
    the new one, as digests tell. `create` and `move` that may have been carried out look whether they were:
    who creates files that others may create too puts into them what is only theirs.
    """

    def __init__(self, inner: Storage, patience: Patience | None = None) -> None:
        super().__init__(inner)
        self.patience = patience or Patience()

    def __repr__(self) -> str:
        return f"Retrying({self.inner!r})"

    def children(self, folder: str = "") -> Iterator[Stat]:
        return self._list(self.inner.children, folder)

    def walk(self, folder: str = "") -> Iterator[Stat]:
        return self._list(self.inner.walk, folder)

    def stat(self, key: str) -> Stat:
        return self._try(lambda: self.inner.stat(key))

    def read(self, key: str, start: int = 0, length: int | None = None) -> Iterator[bytes]:
        attempts = _Attempts(self.patience)
        done = 0
        while True:
            try:
                for chunk in self.inner.read(key, start + done, None if length is None else length - done):
                    done += len(chunk)
                    attempts.begin()
                    yield chunk
                return
            except StorageTransient as e:
                attempts.failed(e)

    def write(
        self, key: str, content: BinaryIO | bytes, *, mtime: datetime | None = None, new: bool = False
    ) -> None:
        self._try(lambda: self.inner.write(key, content, mtime=mtime, new=new))

    def write_new(self, files: Sequence[NewFile]) -> None:
        try:
            self.inner.write_new(files)
        except StorageTransient as e:
            logger.info("trying again, file by file: %s", e)
            super().write_new(files)

    def create(self, key: str, content: bytes) -> None:
        attempts = _Attempts(self.patience)
        while True:
            try:
                return self.inner.create(key, content)
            except StorageTransient as e:
                attempts.failed(e)
            except StorageExists:
                if attempts.count and self.read_bytes(key) == content:
                    return None
                raise

    def move(self, source: str, target: str) -> None:
        attempts = _Attempts(self.patience)
        while True:
            try:
                return self.inner.move(source, target)
            except StorageTransient as e:
                attempts.failed(e)
            except StorageMissing:
                if not attempts.count:
                    raise
                self.stat(target)  # raises StorageMissing too
                return None

    def remove(self, key: str) -> None:
        self._try(lambda: self.inner.remove(key))

    def make_folder(self, key: str) -> None:
        self._try(lambda: self.inner.make_folder(key))

    def remove_folder(self, key: str) -> None:
        self._try(lambda: self.inner.remove_folder(key))

    def symlink(self, key: str, target: bytes) -> None:
        self._try(lambda: self.inner.symlink(key, target))

    def readlink(self, key: str) -> bytes:
        return self._try(lambda: self.inner.readlink(key))

    def download(self, key: str, fd: int, start: int = 0, length: int | None = None) -> int:
        return self._try(lambda: self.inner.download(key, fd, start, length))

    def read_small(self, wanted: Sequence[tuple[str, int]]) -> list[bytes | None]:
        try:
            return self.inner.read_small(wanted)
        except StorageTransient as e:
            logger.info("trying again, file by file: %s", e)
            return super().read_small(wanted)

    def read_bytes(self, key: str) -> bytes:
        return self._try(lambda: self.inner.read_bytes(key))

    def flush(self) -> None:
        self._try(self.inner.flush)

    def _try(self, call: Callable[[], T]) -> T:
        attempts = _Attempts(self.patience)
        while True:
            try:
                return call()
            except StorageTransient as e:
                attempts.failed(e)

    def _list(self, call: Callable[[str], Iterator[Stat]], folder: str) -> Iterator[Stat]:
        """A listing; one that breaks begins anew, without what was told."""
        attempts = _Attempts(self.patience)
        told: set[str] = set()
        while True:
            try:
                for stat in call(folder):
                    if stat.key not in told:
                        told.add(stat.key)
                        yield stat
                return
            except StorageTransient as e:
                attempts.failed(e)


class _Attempts:
    """The attempts at one thing."""

    def __init__(self, patience: Patience) -> None:
        self._patience = patience
        self.begin()

    def begin(self) -> None:
        """At the beginning, and with each progress."""
        self.count = 0
        self._began = self._patience.clock()

    def failed(self, error: StorageTransient) -> None:
        """Wait before the next attempt. Raises StorageTransient if there is to be none."""
        patience = self._patience
        pause = patience.uniform() * min(patience.longest, patience.first * 2**self.count)
        self.count += 1
        spent = patience.clock() - self._began
        if self.count >= patience.attempts or spent + pause > patience.total:
            raise StorageTransient(f"{error} Tried {self.count} times in {spent:.0f} s.") from error
        logger.info("trying again in %.1f s: %s", pause, error)
        patience.sleep(pause)
