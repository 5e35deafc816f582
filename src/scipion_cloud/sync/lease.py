"""The right to write a project: a lease that its holder renews, kept in the storage itself.

docs/explanation/locks-and-generations.md has the rules and says why they hold. In short: whoever creates the
lock file of the next epoch may write once every lower epoch is over; a holder counts its time from before it
sent its last renewal, others by the storage's clock from when that arrived, so that the holder stops first.
"""

import os
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import timedelta

from scipion_cloud.errors import (
    InvalidInput,
    LeaseLost,
    Locked,
    StorageError,
    StorageExists,
    StorageTransient,
)
from scipion_cloud.storage import Storage
from scipion_cloud.storage.selftest import create_is_exclusive
from scipion_cloud.sync.holder import TTL, Clock, Lease
from scipion_cloud.sync.layout import lock_key
from scipion_cloud.sync.lock_files import epochs, newest, prune, read_lock, storage_time
from scipion_cloud.sync.lock_info import LONGEST_TTL, LockInfo, Takeover

__all__ = ["TTL", "Clock", "Held", "Lease", "LockInfo", "acquire", "history", "look", "take_over"]

KEPT = 20  # lock files: the record of who held the project
ATTEMPTS = 10


class Held(Locked):
    """Somebody else holds the project; `holder` says who."""

    def __init__(self, message: str, holder: LockInfo) -> None:
        super().__init__(message)
        self.holder = holder


@dataclass(frozen=True)
class _Right:
    """How far a contender may go."""

    expired: bool = False  # take over a lock that has expired
    live: int = 0  # take over the lock of this epoch though it has not
    reason: str = ""


def acquire(
    storage: Storage,
    *,
    deployment: str,
    host: str,
    user: str,
    parameters: Mapping[str, str],
    ttl: timedelta = TTL,
    clock: Clock = Clock(),  # noqa: B008 - it is frozen
    trusted: bool = False,
    on_wait: Callable[[LockInfo], None] = lambda _: None,
) -> Lease:
    """Lock a project that nobody holds, or that the same deployment held on the same host before a crash.

    `parameters` are shown to others: site, work (the working copy), deadline ...; no secrets. That a former
    process of this deployment is gone is for the caller to make sure (by a file lock on its state). `trusted`
    says that somebody else sees to it that only one deployment tries at a time; needed where the storage
    cannot create exclusively. `on_wait` is told of a holder whose end has to be waited for, `ttl` at most.

    Raises Held (a Locked) if somebody else holds it, also if that one's lock has expired, since it may have
    left work unsaved: see `take_over`. Raises StorageError.
    """
    contender = _contender(deployment, host, user, parameters, ttl, clock)
    return _contend(storage, contender, clock, _Right(), trusted, on_wait)


def take_over(
    storage: Storage,
    *,
    deployment: str,
    host: str,
    user: str,
    parameters: Mapping[str, str],
    reason: str = "",
    force: bool = False,
    ttl: timedelta = TTL,
    clock: Clock = Clock(),  # noqa: B008 - it is frozen
    trusted: bool = False,
    on_wait: Callable[[LockInfo], None] = lambda _: None,
) -> Lease:
    """Lock a project whose holder has not released it; the new lock file tells so.

    Refused while the old lock has not expired, unless with `force` and a reason. With force this waits until
    the old holder has stepped aside or its lock has expired: no two ever write at a time.
    Raises Held, InvalidInput (force without a reason) and StorageError.
    """
    if force and not reason.strip():
        raise InvalidInput(errors={"reason": "Say why the lock is to be broken before it has expired."})
    live = max(epochs(storage), default=0) if force else 0
    contender = _contender(deployment, host, user, parameters, ttl, clock)
    return _contend(storage, contender, clock, _Right(True, live, reason.strip()), trusted, on_wait)


