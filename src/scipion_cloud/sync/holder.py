"""The holder's side of a lease: renew it, know when it is over, give it back."""

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

from scipion_cloud.errors import LeaseLost, StorageError, StorageMissing, StorageTransient
from scipion_cloud.storage import Storage
from scipion_cloud.sync.layout import lock_key
from scipion_cloud.sync.lock_files import epochs, newest, read_lock, storage_time
from scipion_cloud.sync.lock_info import LockInfo, moment

TTL = timedelta(minutes=5)
SHARE = 5  # a lease is renewed this many times in its length
RETRY_SHARE = 30  # after a failure sooner
MARGIN_SHARE = 10  # this part of its length before the end its holder stops writing


def _since_boot() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def _now() -> datetime:
    return datetime.now(UTC)


@dataclass(frozen=True)
class Clock:
    """The clocks of a holder's machine."""

    ticks: Callable[[], float] = _since_boot  # seconds; goes on while the machine is suspended
    now: Callable[[], datetime] = _now  # only to be read by people, and to notice sleep that `ticks` missed
    sleep: Callable[[float], None] = time.sleep


class Lease:
    """A lease that is held, a `Fence`; made by `acquire` and `take_over`. Safe to use from many threads.

    `generation` is the last one saved, and told with the next renewal. `trouble` says why the last renewal
    failed, and is empty after one that did not.
    """

    def __init__(self, storage: Storage, info: LockInfo, clock: Clock, since: float) -> None:
        self.generation = info.generation
        self.lost = threading.Event()
        self.trouble = ""
        self._storage = storage
        self._clock = clock
        self._info = info
        self._since = (since, clock.now())  # before the last renewal that counts was sent
        self._ended = ""  # why it is over for good
        self._requests = threading.RLock()  # one renewal or release at a time
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    @property
    def info(self) -> LockInfo:
        """The lock file as it was last written."""
        return self._info

    @property
    def epoch(self) -> int:
        """Of two holders the one with the higher epoch is the right one."""
        return self._info.epoch

    @property
    def deployment(self) -> str:
        """Whose lease it is."""
        return self._info.deployment

    @property
    def host(self) -> str:
        """Where it is held."""
        return self._info.host

    @property
    def user(self) -> str:
        """For whom."""
        return self._info.user

    @property
    def held(self) -> bool:
        """Whether `check` would pass."""
        return not self._ended and not self._lapsed()

    def check(self) -> None:
        """Do nothing while this is the holder. Raises LeaseLost. Asks nobody; call it before each write.

        Where `lost` is not set, the lease is only late: it is held again after the next renewal, since
        nobody has taken it over until then.
        """
        if self._ended:
            raise LeaseLost(self._ended)
        if self._lapsed():
            raise LeaseLost(
                f"The lock of the project could not be renewed since {moment(self._info.renewed)} "
                f"({self.trouble or 'this machine was paused'}). Nothing is saved until the storage answers "
                "again; the working copy is kept."
            )

    def confirm(self) -> None:
        """Ask the storage whether this is still the holder. Raises LeaseLost; StorageError if nobody knows.

        What a writer did before a `confirm` that passes, the next holder sees.
        """
        self._look()
        self.check()

    def renew(self) -> None:
        """Renew it now. Raises LeaseLost if it was taken over, StorageError if nobody knows."""
        with self._requests:
            if self._ended:
                raise LeaseLost(self._ended)
            since = (self._clock.ticks(), self._clock.now())
            self._read_own()
            self._put(replace(self._next(), settled=True))
            self._see_others()
            self._since = since
            self.trouble = ""

    def start(self) -> None:
        """Renew it from a thread of its own until `stop` or `release`, or until it is lost."""
        self._stop.clear()
        self._thread = threading.Thread(target=self._keep, name="lease", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Renew it no more."""
        self._stop.set()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join()
            self._thread = None

    def release(self, generation: int | None = None) -> None:
        """Give it back, telling the last generation saved. Raises LeaseLost, and StorageError: call it again.

        From the call on nothing may be written any more.
        """
        with self._requests:
            if self._info.released is None:
                self._look()
                self._ended = "The lock of the project was given back: nothing more is saved from here."
                self.generation = generation or self.generation
                self._info = replace(self._next(), settled=True, released=self._clock.now())
        self.stop()
        with self._requests:
            self._put(self._info)

    def step_aside(self) -> None:
        """Tell the one that took it over that this writer has stopped, so that it need not wait.

        Does nothing unless `lost` is set; call it once nothing is written any more. Raises StorageError.
        """
        self.stop()
        with self._requests:
            if self.lost.is_set() and self._own_file() is not None:
                self._put(replace(self._next(), released=self._clock.now()))

    def _lapsed(self) -> bool:
        ticks, now = self._since
        passed = timedelta(seconds=self._clock.ticks() - ticks)
        # a virtual machine that was paused may not have counted; its clock is put right soon after
        passed = max(passed, self._clock.now() - now)
        return passed >= self._info.ttl * (1 - 1 / MARGIN_SHARE)

    def _keep(self) -> None:
        ttl = self._info.ttl.total_seconds()
        wait = ttl / SHARE
        while not self._stop.wait(wait):
            try:
                self.renew()
                wait = ttl / SHARE
            except LeaseLost:
                return
            except StorageError as e:
                self.trouble = str(e)
                wait = ttl / RETRY_SHARE

    def _next(self) -> LockInfo:
        info = self._info
        return replace(
            info, renewals=info.renewals + 1, renewed=self._clock.now(), generation=self.generation
        )

    def _put(self, info: LockInfo) -> None:
        """Write the own lock file; it holds a count, so that what is read back is this or not."""
        key, data = lock_key(self.epoch), info.to_json()
        self._info = info
        try:
            self._storage.write(key, data)
        except StorageTransient:
            if self._storage.read_bytes(key) != data:
                raise

    def _look(self) -> None:
        """See in the storage that nobody else holds it. Raises LeaseLost."""
        with self._requests:
            if self._ended:
                raise LeaseLost(self._ended)
            self._read_own()
            self._see_others()

    def _own_file(self) -> LockInfo | None:
        """The own lock file if it is there and names this writer."""
        try:
            data = self._storage.read_bytes(lock_key(self.epoch))
        except StorageMissing:
            return None
        found = LockInfo.parse(self.epoch, data, timedelta())
        return found if found.nonce == self._info.nonce else None

    def _read_own(self) -> None:
        if self._own_file() is None:
            raise self._lose("Somebody removed or replaced the lock of the project in its storage.")

    def _see_others(self) -> None:
        if max(epochs(self._storage), default=0) <= self.epoch:
            return
        by = "Somebody else"
        with suppress(StorageError):
            if other := newest(self._storage, storage_time(self._storage)):
                by = f"{other.user or 'Somebody'} on {other.host} (deployment {other.deployment})"
        raise self._lose(f"{by} took the project over.")

    def _lose(self, why: str) -> LeaseLost:
        self._ended = (
            f"{why} This writer has stopped; what it had not saved is still in its working copy"
            f"{' ' + work if (work := self._info.parameters.get('work')) else ''}."
        )
        self.lost.set()
        return LeaseLost(self._ended)

    def settle(self, on_wait: Callable[[LockInfo], None]) -> None:
        """Wait until every lower epoch is over; only then may anything be written. For `acquire`.

        A holder looks for higher epochs after each renewal, and this looks at the renewals of lower epochs
        after its own lock file is there: of the two at least one sees the other.
        """
        while True:
            now = storage_time(self._storage)
            self._look()
            blocker = self._blocker(now)
            if blocker is None:
                return
            on_wait(blocker)
            length = self._info.ttl / SHARE
            self._clock.sleep(min(length, max(blocker.left, length / SHARE)).total_seconds())
            since = (self._clock.ticks(), self._clock.now())
            self._put(self._next())
            self._since = since

    def _blocker(self, now: datetime) -> LockInfo | None:
        files = epochs(self._storage)
        for epoch in sorted((e for e in files if e < self.epoch), reverse=True):
            lock = read_lock(self._storage, files[epoch], now)
            if lock is None:
                continue
            if lock.live and not lock.same_place(self._info):
                return lock
            if lock.settled:
                return None
        return None
