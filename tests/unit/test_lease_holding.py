"""Leases: how long one lasts, when it ends, what is recorded."""

import json
import threading
import time
from datetime import datetime, timedelta
from pathlib import Path
from typing import BinaryIO

import pytest
from lease_world import START, TTL, World, flaky, foreign

from scipion_cloud.errors import (
    InvalidInput,
    LeaseLost,
    StorageDenied,
    StorageExists,
    StorageTransient,
)
from scipion_cloud.storage.wrapper import Wrapper
from scipion_cloud.sync.layout import lock_key
from scipion_cloud.sync.lease import Clock, Held, acquire, history, look
from scipion_cloud.sync.lock_info import LockInfo


@pytest.fixture
def world() -> World:
    return World()


def test_it_lasts_until_a_margin_before_its_end_from_when_the_renewal_was_sent(world: World) -> None:
    lease = world.acquire()
    storage = flaky(world)
    lease = world.acquire()
    world.now += 100
    storage.during = lambda: world.sleep(50)  # the answer takes its time
    lease.renew()
    storage.during = lambda: None
    world.now += 300 * 0.9 - 50 - 1
    lease.check()
    world.now += 1.5
    with pytest.raises(LeaseLost, match=r"could not be renewed since .* \(this machine was paused\)"):
        lease.check()
    assert not lease.lost.is_set()


def test_one_that_was_only_late_holds_it_again(world: World) -> None:
    lease = world.acquire()
    world.now += 4000
    with pytest.raises(LeaseLost):
        lease.confirm()
    lease.renew()
    lease.confirm()
    assert lease.held


def test_one_that_was_late_and_taken_over_never_holds_it_again(world: World) -> None:
    lease = world.acquire()
    world.now += 303
    new = world.take_over()
    for use in (lease.renew, lease.confirm, lease.check, lease.release):
        with pytest.raises(LeaseLost, match="bob on bob"):
            use()
    assert lease.lost.is_set()
    lease.step_aside()
    world.now += 303
    new.renew()
    assert [(lock.epoch, lock.released is None) for lock in history(world.storage)] == [(2, True), (1, False)]


def test_sleep_that_only_the_wall_clock_noticed_counts(world: World) -> None:
    """A virtual machine that was frozen."""
    slept = 0.0
    clock = Clock(
        ticks=lambda: world.now, now=lambda: START + timedelta(seconds=world.now + slept), sleep=world.sleep
    )
    lease = world.acquire(clock=clock)
    slept = -5000  # put back: says nothing
    lease.check()
    slept = 280
    with pytest.raises(LeaseLost):
        lease.check()


def test_a_lock_file_that_somebody_removed_ends_it(world: World) -> None:
    lease = world.acquire()
    world.storage.remove(lock_key(1))
    with pytest.raises(LeaseLost, match="removed or replaced"):
        lease.renew()
    assert list(world.storage.children(".scipion-cloud/locks")) == []
    lease.step_aside()
    assert look(world.storage) is None


def test_renewals_that_were_carried_out_all_the_same_count(world: World) -> None:
    storage = flaky(world)
    lease = world.acquire(trusted=True)
    world.now += 100
    storage.fail = ["write"]
    with pytest.raises(StorageTransient):
        lease.renew()
    world.now += 100
    storage.lie = ["write"]
    lease.renew()
    world.now += 200
    lease.check()


def test_the_thread_renews_tries_again_and_ends(world: World) -> None:
    storage = flaky(world)
    ttl = timedelta(seconds=2)
    lease = acquire(storage, deployment="d", host="h", user="u", parameters={}, ttl=ttl, clock=world.clock())
    renewed = threading.Event()
    storage.fail = ["write"]
    count = 0

    def during() -> None:
        nonlocal count
        count += 1
        if count == 3:
            renewed.set()

    storage.during = during
    lease.start()
    assert renewed.wait(60)
    assert storage.fail == []
    lease.release(7)
    assert threading.active_count() == len([t for t in threading.enumerate() if t.name != "lease"])
    info = look(storage)
    assert info is not None
    assert (info.generation, info.released is None) == (7, False)
    assert info.renewals >= 3


