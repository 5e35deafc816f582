"""Generations in a storage: made, rolled back, claimed, read."""

import os
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from sync_project import Held, begin, contents, fetched, file, folder, link, save, shown, tree

from scipion_cloud.errors import Conflict, LeaseLost, NotFound, StorageError, SyncError
from scipion_cloud.storage import Storage, open_storage
from scipion_cloud.sync.entry import Entry, EntryKind
from scipion_cloud.sync.layout import INTENT, generation_key, kept_key, key_of
from scipion_cloud.sync.repository import Repository
from scipion_cloud.testing.faulty import Died, Fault, FaultyStorage
from scipion_cloud.testing.memory import ABLE, MemoryStorage

POOR = replace(ABLE, rename=False, symlinks=False, folders=False, byte_names=False)
FIRST = {b"a": b"1", b"d/x": b"same", b"d/y": b"same", b"empty": b""}
SECOND = {b"a": b"2", b"d/x": b"same", b"new": b"3"}


@pytest.fixture(params=["folder", "memory", "poor"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Storage:
    """A storage of each sort."""
    if request.param == "folder":
        return open_storage(f"file://{tmp_path}/storage", retry=False)
    return MemoryStorage(POOR if request.param == "poor" else ABLE)


def test_nothing_was_ever_saved(storage: Storage) -> None:
    repository = Repository(storage)
    assert repository.latest() is None
    assert repository.generations() == []
    assert not repository.recover(Held())
    with pytest.raises(NotFound):
        repository.manifest(1)
    with pytest.raises(NotFound):
        repository.generation(1)


def test_generations_are_found_and_shown(storage: Storage) -> None:
    repository = Repository(storage)
    first, second = save(repository, FIRST), save(repository, SECOND)
    assert (first.number, first.parent, second.number, second.parent) == (1, None, 2, 1)
    assert (second.files, second.bytes, second.user, second.epoch) == (3, 6, "ada", 1)
    assert repository.generations() == [second, first] == Repository(storage).generations()
    assert Repository(storage).latest() == second
    assert contents(repository, 1) == FIRST
    assert contents(repository, 2) == SECOND
    assert shown(storage) == {os.fsdecode(path): content for path, content in SECOND.items()}


def test_a_person_finds_links_and_empty_folders(tmp_path: Path) -> None:
    """What is copied by hand can be read by Scipion."""
    repository = Repository(open_storage(f"file://{tmp_path}"))
    hard = Entry(b"d/hard", EntryKind.HARD_LINK, target=b"a")
    source = Entry(b"movies", EntryKind.SOURCE_LINK, target=b"day1")
    save(
        repository,
        {b"a": b"1"},
        folder(b"e/empty"),
        folder(b"e"),
        link(b"l", b"d"),
        folder(b"d"),
        hard,
        source,
    )
    assert (tmp_path / "l").readlink() == Path("d")
    assert (tmp_path / "d/hard").read_bytes() == b"1"
    assert (tmp_path / "e/empty").is_dir()
    assert not os.path.lexists(tmp_path / "movies")
    save(repository, {b"a": b"1", b"l": b"file"}, folder(b"d"), link(b"d/hard", b"x"))
    assert not (tmp_path / "e").exists()
    assert (tmp_path / "l").read_bytes() == b"file"
    assert (tmp_path / "d/hard").readlink() == Path("x")


def test_names_become_folders_and_back(storage: Storage) -> None:
    repository = Repository(storage)
    trees: list[dict[bytes, bytes]] = [
        {b"a": b"file", b"b/c/d": b"deep"},
        {b"a/b/c": b"file", b"b": b"flat"},
        {b"a": b"file", b"b/c": b"less", b"b/d": b"deep"},
    ]
    for files in trees:
        save(repository, files)
        assert shown(storage) == {os.fsdecode(p): c for p, c in files.items()}
    for number, files in enumerate(trees, 1):
        assert contents(repository, number) == files


def test_content_that_moves_back_and_forth(storage: Storage) -> None:
    repository = Repository(storage)
    versions = [
        {b"a": b"1", b"b": b"2"},
        {b"a": b"2", b"b": b"1"},
        {b"a": b"1"},
        {b"a": b"2", b"b": b"2"},
    ] * 2
    for files in versions:
        save(repository, files)
    for number, files in enumerate(versions, 1):
        assert contents(repository, number) == files


def test_names_that_the_storage_cannot_hold() -> None:
    storage = MemoryStorage(POOR)
    repository = Repository(storage)
    odd = {b"line\nbreak": b"1", b"\xff\xfe": b"2", "e\u0301".encode(): b"3"}
    save(repository, odd)
    save(repository, dict.fromkeys(odd, b"new"))
    assert contents(repository, 1) == odd
    assert shown(storage) == {}


def test_the_first_save_is_one_request_for_each_file() -> None:
    storage = FaultyStorage(MemoryStorage(), {})
    files = {b"d%d/f%d" % (n % 7, n): b"%d" % n for n in range(200)}
    save(Repository(storage), files)
    counted = Counter(call.method for call in storage.calls)
    assert counted["write"] == 200
    assert counted["stat"] == counted["move"] == counted["make_folder"] == 0
    assert sum(counted.values()) < 215


def test_without_rename_the_old_is_copied_before_the_new_is_put() -> None:
    storage = FaultyStorage(MemoryStorage(POOR), {})
    repository = Repository(storage)
    save(repository, {b"a": b"1"})
    storage.calls.clear()
    save(repository, {b"a": b"2"})
    own = [c.method for c in storage.calls if c.key == "a"]
    assert own == ["move", "write"]


@pytest.mark.parametrize("able", [ABLE, POOR])
def test_killed_at_each_call_and_opened_elsewhere(able: object) -> None:
    """Weaknesses 1 and 5 of the systems before: whoever opens it next finds a whole project."""
    last = 0
    for number in range(1, 200):
        memory = MemoryStorage(able)  # type: ignore[arg-type]
        save(Repository(memory), FIRST)
        faulty = FaultyStorage(memory, {number: Fault.DIE_MIDWAY})
        try:
            save(Repository(faulty), SECOND)
        except Died:
            repository = Repository(memory)
            fence = Held(2)
            repository.recover(fence)
            assert not repository.recover(fence), "rolled back twice"
            latest = repository.latest()
            assert latest is not None
            files = contents(repository, latest.number)
            assert files == (FIRST if latest.number == 1 else SECOND)
            assert shown(memory) == {os.fsdecode(p): c for p, c in files.items()}
            third = save(repository, SECOND | {b"third": b"3"}, fence=fence)
            assert contents(repository, 1) == FIRST
            assert contents(repository, third.number) == SECOND | {b"third": b"3"}
        else:
            last = number
            break
    assert last > 10


def test_a_rollback_that_is_killed_too() -> None:
    for number in range(1, 100):
        memory = MemoryStorage()
        save(Repository(memory), FIRST)
        begin(Repository(memory), tree(SECOND), SECOND)
        faulty = FaultyStorage(memory, {number: Fault.DIE_AFTER})
        try:
            Repository(faulty).recover(Held(2))
        except Died:
            Repository(memory).recover(Held(3))
            assert contents(Repository(memory), 1) == FIRST
            assert shown(memory) == {os.fsdecode(p): c for p, c in FIRST.items()}
        if len(faulty.calls) < number:
            assert number > 10
            return
    pytest.fail("it never ended")


def test_the_lost_answer_to_a_commit() -> None:
    memory = MemoryStorage()
    manifest = tree(FIRST)
    saving = begin(Repository(memory), manifest, FIRST)
    faulty = FaultyStorage(memory, lambda c: Fault.DIE_AFTER if c.method == "create" else None)
    saving._ledger.storage = faulty
    with pytest.raises(Died):
        saving.commit(manifest)
    repository = Repository(memory)
    assert repository.recover(Held(2))
    latest = repository.latest()
    assert latest is not None
    assert latest.save == saving.id
    assert contents(repository, 1) == FIRST


def test_an_answer_that_is_lost_is_asked_for_again() -> None:
    faulty = FaultyStorage(
        MemoryStorage(), lambda c: Fault.LIE if c.key == generation_key(1) and c.method == "create" else None
    )
    assert save(Repository(faulty), FIRST).number == 1
    assert contents(Repository(faulty), 1) == FIRST


def test_who_was_rolled_back_cannot_commit(storage: Storage) -> None:
    repository = Repository(storage)
    save(repository, FIRST)
    manifest = tree(SECOND)
    slow = begin(repository, manifest, SECOND)
    other = Repository(storage)
    other.recover(Held(2))
    with pytest.raises(LeaseLost):
        slow.commit(manifest)
    assert contents(other, save(other, {b"b": b"b"}, fence=Held(2)).number) == {b"b": b"b"}
    assert [g.parent for g in other.generations()] == [1, None]


def test_an_orphan_is_passed_over() -> None:
    """A writer that lost its lease commits while its successor saves."""
    storage = MemoryStorage()
    repository = Repository(storage)
    save(repository, FIRST)
    manifest, theirs = tree(SECOND), tree({b"b": b"b"})
    slow = begin(repository, manifest, SECOND)
    hidden = {k: v for k, v in storage.snapshot().items() if not k.startswith(INTENT)}
    storage.restore(hidden)  # its note came too late to be seen
    quick = begin(Repository(storage), theirs, {b"b": b"b"}, Held(2))
    assert slow.commit(manifest).number == 2
    made = quick.commit(theirs)
    assert (made.number, made.parent) == (3, 1)
    assert [g.number for g in Repository(storage).generations()] == [3, 1]
    assert contents(Repository(storage), 1) == FIRST


def test_a_save_on_top_of_another_generation_is_refused(storage: Storage) -> None:
    repository = Repository(storage)
    first = save(repository, FIRST)
    save(repository, SECOND)
    with pytest.raises(Conflict, match="generation 1"):
        repository.saving(first, tree(FIRST), [b"a"], Held())


def test_a_lost_lease_stops_everything(storage: Storage) -> None:
    repository = Repository(storage)
    save(repository, FIRST)
    fence = Held(2)
    manifest = tree(SECOND)
    saving = begin(repository, manifest, SECOND, fence)
    fence.lost = True
    with pytest.raises(LeaseLost):
        saving.put(file(b"a", b"x"), b"x")
    with pytest.raises(LeaseLost):
        saving.commit(manifest)
    with pytest.raises(LeaseLost):
        repository.recover(Held(1))  # of a lower epoch than the save's


def test_a_save_that_is_given_up(storage: Storage) -> None:
    repository = Repository(storage)
    save(repository, FIRST)
    begin(repository, tree(SECOND), SECOND).abandon()
    assert shown(storage) == {os.fsdecode(p): c for p, c in FIRST.items()}
    assert save(repository, SECOND).number == 2


def test_a_large_first_save_goes_on_after_a_kill() -> None:
    memory = MemoryStorage()
    files = {b"f%d" % n: b"%d" % n for n in range(50)}
    manifest = tree(files)
    faulty = FaultyStorage(memory, {40: Fault.DIE})
    repository = Repository(faulty)
    saving = repository.saving(None, tree({}), manifest, Held())

    def put_all() -> None:
        for entry in manifest.values():
            saving.put(entry, files[entry.path])

    with pytest.raises(Died):
        put_all()
    done = len(shown(memory))
    assert done > 20
    files = files | {b"later": b"later"}
    del files[b"f0"]
    manifest = tree(files)
    again = FaultyStorage(memory, {})
    resumed = begin(Repository(again), manifest, files, Held(2), resume=saving.id)
    assert resumed.resumed
    resumed.commit(manifest)
    assert len([c for c in again.calls if c.method == "write"]) == len(files) - done + 1
    assert shown(memory) == {os.fsdecode(p): c for p, c in files.items()}
    assert contents(Repository(memory), Repository(memory).generations()[0].number) == files


def test_what_was_put_torn_is_undone_if_the_old_version_is_saved(storage: Storage) -> None:
    """A file that changed all the time keeps its last version, and the next save does no harm to that."""
    repository = Repository(storage)
    save(repository, FIRST)
    manifest = tree(FIRST | {b"new": b"n"})
    saving = repository.saving(repository.latest(), tree(FIRST), [b"a", b"new", b"gone"], Held())
    saving.put(file(b"a", b"torn"), b"torn")
    saving.put(file(b"gone", b"gone"), b"gone")
    saving.put(file(b"new", b"n"), b"n")
    saving.commit(manifest)
    assert shown(storage) == {os.fsdecode(p): c for p, c in (FIRST | {b"new": b"n"}).items()}
    save(repository, {b"a": b"4"})
    assert contents(repository, 1) == FIRST


def test_damage_is_told_by_name(storage: Storage) -> None:
    repository = Repository(storage)
    save(repository, {b"d/a": b"good"})
    storage.write("d/a", b"evil")
    with pytest.raises(SyncError, match="d/a"):
        fetched(repository, file(b"d/a", b"good"))
    storage.write(kept_key(file(b"d/a", b"good").digest), b"good")
    assert fetched(repository, file(b"d/a", b"good")) == b"good"


def test_a_damaged_generation_is_not_taken_for_an_older_one(storage: Storage) -> None:
    repository = Repository(storage)
    save(repository, FIRST)
    save(repository, SECOND)
    data = storage.read_bytes(generation_key(2))
    storage.write(generation_key(2), data[:50])
    with pytest.raises(SyncError):
        Repository(storage).latest()
    assert contents(Repository(storage), 1) == FIRST


def test_a_damaged_note_of_a_save_changes_nothing(storage: Storage) -> None:
    repository = Repository(storage)
    save(repository, FIRST)
    storage.write(f"{INTENT}/0123", b"\0")
    with pytest.raises(SyncError, match="repair"):
        repository.recover(Held(2))


@pytest.mark.parametrize("able", [ABLE, replace(ABLE, ranges=False)])
@pytest.mark.parametrize("sparse", [False, True])
def test_large_files_in_parts(able: object, sparse: bool, tmp_path: Path) -> None:
    content = os.urandom(1 << 20) + bytes(70 << 20) + b"end"
    repository = Repository(MemoryStorage(able))  # type: ignore[arg-type]
    entry = file(b"movie", content)._replace(sparse=sparse)
    repository.storage.write(key_of(b"movie", repository.storage.capabilities), content)
    with (tmp_path / "movie").open("wb+") as target:
        repository.fetch(entry, target.fileno())
        assert os.fstat(target.fileno()).st_size == len(content)
        if sparse:
            assert os.fstat(target.fileno()).st_blocks * 512 < 3 << 20
    assert (tmp_path / "movie").read_bytes() == content


def test_what_the_storage_says_is_passed_on() -> None:
    faulty = FaultyStorage(MemoryStorage(), lambda c: Fault.FAIL if c.method == "write" else None)
    with pytest.raises(StorageError):
        save(Repository(faulty), FIRST)


@pytest.mark.parametrize("folder_first", [True, False])
def test_a_link_becomes_a_folder_in_any_order(storage: Storage, folder_first: bool) -> None:
    repository = Repository(storage)
    save(repository, {b"x": b"x"}, link(b"a", b"x"))
    base, old = repository.latest(), repository.manifest(1)
    manifest = tree({b"x": b"x", b"a/b/c": b"1", b"a/d/e": b"2"})
    puts = [manifest[p] for p in (b"a", b"a/b", b"a/d", b"a/b/c", b"a/d/e")]
    saving = repository.saving(base, old, manifest, Held())
    for entry in puts if folder_first else reversed(puts):
        saving.put(entry, {b"a/b/c": b"1", b"a/d/e": b"2"}.get(entry.path))
    saving.commit(manifest)
    assert shown(storage) == {"x": b"x", "a/b/c": b"1", "a/d/e": b"2"}
