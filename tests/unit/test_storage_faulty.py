"""The storage that fails does so exactly as told."""

from collections.abc import Callable
from dataclasses import replace
from threading import Thread

import pytest

from scipion_cloud.errors import StorageFull, StorageTransient
from scipion_cloud.storage import Storage
from scipion_cloud.testing.faulty import Call, Died, Fault, FaultyStorage
from scipion_cloud.testing.memory import ABLE, MemoryStorage


@pytest.fixture
def memory() -> MemoryStorage:
    memory = MemoryStorage()
    memory.write("a", b"0123456789")
    return memory


def test_calls_are_counted_over_all_methods(memory: MemoryStorage) -> None:
    storage = FaultyStorage(memory, {5: Fault.FAIL})
    storage.stat("a")
    listing = storage.walk()  # begins when it is asked
    storage.read_bytes("a")
    list(listing)
    storage.flush()
    with pytest.raises(StorageTransient, match="Call 5, remove of 'a', FAIL"):
        storage.remove("a")
    storage.remove("a")
    assert [call.method for call in storage.calls] == ["stat", "read", "walk", "flush", "remove", "remove"]


@pytest.mark.parametrize(("fault", "done"), [(Fault.FAIL, False), (Fault.MIDWAY, False), (Fault.LIE, True)])
def test_failures(memory: MemoryStorage, fault: Fault, done: bool) -> None:
    calls: list[Callable[[Storage], None]] = [
        lambda s: s.write("b", b"b"),
        lambda s: s.create("b", b"b"),
        lambda s: s.move("a", "b"),
        lambda s: s.remove("a"),
        lambda s: s.make_folder("f"),
        lambda s: s.symlink("b", b"b"),
    ]
    before = memory.snapshot()
    for call in calls:
        memory.restore(before)
        with pytest.raises(StorageTransient):
            call(FaultyStorage(memory, {1: fault}))
        assert (memory.snapshot() != before) is done


def test_other_errors_and_other_choices(memory: MemoryStorage) -> None:
    def full(call: Call) -> Fault | None:
        return Fault.FAIL if call.method == "write" and call.key.startswith("b/") else None

    storage = FaultyStorage(memory, full, error=StorageFull)
    storage.write("b", b"x")
    with pytest.raises(StorageFull):
        storage.write("b/c", b"x")


def test_bytes(memory: MemoryStorage) -> None:
    assert FaultyStorage(memory, {1: Fault.SHORT}).read_bytes("a") == b"01234"
    assert FaultyStorage(memory, {1: Fault.CORRUPT}).read_bytes("a") == b"0123446789"
    reading = FaultyStorage(memory, {1: Fault.MIDWAY}).read("a")
    assert next(reading) == b"01234"
    with pytest.raises(StorageTransient):
        next(reading)


def test_what_is_done_by_half(memory: MemoryStorage) -> None:
    with pytest.raises(StorageTransient):
        FaultyStorage(memory, {1: Fault.MIDWAY}).write("a", b"abcd")
    assert memory.read_bytes("a") == b"0123456789"
    with pytest.raises(StorageTransient):
        FaultyStorage(memory, {1: Fault.MIDWAY}).write("b", b"abcd", new=True)
    assert memory.read_bytes("b") == b"ab"
    copying = MemoryStorage(replace(ABLE, rename=False), nodes=memory.snapshot())
    with pytest.raises(Died):
        FaultyStorage(copying, {1: Fault.DIE_MIDWAY}).move("a", "c")
    assert copying.read_bytes("a") == copying.read_bytes("c")


@pytest.mark.parametrize(
    ("fault", "done"), [(Fault.DIE, False), (Fault.DIE_MIDWAY, False), (Fault.DIE_AFTER, True)]
)
def test_death(memory: MemoryStorage, fault: Fault, done: bool) -> None:
    memory.write("long", b"x" * 1_000_000)
    storage = FaultyStorage(memory, {2: fault})
    reading = storage.read("long")
    next(reading)
    with pytest.raises(Died):
        storage.write("b", b"b")
    with pytest.raises(Died):
        next(reading)
    for call in (storage.flush, lambda: storage.stat("a"), lambda: list(storage.children())):
        with pytest.raises(Died):
            call()
    assert ("b" in memory.snapshot()) is done
    storage.revive()
    assert storage.stat("a").size == 10


def test_a_call_that_hangs_until_it_is_released(memory: MemoryStorage) -> None:
    storage = FaultyStorage(memory, {1: Fault.LATE})
    thread = Thread(target=storage.remove, args=("a",))
    thread.start()
    thread.join(0.05)
    assert thread.is_alive()
    assert "a" in memory.snapshot()
    storage.release()
    thread.join(60)
    assert "a" not in memory.snapshot()


def test_a_call_that_hangs_on_a_clock_of_the_tests(memory: MemoryStorage) -> None:
    hung: list[Call] = []
    storage = FaultyStorage(memory, {1: Fault.HANG, 2: Fault.LATE}, hang=hung.append)
    with pytest.raises(StorageTransient):
        storage.remove("a")
    assert "a" in memory.snapshot()
    storage.remove("a")
    assert "a" not in memory.snapshot()
    assert [call.number for call in hung] == [1, 2]
