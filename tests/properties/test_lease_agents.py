"""Agents on one lock, whatever clocks and network do, whenever they are paused or killed.

Each operation runs in a greenlet that stops before and after every call to the storage, until the machine
lets it go on: everything may happen in between.
"""

from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import BinaryIO

import pytest
from greenlet import greenlet
from hypothesis import settings, strategies
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from levels import examples
from scipion_cloud.errors import LeaseLost, Locked, StorageError, StorageExists, StorageTransient
from scipion_cloud.storage import Stat, Storage
from scipion_cloud.storage.wrapper import Wrapper
from scipion_cloud.sync.layout import GENERATIONS, INTENT, generation_key
from scipion_cloud.sync.lease import Clock, Lease, acquire, history, take_over
from scipion_cloud.sync.lock_info import GRACE
from scipion_cloud.testing.memory import MemoryStorage

TTL = timedelta(seconds=100)
START = datetime(2026, 3, 1, 12, tzinfo=UTC)


class Killed(BaseException):
    """kill -9."""


class World:
    """True time, the one storage, and what was promised to whom."""

    def __init__(self, resolution: float) -> None:
        self.now = 0.0
        self.resolution = resolution
        self.storage = MemoryStorage(clock=self.storage_time)
        self.late: list[Callable[[], None]] = []  # requests that were given up and are still under way
        self.acknowledged: dict[int, int] = {}  # generation -> epoch
        self.seen: dict[int, set[int]] = {}  # epoch -> generations that its holder found

    def storage_time(self) -> datetime:
        """An hour wrong, and in steps."""
        steps = self.now // self.resolution if self.resolution else self.now
        return START + timedelta(hours=1, seconds=steps * (self.resolution or 1))


class Agent:
    """One machine: its process does one operation at a time."""

    def __init__(self, world: World, name: str) -> None:
        self.world = world
        self.name = name
        self.wall = 0.0  # how wrong its clock is, seconds
        self.lease: Lease | None = None
        self.opened = False
        self.wakes: float | None = None
        self._life: greenlet | None = None
        self.clock = Clock(
            ticks=lambda: self.world.now + 1e6,
            now=lambda: START + timedelta(seconds=self.world.now + self.wall),
            sleep=self._sleep,
        )
        self.storage = Stepwise(world, self)

    def begin(self, work: Callable[[], None]) -> None:
        """Start an operation, up to its first call."""

        def run(_: str) -> None:
            try:
                with suppress(Killed, StorageError, Locked, LeaseLost):
                    work()
            finally:
                self._life = None

        self._life = greenlet(run)
        self.step("do")

    @property
    def busy(self) -> bool:
        """Whether an operation has not ended yet."""
        return self._life is not None

    def step(self, order: str) -> None:
        """Let it go on to where it stops next; the order is for the call before which it stands."""
        assert self._life is not None
        self._life.switch(order)

    def stop(self) -> str:
        """Stand still until the next step; what the order is."""
        assert self._life is not None
        assert self._life.parent is not None
        order: str = self._life.parent.switch()
        if order == "kill":
            raise Killed
        return order

    def _sleep(self, seconds: float) -> None:
        self.wakes = self.world.now + seconds
        while self.world.now < self.wakes:
            self.stop()
        self.wakes = None

    def crash(self) -> None:
        """End the process at once."""
        while self.busy:  # what it does on its way out does not reach the storage either
            self.step("kill")
        self.lease, self.opened, self.wakes = None, False, None

    # what an agent does

    def lock(self, how: str) -> None:
        self.lease, self.opened = None, False
        name, clock = self.name, self.clock
        if how == "acquire":
            self.lease = acquire(
                self.storage,
                deployment=name,
                host=name,
                user=name,
                parameters={},
                ttl=TTL,
                clock=clock,
                trusted=True,
            )
        else:
            self.lease = take_over(
                self.storage,
                deployment=name,
                host=name,
                user=name,
                parameters={},
                ttl=TTL,
                clock=clock,
                trusted=True,
                force=how == "force",
                reason="x",
            )
        self.open(self.lease)

    def open(self, lease: Lease) -> None:
        """As Repository.recover: end the unfinished saves of others, then see what there is."""
        for intent in list(self.storage.children(INTENT)):
            with suppress(StorageExists):
                self.storage.create(f"{GENERATIONS}/{intent.key[-10:]}", b"void")
        found = [int(stat.key[-10:]) for stat in self.storage.children(GENERATIONS)]
        seen = {n for n in found if self.storage.read_bytes(generation_key(n)) != b"void"}
        lower = {n for n, epoch in self.world.acknowledged.items() if epoch < lease.epoch}
        assert lower <= seen, "an acknowledged generation went unseen"
        self.world.seen[lease.epoch] = seen
        self.opened = True

    def commit(self) -> None:
        """As Saving.commit: a note, a look at the lock, the generation."""
        lease = self.lease
        assert lease is not None
        lease.check()
        taken = [*self.storage.children(INTENT), *self.storage.children(GENERATIONS)]
        number = max((int(stat.key[-10:]) for stat in taken), default=0) + 1
        self.storage.create(f"{INTENT}/{number:010d}", b"")
        lease.confirm()
        self.storage.create(generation_key(number), str(lease.epoch).encode())
        higher = [seen for epoch, seen in self.world.seen.items() if epoch > lease.epoch]
        assert all(number in seen for seen in higher), "a fenced writer was told that it had saved"
        self.world.acknowledged[number] = lease.epoch


