"""Leases: who gets one, and what others are told."""

import json
from dataclasses import replace
from datetime import datetime, timedelta

import pytest
from lease_world import START, World, flaky, foreign

from scipion_cloud.errors import (
    InvalidInput,
    LeaseLost,
    Locked,
    StorageError,
)
from scipion_cloud.storage.wrapper import Wrapper
from scipion_cloud.sync.layout import CLOCK, lock_key
from scipion_cloud.sync.lease import Held, history, look
from scipion_cloud.sync.lock_info import LockInfo
from scipion_cloud.testing.memory import ABLE, MemoryStorage


@pytest.fixture
def world() -> World:
    return World()


# getting one


def test_the_first_one_gets_it_and_everybody_can_read_who_it_is(world: World) -> None:
    lease = world.acquire()
    lease.check()
    lease.confirm()
    assert (lease.epoch, lease.deployment, lease.host, lease.user) == (1, "d-ann", "ann.example.org", "ann")
    said = json.loads(world.storage.read_bytes(lock_key(1)))
    assert said["parameters"] == {"work": "/scratch/ann", "site": "Brno"}
    assert said["ttl_s"] == 300
    assert said["released"] is said["took_over"] is said["generation"] is None
    assert datetime.fromisoformat(said["acquired"]).utcoffset() == timedelta()
    assert look(world.storage) == lease.info
    assert list(world.storage.children(CLOCK)) == []


def test_a_second_one_is_told_who_where_since_when_and_what_to_do(world: World) -> None:
    world.acquire()
    world.now += 290
    with pytest.raises(Held) as e:
        world.acquire("bob")
    assert isinstance(e.value, Locked)
    assert e.value.holder.deployment == "d-ann"
    assert str(e.value) == (
        "The project is open already. It was opened by ann on ann.example.org at Brno in /scratch/ann "
        "(deployment d-ann) on 01 Mar 2026 12:50 UTC; its lock was renewed 4 min ago and expires in 12 s "
        "unless it is renewed again. Close it there first. If that deployment does not work any more, its "
        "lock expires and can then be taken over."
    )


def test_once_released_anybody_gets_it_at_once(world: World) -> None:
    lease = world.acquire()
    lease.release(41)
    with pytest.raises(LeaseLost, match="given back"):
        lease.check()
    info = look(world.storage)
    assert info is not None
    assert info.generation == 41
    assert info.released is not None
    assert not info.live
    after = world.acquire("bob")
    assert after.epoch == 2
    assert after.info.took_over is None
    assert after.generation == 41  # is still the last one


def test_the_same_deployment_goes_on_at_once_after_a_crash(world: World) -> None:
    dead = world.acquire()
    again = world.acquire()
    again.check()
    assert again.epoch == 2
    assert again.info.took_over is None
    with pytest.raises(LeaseLost, match="ann on ann"):
        dead.confirm()
    with pytest.raises(Held):  # the same name elsewhere is another process
        world.acquire("ann", "elsewhere")


def test_an_expired_lock_is_not_passed_over_in_silence(world: World) -> None:
    world.acquire()
    world.now += 303
    with pytest.raises(Held, match=r"not closed properly.*has expired.*take the lock over") as e:
        world.acquire("bob")
    assert e.value.holder.expired


@pytest.mark.parametrize("age", [299, 300, 301.9])
def test_a_takeover_is_refused_before_the_storage_says_that_it_has_expired(world: World, age: float) -> None:
    lease = world.acquire()
    world.now += 100
    lease.renew()
    world.now += age
    with pytest.raises(Held, match="open already"):
        world.take_over()
    world.now += 4
    taken = world.take_over(reason="the machine burnt down")
    assert taken.epoch == 2
    took = taken.info.took_over
    assert took is not None
    assert (took.deployment, took.user, took.host, took.epoch) == ("d-ann", "ann", "ann.example.org", 1)
    assert (took.why, took.forced) == ("the machine burnt down", False)
    assert [lock.epoch for lock in history(world.storage)] == [2, 1]
    assert history(world.storage)[0].took_over == took


