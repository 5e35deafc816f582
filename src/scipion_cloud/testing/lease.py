"""The contract of leases on a storage as tests: with real requests, real time and many at once.

class TestFolder(LeaseContract):
    @pytest.fixture
    def storage(self, tmp_path): ...
"""

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest

from scipion_cloud.errors import LeaseLost, Locked
from scipion_cloud.storage import Storage
from scipion_cloud.sync.lease import Held, Lease, acquire, history, look, take_over

CROWD = 16
SHORT = timedelta(seconds=2)
PATIENCE = 120  # seconds; what has to happen comes much sooner


def _acquire(storage: Storage, who: str, ttl: timedelta = timedelta(minutes=5)) -> Lease:
    return acquire(storage, deployment=who, host=who, user=who, parameters={"work": f"/w/{who}"}, ttl=ttl)


def _take_over(storage: Storage, who: str, *, force: bool = False, ttl: timedelta = SHORT) -> Lease:
    return take_over(
        storage, deployment=who, host=who, user=who, parameters={}, ttl=ttl, force=force, reason="a test"
    )


def _when_expired(storage: Storage, who: str) -> Lease:
    """Take a lock over as soon as that is allowed."""
    end = time.monotonic() + PATIENCE
    while True:
        try:
            return _take_over(storage, who, ttl=timedelta(minutes=5))
        except Held:
            assert time.monotonic() < end, "it never expires"
            time.sleep(0.1)


class LeaseContract:
    """What a lease does on every storage that creates exclusively."""

    @pytest.fixture
    def storage(self) -> Storage:
        """The storage under test, empty; nothing else uses it."""
        raise NotImplementedError

    def test_of_many_at_once_one_gets_it(self, storage: Storage) -> None:
        start = threading.Barrier(CROWD)

        def run(n: int) -> Lease | None:
            start.wait(PATIENCE)
            try:
                return _acquire(storage, f"d{n}")
            except Locked:
                return None

        with ThreadPoolExecutor(CROWD) as pool:
            (winner,) = [lease for lease in pool.map(run, range(CROWD)) if lease is not None]
        winner.confirm()
        info = look(storage)
        assert info is not None
        assert info.deployment == winner.deployment
        assert [lock.epoch for lock in history(storage)] == [1]

    def test_it_goes_from_one_to_the_next_when_it_is_released(self, storage: Storage) -> None:
        for n in range(3):
            lease = _acquire(storage, f"d{n}")
            lease.renew()
            with pytest.raises(Held, match=rf"d{n} on d{n} in /w/d{n}"):
                _acquire(storage, "other")
            lease.release(n + 1)
        locks = history(storage)
        assert [(lock.deployment, lock.generation) for lock in locks] == [("d2", 3), ("d1", 2), ("d0", 1)]
        assert all(lock.released for lock in locks)

    def test_a_holder_that_is_silent_stops_before_another_may_take_over(self, storage: Storage) -> None:
        old = _acquire(storage, "old", SHORT)
        with pytest.raises(Held):
            _acquire(storage, "new")
        while old.held:
            time.sleep(0.01)
        new = _when_expired(storage, "new")
        new.confirm()
        for use in (old.renew, old.check, old.release):
            with pytest.raises(LeaseLost, match="new on new"):
                use()
        assert new.info.took_over is not None
        assert new.info.took_over.deployment == "old"

    def test_a_holder_that_renews_is_not_taken_over(self, storage: Storage) -> None:
        lease = _acquire(storage, "busy", timedelta(seconds=4))
        lease.start()
        end = time.monotonic() + 7
        try:
            while time.monotonic() < end:
                try:
                    _take_over(storage, "other")
                except Held:
                    time.sleep(0.5)
                else:  # the machine stood still for seconds: then it was late by right
                    assert not lease.held
                    return
        finally:
            lease.stop()
        lease.renew()
        assert lease.info.renewals > 1
        lease.release()

    def test_force_waits_until_the_holder_has_stopped(self, storage: Storage) -> None:
        old = _acquire(storage, "old", SHORT)
        old.start()
        new = _take_over(storage, "new", force=True)
        assert not old.held
        assert old.lost.wait(PATIENCE)
        old.stop()
        assert new.info.took_over is not None
        assert new.info.took_over.forced
        assert new.info.took_over.why == "a test"
