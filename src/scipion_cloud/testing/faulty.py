"""A storage that fails, lies, hangs or dies where it is told to."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from itertools import count
from threading import Event
from typing import BinaryIO, TypeVar

from scipion_cloud.errors import ScipionCloudError, StorageTransient
from scipion_cloud.storage.base import Stat, Storage, chunks_of, size_of
from scipion_cloud.storage.wrapper import Wrapper

T = TypeVar("T")


class Fault(StrEnum):
    """What goes wrong with a call. Those that are about bytes do nothing to calls that have none."""

    FAIL = "fails; nothing was done"
    LIE = "says that it failed, and was done"
    MIDWAY = "fails when half of it was done"
    HANG = "hangs, then fails; nothing was done"
    LATE = "hangs, then is done"
    DIE = "the process dies; nothing was done"
    DIE_MIDWAY = "the process dies when half of it was done"
    DIE_AFTER = "the process dies when it was done"
    SHORT = "a read ends early, as if the file did"
    CORRUPT = "a bit of what is read is another"


@dataclass(frozen=True)
class Call:
    """A call that the storage got; `number` counts them all, from 1."""

    number: int
    method: str
    key: str


class Died(BaseException):
    """The process is dead: what it would do after this never happens."""


Plan = Mapping[int, Fault] | Callable[[Call], Fault | None]


class FaultyStorage(Wrapper):
    """Passes calls on to `inner`, and does to them what the plan says, by their numbers or as it decides.

    Reads and listings count when they begin. A call that hangs calls `hang`, which waits for `release` unless
    another is given: one that puts a clock forward, say. Dead, every call raises Died, until `revive`.
    """

    def __init__(
        self,
        inner: Storage,
        plan: Plan,
        *,
        error: Callable[[str], ScipionCloudError] = StorageTransient,
        hang: Callable[[Call], object] | None = None,
    ) -> None:
        super().__init__(inner)
        self.plan = plan
        self.calls: list[Call] = []
        self.dead = False
        self.released = Event()
        self._error = error
        self._hang = hang or (lambda _: self.released.wait(600))
        self._numbers = count(1)

    def __repr__(self) -> str:
        return f"FaultyStorage({self.inner!r})"

    def release(self) -> None:
        """Let all go on that hang, now and later."""
        self.released.set()

    def revive(self) -> None:
        """A new process."""
        self.dead = False

    def children(self, folder: str = "") -> Iterator[Stat]:
        return self._many("children", folder, lambda: self.inner.children(folder), _half)

    def walk(self, folder: str = "") -> Iterator[Stat]:
        return self._many("walk", folder, lambda: self.inner.walk(folder), _half)

    def stat(self, key: str) -> Stat:
        return self._one("stat", key, lambda: self.inner.stat(key))

    def read(self, key: str, start: int = 0, length: int | None = None) -> Iterator[bytes]:
        return self._many("read", key, lambda: self.inner.read(key, start, length), _damaged)

    def write(
        self, key: str, content: BinaryIO | bytes, *, mtime: datetime | None = None, new: bool = False
    ) -> None:
        def half() -> None:
            if new:  # in place: a part is there
                size = size_of(content)
                data = b"".join(chunks_of(content, size))[: size // 2]
                self.inner.write(key, data, mtime=mtime, new=True)

        self._one("write", key, lambda: self.inner.write(key, content, mtime=mtime, new=new), half)

    def create(self, key: str, content: bytes) -> None:
        self._one("create", key, lambda: self.inner.create(key, content))

    def move(self, source: str, target: str) -> None:
        def half() -> None:
            if not self.capabilities.rename:  # copied, and not yet removed
                self.inner.write(target, self.inner.read_bytes(source))

        self._one("move", source, lambda: self.inner.move(source, target), half)

    def remove(self, key: str) -> None:
        self._one("remove", key, lambda: self.inner.remove(key))

    def make_folder(self, key: str) -> None:
        self._one("make_folder", key, lambda: self.inner.make_folder(key))

    def remove_folder(self, key: str) -> None:
        self._one("remove_folder", key, lambda: self.inner.remove_folder(key))

    def symlink(self, key: str, target: bytes) -> None:
        self._one("symlink", key, lambda: self.inner.symlink(key, target))

    def readlink(self, key: str) -> bytes:
        return self._one("readlink", key, lambda: self.inner.readlink(key))

    def download(self, key: str, fd: int, start: int = 0, length: int | None = None) -> int:
        return Storage.download(self, key, fd, start, length)  # a `read`

    def flush(self) -> None:
        self._one("flush", "", self.inner.flush)

    def _begin(self, method: str, key: str) -> tuple[Call, Fault | None]:
        """Count a call, and let happen what happens before it is carried out."""
        if self.dead:
            raise Died
        call = Call(next(self._numbers), method, key)
        self.calls.append(call)
        fault = self.plan(call) if callable(self.plan) else self.plan.get(call.number)
        if fault in (Fault.HANG, Fault.LATE):
            self._hang(call)
        if fault in (Fault.FAIL, Fault.HANG):
            raise self._failure(call, fault)
        if fault is Fault.DIE:
            self._die()
        return call, fault

    def _one(self, method: str, key: str, do: Callable[[], T], half: Callable[[], None] = lambda: None) -> T:
        """A call that is carried out as a whole; `half` does what is done of it when it is cut off."""
        call, fault = self._begin(method, key)
        if fault in (Fault.MIDWAY, Fault.DIE_MIDWAY):
            half()
        else:
            done = do()
        self._end(call, fault)
        return done

    def _many(
        self,
        method: str,
        key: str,
        do: Callable[[], Iterator[T]],
        damaged: Callable[[list[T], Fault], list[T]],
    ) -> Iterator[T]:
        """A call that gives its answer piece by piece."""
        call, fault = self._begin(method, key)
        if fault is None or fault is Fault.LATE:
            for piece in do():
                yield piece
                if self.dead:
                    raise Died
        else:
            yield from damaged(list(do()), fault)
            self._end(call, fault)

    def _end(self, call: Call, fault: Fault | None) -> None:
        """What happens once a call is carried out, or half of it."""
        if fault in (Fault.LIE, Fault.MIDWAY):
            raise self._failure(call, fault)
        if fault in (Fault.DIE_AFTER, Fault.DIE_MIDWAY):
            self._die()

    def _failure(self, call: Call, fault: Fault) -> ScipionCloudError:
        return self._error(f"Call {call.number}, {call.method} of {call.key!r}, {fault.name}: {fault}.")

    def _die(self) -> None:
        self.dead = True
        raise Died


def _half(pieces: list[T], fault: Fault) -> list[T]:
    """What comes through of a listing."""
    return pieces[: len(pieces) // 2] if fault in (Fault.MIDWAY, Fault.DIE_MIDWAY) else pieces


def _damaged(pieces: list[bytes], fault: Fault) -> list[bytes]:
    """What comes through of a file."""
    data = b"".join(pieces)
    middle = len(data) // 2
    if fault in (Fault.MIDWAY, Fault.DIE_MIDWAY, Fault.SHORT):
        data = data[:middle]
    elif fault is Fault.CORRUPT and data:
        data = data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]
    return [data] if data else []