class Stepwise(Wrapper):
    """Stops before and after each call. A call may fail, or be carried out and fail, or arrive later."""

    def __init__(self, world: World, agent: Agent) -> None:
        super().__init__(world.storage)
        self._world = world
        self._agent = agent

    def _call(self, act: Callable[[], object], *, changes: bool = False) -> object:
        order = self._agent.stop()
        result = None
        if order == "late" and changes:
            self._world.late.append(act)  # type: ignore[arg-type]
        elif order in ("do", "lie"):
            result = act()
            self._agent.stop()
        if order != "do":
            raise StorageTransient("the network")
        return result

    def children(self, folder: str = "") -> Iterator[Stat]:
        return iter(self._call(lambda: list(self.inner.children(folder))))  # type: ignore[call-overload,no-any-return]

    def stat(self, key: str) -> Stat:
        return self._call(lambda: self.inner.stat(key))  # type: ignore[return-value]

    def read_bytes(self, key: str) -> bytes:
        return self._call(lambda: self.inner.read_bytes(key))  # type: ignore[return-value]

    def write(
        self, key: str, content: BinaryIO | bytes, *, mtime: datetime | None = None, new: bool = False
    ) -> None:
        self._call(lambda: self.inner.write(key, content), changes=True)

    def create(self, key: str, content: bytes) -> None:
        self._call(lambda: self.inner.create(key, content), changes=True)

    def remove(self, key: str) -> None:
        self._call(lambda: self.inner.remove(key), changes=True)


NAMES = ("ann", "bob", "cyd")
names = strategies.sampled_from([*NAMES[:2], *NAMES])
WORKS = [*["renew", "commit"] * 3, "release", "step aside"]
ACCIDENTS = ["crash", "clock is put right", "late", "late", "late"]
often = strategies.booleans()
steps = strategies.integers(0, 7)
lengths = strategies.sampled_from([1.0, 20.0, 89.0, 91.0, 101.0, 103.0, 250.0])
orders = strategies.sampled_from(["do"] * 6 + ["fail", "lie", "late"])


