"""Rates, on a clock of our own."""

import io
import os
from pathlib import Path
from typing import BinaryIO

import pytest

from scipion_cloud.storage.throttled import Limits, Throttled
from scipion_cloud.testing.memory import MemoryStorage


class Clock:
    """Time passes when somebody sleeps."""

    def __init__(self) -> None:
        self.now = 1024.0

    def sleep(self, seconds: float) -> None:
        self.now += seconds

    def limits(self, **rates: float) -> Limits:
        return Limits(**rates, sleep=self.sleep, clock=lambda: self.now)

    @property
    def spent(self) -> float:
        return self.now - 1024


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_reading(clock: Clock, tmp_path: Path) -> None:
    memory = MemoryStorage()
    memory.write("file", bytes(1_000_000))
    storage = Throttled(memory, clock.limits(read=100_000))
    storage.read_bytes("file")
    assert clock.spent == pytest.approx(9)  # the first second's bytes are there already
    with (tmp_path / "target").open("w+b") as target:
        storage.download("file", target.fileno())
    assert clock.spent == pytest.approx(19)
    storage.write("file", bytes(1_000_000))
    assert clock.spent == pytest.approx(19)


@pytest.mark.parametrize("kind", ["bytes", "memory", "file"])
def test_writing(clock: Clock, tmp_path: Path, kind: str) -> None:
    data = os.urandom(1_000_000)
    (tmp_path / "file").write_bytes(data)
    storage = Throttled(MemoryStorage(), clock.limits(write=100_000))
    with (tmp_path / "file").open("rb") as file:
        contents: dict[str, BinaryIO | bytes] = {"bytes": data, "memory": io.BytesIO(data), "file": file}
        storage.write("file", contents[kind])
    assert clock.spent == pytest.approx(9)
    assert storage.read_bytes("file") == data
    assert clock.spent == pytest.approx(9)
    storage.create("other", data[:100_000])
    assert clock.spent == pytest.approx(10)


def test_requests(clock: Clock) -> None:
    storage = Throttled(MemoryStorage(), clock.limits(requests=4))
    for _ in range(4):
        storage.write("a", b"x")
    assert clock.spent == 0
    storage.stat("a")
    storage.read_bytes("a")
    list(storage.walk())
    list(storage.children())
    storage.move("a", "b")
    storage.symlink("c", b"b")
    storage.readlink("c")
    storage.remove("c")
    storage.make_folder("f")
    storage.remove_folder("f")
    storage.flush()
    storage.create("d", b"")
    assert clock.spent == pytest.approx(12 / 4)


def test_what_was_not_used_is_kept_for_a_second(clock: Clock) -> None:
    storage = Throttled(MemoryStorage(), clock.limits(requests=10))
    clock.now += 100
    began = clock.now
    for _ in range(20):
        storage.flush()
    assert clock.now - began == pytest.approx(1)
