"""How long earlier generations can be restored, and how room is made when they cannot any more."""

from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime, timedelta

from scipion_cloud.storage import Stat
from scipion_cloud.sync.fence import Fence
from scipion_cloud.sync.generation import Generation
from scipion_cloud.sync.layout import KEPT, SERVICE, STRAYS, set_aside_at
from scipion_cloud.sync.repository import Repository

TEMPORARY = f"{SERVICE}/tmp"  # noqa: S108 - of the storage
LEFT_BEHIND = timedelta(days=1)  # after which a temporary file is that of a process that was killed
THREADS = 8


@dataclass(frozen=True)
class Retention:
    """Which generations are kept, by their age: all, then the last of each hour, then of each day (UTC)."""

    all_for: timedelta = timedelta(hours=1)
    hourly_for: timedelta = timedelta(hours=24)
    daily_for: timedelta = timedelta(days=14)


@dataclass(frozen=True)
class Expired:
    """What was removed."""

    generations: tuple[int, ...] = ()
    files: int = 0  # of what was kept for them
    bytes: int = 0


def retained(generations: Iterable[Generation], policy: Retention, now: datetime) -> list[Generation]:
    """Those to be kept, newest first; the newest of all is, whatever its age."""
    kept: list[Generation] = []
    hours: set[datetime] = set()
    days: set[datetime] = set()
    for generation in sorted(generations, key=lambda g: g.number, reverse=True):
        age = now - generation.created
        hour = generation.created.replace(minute=0, second=0, microsecond=0)
        day = hour.replace(hour=0)
        if (
            not kept
            or age <= policy.all_for
            or (age <= policy.hourly_for and hour not in hours)
            or (age <= policy.daily_for and day not in days)
        ):
            kept.append(generation)
            hours.add(hour)
            days.add(day)
    return kept


def expire(repository: Repository, fence: Fence, policy: Retention, now: datetime) -> Expired:
    """Remove generations that need not be kept, the files that were kept only for them, and old strays.

    Not while a save is under way. Killed anywhere, it leaves generations that are whole, and at worst some
    files too many, which the next call removes. Raises LeaseLost, StorageError.
    """
    fence.confirm()
    storage, ledger = repository.storage, repository.ledger
    there, none = ledger.chain()
    keep = retained(there, policy, now)
    longest = max(policy.daily_for, LEFT_BEHIND)
    for generation in none:  # first: with those gone that passed over them, they would look like some
        if not generation.void or now - generation.created > longest:
            fence.check()
            ledger.forget(generation.number)
    numbers = {generation.number for generation in keep}
    expired = tuple(g.number for g in there if g.number not in numbers)
    for number in expired:
        fence.check()
        ledger.forget(number)
    if expired:
        storage.flush()  # no generation may come back, after a power cut, without its files
    garbage = _garbage(repository, keep)
    left = [s for s in storage.walk(TEMPORARY) if now - s.modified > LEFT_BEHIND]
    left += [s for s in storage.walk(STRAYS) if (at := set_aside_at(s.key)) and now - at > longest]
    with ThreadPoolExecutor(THREADS) as pool:

        def remove(stat: Stat) -> None:
            fence.check()
            storage.remove(stat.key)

        for _ in pool.map(remove, [*garbage, *left]):
            pass
    return Expired(expired, len(garbage), sum(stat.size for stat in garbage))


def _garbage(repository: Repository, keep: Sequence[Generation]) -> list[Stat]:
    """What is kept, but not for any of these generations."""
    unneeded: dict[bytes, Stat] = {}
    for stat in repository.storage.children(KEPT):
        name = stat.key.rpartition("/")[2]
        if len(name) == 64 and not set(name) - set("0123456789abcdef"):
            unneeded[bytes.fromhex(name)] = stat
    for generation in keep:
        if not unneeded:
            break
        for entry in repository.manifest(generation.number).values():
            unneeded.pop(entry.digest, None)
    return list(unneeded.values())