class Agents(RuleBasedStateMachine):
    """Three agents and one project."""

    @initialize(
        resolution=strategies.sampled_from([0.0, 1.0]),
        walls=strategies.lists(strategies.floats(-1e6, 1e6), min_size=3, max_size=3),
    )
    def start(self, resolution: float, walls: list[float]) -> None:
        self.world = World(resolution)
        self.agents = {name: Agent(self.world, name) for name in NAMES}
        for agent, wall in zip(self.agents.values(), walls, strict=True):
            agent.wall = wall

    @rule(seconds=lengths)
    def time_passes(self, seconds: float) -> None:
        self.world.now += seconds

    @rule(name=names, how=strategies.sampled_from(["acquire", "take over", "force"]), whole=often)
    def lock(self, name: str, how: str, whole: bool) -> None:
        self._lock(name, how, whole)

    def _lock(self, name: str, how: str, whole: bool) -> None:
        agent = self.agents[name]
        if not agent.busy and (agent.lease is None or not agent.lease.held):
            agent.begin(lambda: agent.lock(how))
            self._finish(agent, whole)

    @rule(name=names, what=strategies.sampled_from(WORKS), whole=often)
    def work(self, name: str, what: str, whole: bool) -> None:
        self._work(name, what, whole)

    def _work(self, name: str, what: str, whole: bool) -> None:
        agent = self.agents[name]
        lease = agent.lease
        if agent.busy or lease is None:
            return
        works = {
            "renew": lease.renew,
            "commit": agent.commit,
            "release": lease.release,
            "step aside": lease.step_aside,
        }
        if what != "commit" or agent.opened:
            agent.begin(works[what])
            self._finish(agent, whole)

    @rule(name=names, other=names, what=strategies.sampled_from(WORKS), steps=steps, seconds=lengths)
    def somebody_takes_over_while_it_stands_still(
        self, name: str, other: str, what: str, steps: int, seconds: float
    ) -> None:
        self._work(name, what, whole=False)
        for _ in range(steps):
            if self.agents[name].busy:
                self.agents[name].step("do")
        self.world.now += seconds
        self._lock(other, "take over", whole=True)
        self.never_two()
        self._finish(self.agents[name], whole=True)

    @rule(name=names, what=strategies.lists(orders, min_size=1, max_size=4))
    def go_on(self, name: str, what: list[str]) -> None:
        for order in what:
            if self.agents[name].busy:
                self.agents[name].step(order)

    @rule(name=names)
    def go_on_to_the_end(self, name: str) -> None:
        self._finish(self.agents[name], whole=True)

    def _finish(self, agent: Agent, whole: bool) -> None:
        while whole and agent.busy and (agent.wakes is None or agent.wakes <= self.world.now):
            agent.step("do")

    @rule(name=names, what=strategies.sampled_from(ACCIDENTS), data=strategies.data())
    def accident(self, name: str, what: str, data: strategies.DataObject) -> None:
        agent, late = self.agents[name], self.world.late
        if what == "crash":
            agent.crash()
        elif what == "clock is put right":
            agent.wall += data.draw(strategies.floats(-1000, 1000))
        elif late:
            with suppress(StorageError):  # it arrives after all
                late.pop(data.draw(strategies.integers(0, len(late) - 1)))()

    @invariant()
    def never_two(self) -> None:
        holders = [a.name for a in self.agents.values() if a.lease is not None and a.lease.held]
        assert len(holders) < 2, f"{holders} may write"

    def teardown(self) -> None:
        for agent in self.agents.values():
            agent.crash()
        self.somebody_can_go_on(self.world.storage)

    def somebody_can_go_on(self, storage: Storage) -> None:
        """When all have crashed, and the time of their locks is over."""
        self.world.now += (TTL + GRACE).total_seconds() + 2

        def never(_: float) -> None:
            pytest.fail("had to wait for the dead")

        clock = Clock(ticks=lambda: self.world.now, now=lambda: START, sleep=never)
        lease = take_over(
            storage, deployment="d", host="d", user="", parameters={}, ttl=TTL, clock=clock, trusted=True
        )
        lease.confirm()
        assert history(storage)[0].deployment == "d"


Agents.TestCase.settings = settings(max_examples=examples(50), stateful_step_count=60)
TestAgents = Agents.TestCase