def look(storage: Storage) -> LockInfo | None:
    """The newest lock, be it live, expired or released; None if nobody ever locked the project.

    Writes a file to learn the storage's time. Raises StorageError.
    """
    return newest(storage, storage_time(storage))


def history(storage: Storage) -> list[LockInfo]:
    """The last locks, newest first: who had the project open when, and who took it over from whom."""
    now = storage_time(storage)
    found = [read_lock(storage, stat, now) for _, stat in sorted(epochs(storage).items(), reverse=True)]
    return [lock for lock in found if lock is not None]


def _contender(
    deployment: str, host: str, user: str, parameters: Mapping[str, str], ttl: timedelta, clock: Clock
) -> LockInfo:
    if not timedelta() < ttl <= LONGEST_TTL:
        raise InvalidInput(errors={"ttl": "A lock lasts a day at most, and longer than nothing."})
    now = clock.now()
    return LockInfo(
        epoch=0,
        deployment=deployment,
        host=host,
        user=user,
        pid=os.getpid(),
        parameters=dict(parameters),
        acquired=now,
        renewed=now,
        ttl=ttl,
        nonce=uuid.uuid4().hex,
    )


def _contend(
    storage: Storage,
    contender: LockInfo,
    clock: Clock,
    right: _Right,
    trusted: bool,
    on_wait: Callable[[LockInfo], None],
) -> Lease:
    if not (trusted or (storage.capabilities.exclusive_create and create_is_exclusive(storage))):
        raise StorageError(
            f"{storage.url} cannot keep two deployments apart: of two that create the same file, the second "
            "succeeds as well. Open the project through the portal, whose database lets only one in."
        )
    for _ in range(ATTEMPTS):
        former = look(storage)
        took_over = _admit(contender, former, right, clock)
        info = replace(
            contender,
            epoch=former.epoch + 1 if former else 1,
            generation=former.generation if former else None,
            took_over=took_over,
        )
        since = clock.ticks()
        lease = Lease(storage, info, clock, since)
        if not _create(storage, info):
            continue  # somebody was quicker
        try:
            lease.settle(on_wait)
        except LeaseLost as e:
            raise _refusal(storage, str(e)) from e
        prune(storage, info.epoch, KEPT)
        return lease
    raise Locked("Several deployments try to open the project at this moment. Try again in a minute.")


def _admit(contender: LockInfo, former: LockInfo | None, right: _Right, clock: Clock) -> Takeover | None:
    """What to record of the former holder. Raises Held."""
    if former is None or former.released is not None or former.same_place(contender):
        return None
    if former.expired and not right.expired:
        raise Held(
            f"The project was not closed properly. {former.describe()} If that deployment is gone for good, "
            "take the lock over: you go on from the last generation that was saved.",
            former,
        )
    if former.live and former.epoch != right.live:
        raise Held(
            f"The project is open already. {former.describe()} Close it there first. If that deployment does "
            "not work any more, its lock expires and can then be taken over.",
            former,
        )
    why = right.reason or "the lock had expired"
    return Takeover(
        former.deployment, former.user, former.host, former.epoch, why, clock.now(), forced=former.live
    )


def _create(storage: Storage, info: LockInfo) -> bool:
    """Put the own lock file where nothing stands; whether it is there and the own one."""
    key = lock_key(info.epoch)
    for attempt in range(ATTEMPTS):
        try:
            storage.create(key, info.to_json())
            return True
        except StorageExists:
            break
        except StorageTransient:  # if it was carried out all the same, it exists the next time
            if attempt == ATTEMPTS - 1:
                raise
    return LockInfo.parse(info.epoch, storage.read_bytes(key), timedelta()).nonce == info.nonce


def _refusal(storage: Storage, said: str) -> Locked:
    """What to raise when somebody else came in between."""
    holder = look(storage)
    if holder is None:
        return Locked(f"{said} Try again.")
    return Held(f"Somebody else opened the project at this moment. {holder.describe()}", holder)