def test_breaking_a_live_lock_needs_a_reason_and_waits_for_the_holder(world: World) -> None:
    old = world.acquire()
    with pytest.raises(InvalidInput, match="Say why"):
        world.take_over(force=True, reason=" ")
    waited: list[LockInfo] = []

    def sleep(seconds: float) -> None:
        world.now += seconds
        if world.now >= 120 and not old.lost.is_set():
            with pytest.raises(
                LeaseLost, match=r"bob on bob.example.org.*still in its working copy /scratch/ann"
            ):
                old.renew()
            old.step_aside()

    new = world.take_over(
        force=True, reason="ann is on leave", clock=world.clock(sleep=sleep), on_wait=waited.append
    )
    assert waited
    assert {lock.deployment for lock in waited} == {"d-ann"}
    assert 120 <= world.now < 200  # not the whole length
    new.check()
    assert not old.held
    assert new.info.took_over is not None
    assert new.info.took_over.forced


def test_of_a_dead_one_the_end_is_waited_for(world: World) -> None:
    old = world.acquire()
    held: list[float] = []

    def sleep(seconds: float) -> None:
        world.now += seconds
        held.append(world.now if old.held else 0)

    new = world.take_over(force=True, reason="x", clock=world.clock(sleep=sleep))
    assert max(held) < 300 < world.now < 400
    new.check()


def test_who_is_forced_out_by_force_is_not_forced_back(world: World) -> None:
    """Force is meant for the one holder that a person has seen."""
    world.acquire()
    storage = flaky(world)

    def other() -> None:
        storage.during = lambda: None
        world.storage.inner.create(lock_key(2), foreign(2))  # type: ignore[attr-defined]

    storage.during = other  # while the storage's time is asked for
    with pytest.raises(Held) as e:
        world.take_over(force=True, reason="x")
    assert e.value.holder.deployment == "d-cyd"


def test_a_renewal_that_arrives_just_before_a_takeover_is_waited_for(world: World) -> None:
    """The old holder renews, and sees nobody, between the look at its lock and the new lock."""
    storage = flaky(world)
    old = world.acquire(trusted=True)
    world.now += 303

    def renew(name: str) -> None:
        if name == "create":
            storage.before = lambda _: None
            old.renew()

    storage.before = renew
    both: list[bool] = []

    def sleep(seconds: float) -> None:
        both.append(old.held)
        world.now += seconds

    new = world.take_over(clock=world.clock(sleep=sleep), trusted=True)
    assert new.held
    assert not old.held
    assert both[0]
    assert world.now > 603


def test_storages_that_cannot_keep_two_apart_are_refused(world: World) -> None:
    world.storage = MemoryStorage(replace(ABLE, exclusive_create=False))
    with pytest.raises(StorageError, match="through the portal"):
        world.acquire()

    class Lying(Wrapper):
        def create(self, key: str, content: bytes) -> None:
            self.inner.write(key, content)

    world.storage = Lying(MemoryStorage(clock=lambda: START + timedelta(seconds=world.now)))  # type: ignore[assignment]
    with pytest.raises(StorageError, match="cannot keep two deployments apart"):
        world.acquire()
    world.acquire(trusted=True).confirm()


def test_where_two_created_the_same_lock_the_second_stays(world: World) -> None:
    first = world.acquire(trusted=True)
    world.storage.write(lock_key(1), foreign(1))
    with pytest.raises(LeaseLost, match="replaced the lock"):
        first.confirm()
    assert first.lost.is_set()


@pytest.mark.parametrize("faults", [["create"], ["create"] * 3])
def test_an_answer_that_is_lost_while_locking(world: World, faults: list[str]) -> None:
    storage = flaky(world)
    storage.fail = list(faults)
    storage.lie = ["create"]
    lease = world.acquire(trusted=True)
    lease.confirm()
    assert [lock.nonce for lock in history(world.storage)] == [lease.info.nonce]


# keeping it
