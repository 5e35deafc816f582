"""The contract on wrappers: whatever they do, what they wrap is a storage as before."""

from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest

from scipion_cloud.storage import Storage
from scipion_cloud.storage.posix import Posix
from scipion_cloud.storage.retrying import Patience, Retrying
from scipion_cloud.storage.throttled import Limits, Throttled
from scipion_cloud.testing.faulty import Call, Fault, FaultyStorage
from scipion_cloud.testing.memory import MemoryStorage
from scipion_cloud.testing.storage import StorageContract

AT_ONCE = Patience(attempts=50, sleep=lambda _: None)


def every_third(call: Call) -> Fault | None:
    """Failures of all the kinds after which trying again helps."""
    faults = [Fault.FAIL, Fault.LIE, Fault.MIDWAY]
    return faults[call.number // 3 % 3] if call.number % 3 == 0 else None


class TestRetryingWhatFails(StorageContract):
    """With a failure in every third call, nobody above notices anything."""

    @pytest.fixture
    def storage(self) -> Storage:
        return Retrying(FaultyStorage(MemoryStorage(), every_third), AT_ONCE)


class TestRetryingAFolderThatFails(StorageContract):
    @pytest.fixture
    def storage(self, tmp_path: Path) -> Iterator[Storage]:
        with Retrying(FaultyStorage(Posix(str(tmp_path / "root")), every_third), AT_ONCE) as storage:
            yield storage


class TestThrottled(StorageContract):
    @pytest.fixture
    def storage(self) -> Storage:
        ticks = count()
        limits = Limits(1e6, 1e6, 100, sleep=lambda _: None, clock=lambda: float(next(ticks)))
        return Throttled(MemoryStorage(), limits)
