"""Trying again: when, how long, and without doing anything twice that must be done once."""

import io
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from scipion_cloud.errors import StorageDenied, StorageExists, StorageMissing, StorageTransient
from scipion_cloud.storage.retrying import Patience, Retrying
from scipion_cloud.testing.faulty import Died, Fault, FaultyStorage
from scipion_cloud.testing.memory import MemoryStorage

ALWAYS = dict.fromkeys(range(1, 1000), Fault.FAIL)


class Clock:
    """Time passes when somebody sleeps."""

    def __init__(self) -> None:
        self.now = 0.0
        self.pauses: list[float] = []

    def sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.now += seconds

    def patience(self, **fields: float) -> Patience:
        return Patience(sleep=self.sleep, uniform=lambda: 1.0, clock=lambda: self.now, **fields)  # type: ignore[arg-type]


@pytest.fixture
def memory() -> MemoryStorage:
    memory = MemoryStorage()
    memory.write("file", b"0123456789" * 100_000)
    memory.write("a", b"a")
    return memory


def retrying(memory: MemoryStorage, plan: dict[int, Fault], clock: Clock | None = None) -> Retrying:
    return Retrying(FaultyStorage(memory, plan), (clock or Clock()).patience())


def test_pauses_grow_to_their_longest(memory: MemoryStorage) -> None:
    clock = Clock()
    storage = Retrying(FaultyStorage(memory, ALWAYS), clock.patience(first=1, longest=5))
    with pytest.raises(StorageTransient, match=r"Call 8, stat of 'a'.* Tried 8 times in 27 s\."):
        storage.stat("a")
    assert clock.pauses == [1, 2, 4, 5, 5, 5, 5]


def test_pauses_are_of_random_length(memory: MemoryStorage) -> None:
    pauses: list[float] = []
    storage = Retrying(FaultyStorage(memory, ALWAYS), Patience(sleep=pauses.append))
    with pytest.raises(StorageTransient):
        storage.stat("a")
    assert len(set(pauses)) == 7
    assert all(0 <= pause <= 0.2 * 2**n for n, pause in enumerate(pauses))


def test_patience_ends(memory: MemoryStorage) -> None:
    clock = Clock()
    storage = Retrying(FaultyStorage(memory, ALWAYS), clock.patience(first=10, longest=10, total=35))
    with pytest.raises(StorageTransient, match="Tried 4 times in 30 s"):
        storage.stat("a")


def test_what_will_not_succeed_is_not_tried_again(memory: MemoryStorage) -> None:
    clock = Clock()
    faulty = FaultyStorage(memory, ALWAYS, error=StorageDenied)
    with pytest.raises(StorageDenied):
        Retrying(faulty, clock.patience()).write("a", b"b")
    with pytest.raises(StorageMissing):
        Retrying(memory, clock.patience()).stat("nothing")
    assert (len(faulty.calls), clock.pauses) == (1, [])


class Breaking(MemoryStorage):
    """Every read breaks after some chunks, and tells where the reads began."""

    chunks = 1

    def __init__(self) -> None:
        super().__init__()
        self.reads: list[tuple[int, int | None]] = []

    def read(self, key: str, start: int = 0, length: int | None = None) -> Iterator[bytes]:
        self.reads.append((start, length))
        for number, chunk in enumerate(super().read(key, start, length)):
            if number == self.chunks:
                raise StorageTransient("The connection ended.")
            yield chunk


def test_a_broken_read_goes_on_where_it_broke(tmp_path: Path) -> None:
    storage = Breaking()
    content = os.urandom(1_000_000)
    storage.write("file", content)
    patient = Retrying(storage, Clock().patience(attempts=2))  # of attempts without progress
    assert b"".join(patient.read("file")) == content
    assert storage.reads == [(n * 262144, None) for n in range(4)]
    storage.reads.clear()
    assert b"".join(patient.read("file", 1000, 600_000)) == content[1000:601_000]
    assert storage.reads == [(1000, 600_000), (263_144, 337_856), (525_288, 75_712)]
    storage.chunks = 0
    with pytest.raises(StorageTransient, match="Tried 2 times"):
        b"".join(patient.read("file"))


