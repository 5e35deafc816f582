"""How long generations are kept, and that nothing goes that one of them needs."""

import random
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings, strategies
from sync_project import Held, begin, contents, save, shown, tree

from levels import examples
from scipion_cloud.errors import LeaseLost
from scipion_cloud.sync.entry import EntryKind
from scipion_cloud.sync.generation import Generation
from scipion_cloud.sync.layout import GENERATIONS, KEPT, STRAYS, stray_key
from scipion_cloud.sync.repository import Repository
from scipion_cloud.sync.retention import TEMPORARY, Retention, expire, retained
from scipion_cloud.testing.faulty import Died, Fault, FaultyStorage
from scipion_cloud.testing.memory import MemoryStorage

NOW = datetime(2026, 3, 20, 12, 30, tzinfo=UTC)
NOTHING = Retention(timedelta(), timedelta(), timedelta())


def made(number: int, age: timedelta) -> Generation:
    return Generation(number, number - 1 or None, 1, NOW - age, "d", "h", "u", "", 0, 0)


def every(minutes: int, count: int) -> list[Generation]:
    return [made(n + 1, timedelta(minutes=minutes * (count - 1 - n))) for n in range(count)]


def test_all_of_the_last_hour_then_one_an_hour_then_one_a_day() -> None:
    kept = retained(every(2, 30 * 24 * 20), Retention(), NOW)
    ages = [NOW - g.created for g in kept]
    assert sum(age <= timedelta(hours=1) for age in ages) == 31
    assert sum(timedelta(hours=1) < age <= timedelta(hours=24) for age in ages) == 23
    assert sum(timedelta(hours=24) < age for age in ages) == 13
    assert max(ages) <= timedelta(days=14)
    assert kept[0].number == 30 * 24 * 20


@pytest.mark.parametrize("days", [1, 15, 4000])
def test_the_newest_is_kept_whatever_its_age(days: int) -> None:
    kept = retained([made(1, timedelta(days=days + 1)), made(2, timedelta(days=days))], NOTHING, NOW)
    assert [g.number for g in kept] == [2]


@settings(max_examples=examples(100))
@given(
    strategies.lists(strategies.timedeltas(timedelta(hours=-1), timedelta(days=30)), max_size=60),
    strategies.timedeltas(timedelta(), timedelta(days=3)),
)
def test_what_is_let_go_is_not_wished_for_later(ages: list[timedelta], later: timedelta) -> None:
    """Thinning out in steps keeps what thinning out at once would."""
    there = [made(n + 1, age) for n, age in enumerate(sorted(ages, reverse=True))]
    at_once = retained(there, Retention(), NOW + later)
    assert retained(retained(there, Retention(), NOW), Retention(), NOW + later) == at_once


@pytest.mark.parametrize("seed", range(8))
def test_what_a_retained_generation_needs_stays(seed: int) -> None:
    """Compared with what can be read of each; a kill at any call takes nothing away."""
    rng = random.Random(seed)  # noqa: S311
    memory = MemoryStorage()
    repository = Repository(memory)
    trees = {}
    for _ in range(12):
        files = {b"%d" % n: b"content %d" % rng.randrange(6) for n in range(5) if rng.random() < 0.7}
        generation = save(repository, files)
        trees[generation.number] = files
    created = sorted(g.created for g in repository.generations())
    policy = Retention(all_for=created[-1] - created[-4], hourly_for=timedelta(), daily_for=timedelta())
    for number in range(1, 300):
        faulty = FaultyStorage(memory, {number: Fault.DIE})
        try:
            done = expire(Repository(faulty), Held(), policy, created[-1])
        except Died:
            left = {g.number for g in Repository(memory).generations()}
            assert {9, 10, 11, 12} <= left
            for one in left & {9, 10, 11, 12}:
                assert contents(Repository(memory), one) == trees[one]
        else:
            break
    assert [g.number for g in Repository(memory).generations()] == [12, 11, 10, 9]
    needed = {
        entry.digest.hex()
        for number in (9, 10, 11, 12)
        for entry in repository.manifest(number).values()
        if entry.kind is EntryKind.FILE
    }
    kept = {stat.key.rpartition("/")[2] for stat in memory.children(KEPT)}
    assert kept <= needed
    assert done.files <= 6


def test_what_is_told_of_it() -> None:
    repository = Repository(MemoryStorage())
    save(repository, {b"a": b"four"})
    save(repository, {b"a": b"other"})
    save(repository, {b"a": b"third"})
    done = expire(repository, Held(), NOTHING, datetime.now(UTC) + timedelta(hours=1))
    assert (done.generations, done.files, done.bytes) == ((2, 1), 2, 9)
    assert shown(repository.storage) == {"a": b"third"}


def test_voids_orphans_and_temporary_files_go() -> None:
    now = datetime.now(UTC)
    memory = MemoryStorage()
    repository = Repository(memory)
    save(repository, {b"a": b"1"})
    manifest, theirs = tree({b"a": b"2"}), tree({b"b": b"3"})
    slow = begin(repository, manifest, {b"a": b"2"})
    memory.restore({k: v for k, v in memory.snapshot().items() if "/intent/" not in k})
    quick = begin(Repository(memory), theirs, {b"b": b"3"}, Held(2))
    slow.commit(manifest)
    quick.commit(theirs)
    begin(Repository(memory), tree({b"c": b"4"}), {b"c": b"4"}, Held(2))
    Repository(memory).recover(Held(3))
    save(Repository(memory), {b"b": b"5"}, fence=Held(3))
    memory.write(f"{TEMPORARY}/torn", b"x", mtime=now - timedelta(days=2))
    memory.write(f"{TEMPORARY}/arriving", b"x")
    assert {int(s.key[-10:]) for s in memory.children(GENERATIONS)} == {1, 2, 3, 4, 5}
    expire(Repository(memory), Held(3), Retention(), now)
    assert {int(s.key[-10:]) for s in memory.children(GENERATIONS)} == {1, 3, 4, 5}
    assert [s.key for s in memory.children(TEMPORARY)] == [f"{TEMPORARY}/arriving"]
    expire(Repository(memory), Held(3), Retention(), now + timedelta(days=20))
    assert {int(s.key[-10:]) for s in memory.children(GENERATIONS)} == {5}
    assert contents(Repository(memory), 5) == {b"b": b"5"}


def test_what_was_set_aside_stays_as_long_as_a_generation_may() -> None:
    """Counted from then on; the file itself may be of another year, and what tells no time stays."""
    now = datetime.now(UTC)
    memory = MemoryStorage()
    save(Repository(memory), {b"a": b"1"})
    stray = stray_key()
    memory.write(stray, b"in the way", mtime=now - timedelta(days=900))
    memory.write(f"{STRAYS}/{'f' * 32}", b"of another version")
    for days, there in ((0, 2), (13, 2), (15, 1)):
        expire(Repository(memory), Held(), Retention(), now + timedelta(days=days))
        assert len(list(memory.children(STRAYS))) == there
    assert stray not in {s.key for s in memory.children(STRAYS)}


def test_only_under_a_lease() -> None:
    repository = Repository(MemoryStorage())
    save(repository, {b"a": b"1"})
    save(repository, {b"a": b"2"})
    fence = Held(2)
    fence.lost = True
    with pytest.raises(LeaseLost):
        expire(repository, fence, NOTHING, datetime.now(UTC) + timedelta(days=1))
    assert contents(repository, 1) == {b"a": b"1"}