def test_the_thread_says_why_it_fails_and_notices_a_takeover(world: World) -> None:
    class Denying(Wrapper):
        deny = False
        asked = threading.Event()

        def write(
            self, key: str, content: BinaryIO | bytes, *, mtime: datetime | None = None, new: bool = False
        ) -> None:
            if self.deny:
                self.asked.set()
                raise StorageDenied("The token has expired.")
            self.inner.write(key, content)

    storage = Denying(world.storage)
    lease = acquire(
        storage,
        deployment="d",
        host="h",
        user="u",
        parameters={},
        ttl=timedelta(seconds=1),
        clock=world.clock(),
    )
    storage.deny = True
    lease.start()
    assert storage.asked.wait(60)
    while not lease.trouble:
        time.sleep(0.01)
    world.now += 10
    with pytest.raises(LeaseLost, match=r"\(The token has expired\.\)"):
        lease.check()
    storage.deny = False
    world.take_over()
    assert lease.lost.wait(60)
    lease.stop()


# giving it back


def test_a_release_whose_answer_is_lost_is_called_again(world: World) -> None:
    storage = flaky(world)
    lease = world.acquire(trusted=True)
    storage.fail = ["write"]
    with pytest.raises(StorageTransient):
        lease.release(3)
    assert not lease.held  # it may have arrived
    lease.release(3)
    info = look(world.storage)
    assert info is not None
    assert info.released is not None
    assert info.generation == 3


# the files


def test_the_last_twenty_locks_are_kept(world: World) -> None:
    for n in range(25):
        world.acquire().release(n + 1)
    assert [lock.epoch for lock in history(world.storage)] == list(range(25, 5, -1))


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b"{}", b'{"ttl_s": "x"}', b"\xff", b"[" * 100_000, foreign(1)[:-40]]
)
def test_a_lock_file_that_nobody_can_read_is_somebodys(world: World, content: bytes) -> None:
    world.storage.create(lock_key(1), content)
    with pytest.raises(Held, match=r"lock file of epoch 1 cannot be read; its lock was renewed 0 s ago"):
        world.acquire()
    world.now += 700
    with pytest.raises(Held):
        world.acquire("unknown", "unknown")
    assert world.take_over().epoch == 2


def test_what_else_lies_among_the_locks_is_nobodys(world: World) -> None:
    for name in ("1.json", "0000000009.json.tmp", "x", "0000000010.json/y"):
        world.storage.write(f".scipion-cloud/locks/{name}", b"")
    assert look(world.storage) is None
    assert world.acquire().epoch == 1


def test_a_lock_file_says_what_it_was_told(world: World) -> None:
    world.acquire()
    world.now += 303
    info = world.take_over(reason="überfällig").info
    assert LockInfo.parse(2, info.to_json(), timedelta()) == info


@pytest.mark.parametrize("ttl", [timedelta(), timedelta(seconds=-1), timedelta(days=2)])
def test_a_length_that_makes_no_sense_is_refused(world: World, ttl: timedelta) -> None:
    with pytest.raises(InvalidInput):
        world.acquire(ttl=ttl)


def test_a_lock_that_exists_under_another_nonce_is_not_ours(world: World) -> None:
    storage = flaky(world)
    beaten = False

    def during() -> None:
        nonlocal beaten
        if not beaten:
            beaten = True
            world.storage.inner.create(lock_key(1), foreign(1))  # type: ignore[attr-defined]

    storage.during = during
    with pytest.raises(Held) as e:
        world.acquire(trusted=True)
    assert e.value.holder.deployment == "d-cyd"
    with pytest.raises(StorageExists):
        storage.create(lock_key(1), b"")


def test_the_docs_show_a_lock_file_as_it_is() -> None:
    page = Path(__file__).parents[2] / "docs" / "explanation" / "locks-and-generations.md"
    shown = page.read_text().partition("```json\n")[2].partition("```")[0]
    info = LockInfo.parse(7, shown.encode(), timedelta())
    assert (info.user, info.host, info.ttl, info.generation) == ("ann", "gpu7.example.org", TTL, 41)
    assert json.loads(info.to_json()) == json.loads(shown)