def test_a_small_file_is_read_anew(memory: MemoryStorage) -> None:
    storage = retrying(memory, {1: Fault.MIDWAY, 2: Fault.MIDWAY})
    assert storage.read_bytes("file") == memory.read_bytes("file")


def test_a_download_is_tried_again(memory: MemoryStorage, tmp_path: Path) -> None:
    with (tmp_path / "target").open("w+b") as target:
        storage = retrying(memory, {1: Fault.MIDWAY})
        assert storage.download("file", target.fileno()) == 1_000_000
    assert (tmp_path / "target").read_bytes() == memory.read_bytes("file")


def test_a_listing_tells_nothing_twice(memory: MemoryStorage) -> None:
    for n in range(10):
        memory.write(f"b/{n}", b"")
    storage = retrying(memory, {1: Fault.MIDWAY, 2: Fault.FAIL, 3: Fault.LIE, 5: Fault.MIDWAY})
    assert [stat.key for stat in storage.walk("b")] == [f"b/{n}" for n in range(10)]
    assert [stat.key for stat in storage.children("b")] == [f"b/{n}" for n in range(10)]


def test_a_content_is_written_from_its_beginning_again(memory: MemoryStorage) -> None:
    content = io.BytesIO(b"0123456789")
    content.seek(4)
    retrying(memory, {1: Fault.LIE, 2: Fault.MIDWAY, 3: Fault.FAIL}).write("new", content, new=True)
    assert memory.read_bytes("new") == b"0123456789"


@pytest.mark.parametrize("fault", [Fault.FAIL, Fault.LIE, Fault.MIDWAY])
def test_create_knows_its_own(memory: MemoryStorage, fault: Fault) -> None:
    retrying(memory, {1: fault, 3: Fault.FAIL}).create("new", b"mine")
    assert memory.read_bytes("new") == b"mine"


def test_create_knows_others(memory: MemoryStorage) -> None:
    for plan in ({}, {1: Fault.FAIL}, {1: Fault.LIE}):
        with pytest.raises(StorageExists):
            retrying(memory, plan).create("a", b"mine")
    with pytest.raises(StorageExists):  # the same content, but not after a doubt
        retrying(memory, {}).create("a", b"a")
    assert memory.read_bytes("a") == b"a"


@pytest.mark.parametrize("fault", [Fault.FAIL, Fault.LIE])
def test_move_knows_that_it_was_done(memory: MemoryStorage, fault: Fault) -> None:
    retrying(memory, {1: fault}).move("a", "b")
    assert memory.read_bytes("b") == b"a"
    with pytest.raises(StorageMissing):
        memory.stat("a")


@pytest.mark.parametrize("plan", [{}, {1: Fault.FAIL}])
def test_move_of_what_was_never_there(memory: MemoryStorage, plan: dict[int, Fault]) -> None:
    with pytest.raises(StorageMissing):
        retrying(memory, plan).move("nothing", "b")


def test_a_move_that_copies_is_finished(memory: MemoryStorage) -> None:
    """Cut off between its two halves, it leaves both; the second attempt leaves one."""
    storage = MemoryStorage(replace(memory.capabilities, rename=False))
    storage.write("a", b"a")
    retrying(storage, {1: Fault.MIDWAY}).move("a", "b")
    assert [stat.key for stat in storage.walk()] == ["b"]


def test_the_dead_do_not_try_again(memory: MemoryStorage) -> None:
    clock = Clock()
    storage = Retrying(FaultyStorage(memory, {1: Fault.DIE_AFTER}), clock.patience())
    for _ in range(2):
        with pytest.raises(Died):
            storage.remove("a")
    assert clock.pauses == []
    assert "a" not in {stat.key for stat in memory.walk()}
