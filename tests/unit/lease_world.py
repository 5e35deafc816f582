"""One storage, machines with wrong clocks and a network that lies, for tests of leases."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import BinaryIO

from scipion_cloud.errors import (
    StorageTransient,
)
from scipion_cloud.storage.wrapper import Wrapper
from scipion_cloud.sync.layout import CLOCK
from scipion_cloud.sync.lease import Clock, Lease, acquire, take_over
from scipion_cloud.sync.lock_info import LockInfo
from scipion_cloud.testing.memory import MemoryStorage

TTL = timedelta(minutes=5)
START = datetime(2026, 3, 1, 12, tzinfo=UTC)


class World:
    """One storage whose clock is an hour ahead, and machines whose clocks are wrong."""

    def __init__(self) -> None:
        self.now = 0.0
        self.storage = MemoryStorage(clock=lambda: START + timedelta(seconds=3600 + self.now))

    def clock(self, wrong: float = 0, sleep: Callable[[float], None] | None = None) -> Clock:
        return Clock(
            ticks=lambda: self.now + 7e5,
            now=lambda: START + timedelta(seconds=self.now + wrong),
            sleep=sleep or self.sleep,
        )

    def sleep(self, seconds: float) -> None:
        self.now += seconds

    def acquire(self, who: str = "ann", host: str = "", **options: object) -> Lease:
        return acquire(self.storage, **{**self._options(who, host), **options})  # type: ignore[arg-type]

    def take_over(self, who: str = "bob", host: str = "", **options: object) -> Lease:
        return take_over(self.storage, **{**self._options(who, host), **options})  # type: ignore[arg-type]

    def _options(self, who: str, host: str) -> dict[str, object]:
        return {
            "deployment": f"d-{who}",
            "host": host or f"{who}.example.org",
            "user": who,
            "parameters": {"work": f"/scratch/{who}", "site": "Brno"},
            "clock": self.clock(wrong=len(who) * 1000),
        }


class Flaky(Wrapper):
    """Carries out some calls and says that it did not, or does not and says so."""

    def __init__(self, world: World) -> None:
        super().__init__(world.storage)
        self.fail: list[str] = []
        self.lie: list[str] = []
        self.before: Callable[[str], None] = lambda _: None
        self.during: Callable[[], None] = lambda: None

    def _act(self, name: str, act: Callable[[], None]) -> None:
        if name in self.fail:
            self.fail.remove(name)
            raise StorageTransient("cut")
        self.before(name)
        act()
        self.during()
        if name in self.lie:
            self.lie.remove(name)
            raise StorageTransient("cut")

    def create(self, key: str, content: bytes) -> None:
        self._act("create", lambda: self.inner.create(key, content))

    def write(
        self, key: str, content: BinaryIO | bytes, *, mtime: datetime | None = None, new: bool = False
    ) -> None:
        name = "probe" if key.startswith(CLOCK) else "write"
        self._act(name, lambda: self.inner.write(key, content))


def foreign(epoch: int) -> bytes:
    now = START
    return LockInfo(
        epoch, "d-cyd", "cyd.example.org", "cyd", 1, {}, now, now, TTL, "n", settled=True
    ).to_json()


def flaky(world: World) -> Flaky:
    """The world's storage from now on."""
    storage = Flaky(world)
    world.storage = storage  # type: ignore[assignment]
    return storage
