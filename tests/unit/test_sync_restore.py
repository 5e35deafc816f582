"""A generation into a working copy: whole, resumable, and never over anybody's work."""

import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from sync_project import calls, file, folder, link, on_disk, save

from scipion_cloud.errors import StorageError, SyncError
from scipion_cloud.storage import Storage, open_storage
from scipion_cloud.sync import placing
from scipion_cloud.sync import restore as restoring
from scipion_cloud.sync.copy import WorkingCopy
from scipion_cloud.sync.entry import Entry, EntryKind
from scipion_cloud.sync.in_use import is_in_use
from scipion_cloud.sync.index import UNSURE
from scipion_cloud.sync.progress import Progress
from scipion_cloud.sync.repository import Repository
from scipion_cloud.sync.restore import estimate, restore, revert
from scipion_cloud.testing.faulty import Fault, FaultyStorage
from scipion_cloud.testing.memory import MemoryStorage

FILES = {b"d/x": b"xx", b"d/deep/er/y": b"y" * 5000, b"empty": b"", b"run.sqlite": b"db" * 40, b"z": b"z"}
LARGE = {b"d/movie": b"m" * 100, b"big": b"b" * 90}
WHOLE = {path.decode(): content for path, content in (FILES | LARGE).items()}


@pytest.fixture(autouse=True)
def _large_is_small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files of more than 50 bytes come late, unless they are databases; there is always room."""
    monkeypatch.setattr(restoring, "SOON", 50)


@pytest.fixture
def copy(tmp_path: Path) -> Iterator[WorkingCopy]:
    """A place for a working copy."""
    copy = WorkingCopy(tmp_path / "work", tmp_path / ".work.agent", tmp_path / "source")
    yield copy
    copy.close()


@pytest.fixture
def repository() -> Repository:
    """A project with two generations."""
    repository = Repository(FaultyStorage(MemoryStorage(), {}))
    save(repository, {b"old": b"old", b"z": b"before"})
    save(repository, FILES | LARGE | EXTRA, *OTHERS)
    return repository


OTHERS = (
    link(b"link", b"d/x"),
    link(b"dangling", b"/no/where"),
    Entry(b"movies", EntryKind.SOURCE_LINK, 0o777, 10**18, target=b"day 1/a"),
    Entry(b"d/hard", EntryKind.HARD_LINK, target=b"d/x"),
    Entry(b"hard", EntryKind.HARD_LINK, target=b"d/movie"),
    folder(b"nothing"),
    folder(b"d/deep")._replace(mode=0o500),
    file(b"run.sh", b"#!/bin/sh")._replace(mode=0o755, mtime_ns=1_234_567_890_123_456_789),
    file(b"holes", bytes(200_000) + b"x")._replace(sparse=True),
)
EXTRA = {b"run.sh": b"#!/bin/sh", b"holes": bytes(200_000) + b"x"}


def faulty(repository: Repository) -> FaultyStorage:
    assert isinstance(repository.storage, FaultyStorage)
    return repository.storage


def bring(repository: Repository, copy: WorkingCopy, **more: object) -> object:
    generation = repository.latest()
    assert generation is not None
    return restore(repository, generation, copy, **more)  # type: ignore[arg-type]


def test_all_kinds_round_trip(repository: Repository, copy: WorkingCopy) -> None:
    order: list[set[str]] = []
    progress = Progress()
    problems = bring(
        repository, copy, progress=progress, on_ready=lambda: order.append(set(on_disk(copy.path)))
    )
    work = copy.path
    assert problems == ()
    assert on_disk(work).items() >= WHOLE.items()
    early = {"d/x", "empty", "run.sqlite", "z", "d/hard", "run.sh"}
    assert order == [early], "databases and small files first"
    assert (work / "link").readlink() == Path("d/x")
    assert (work / "dangling").readlink() == Path("/no/where")
    assert (work / "movies").readlink() == copy.source / "day 1/a"  # type: ignore[operator]
    assert (work / "d/hard").samefile(work / "d/x")
    assert (work / "hard").samefile(work / "d/movie")
    assert (work / "nothing").is_dir()
    assert (work / "d/deep").stat().st_mode & 0o777 == 0o500
    assert (work / "run.sh").stat().st_mode & 0o777 == 0o755
    assert (work / "run.sh").stat().st_mtime_ns == 1_234_567_890_123_456_789
    assert (work / "d").stat().st_mtime_ns == 10**18
    assert (work / "holes").stat().st_blocks * 512 < 100_000
    assert progress.files_done == progress.files_total == len(FILES | LARGE | EXTRA)
    assert progress.bytes_done == progress.bytes_total
    assert copy.is_same(repository.storage.url, 2)
    manifest = repository.manifest(2)
    assert all(copy.has(e) for e in manifest.values() if e.kind is not EntryKind.FOLDER)
    assert set(copy.index.identities) == set(manifest)


def test_the_same_again_copies_nothing(repository: Repository, copy: WorkingCopy) -> None:
    bring(repository, copy)
    faulty(repository).calls.clear()
    before = estimate(repository, repository.generations()[0], copy)
    assert (before.files, before.bytes) == (before.have_files, before.have_bytes)
    bring(repository, copy)
    assert calls(faulty(repository), "read", "stat") == []
    assert not list(copy.state.glob("aside-*"))


def test_how_much_there_is_to_do(repository: Repository, copy: WorkingCopy) -> None:
    found = estimate(repository, repository.generations()[0], copy)
    assert (found.files, found.have_files, found.have_bytes) == (9, 0, 0)
    assert found.bytes == sum(map(len, (FILES | LARGE | EXTRA).values()))
    assert found.free_bytes > 0
    assert not copy.path.exists()


@pytest.mark.parametrize("method", ["read", "stat"])
@pytest.mark.parametrize("at", range(1, 16, 2))
def test_cut_off_and_gone_on_with(repository: Repository, copy: WorkingCopy, method: str, at: int) -> None:
    """Nothing that is whole is copied again."""
    storage = faulty(repository)
    storage.plan = {len(storage.calls) + 3 + at: Fault.FAIL}
    cut = False
    try:
        bring(repository, copy, on_ready=lambda: None, threads=2)
    except StorageError:
        cut = True
        assert copy.marker is not None
        assert copy.marker.restoring or copy.marker.generation is None
    here = set(on_disk(copy.path)) if copy.path.exists() else set()
    storage.calls.clear()
    storage.plan = {}
    again = WorkingCopy(copy.path, copy.state, copy.source)
    bring(repository, again, on_ready=lambda: None)
    again.close()
    assert on_disk(copy.path).items() >= WHOLE.items()
    assert not {c.key for c in calls(storage, "read")} & here
    assert cut or not calls(storage, "read")
    assert not list(copy.state.glob("aside-*"))


KILLED = """
import os, signal, sys
from pathlib import Path
from scipion_cloud.storage import open_storage
from scipion_cloud.sync import placing, restore
from scipion_cloud.sync.copy import WorkingCopy
from scipion_cloud.sync.repository import Repository
restore.SOON = 50
left = int(sys.argv[2])
finish = placing._finish
def dying(fd, entry):
    global left
    left -= 1
    if not left:
        os.ftruncate(fd, 0)
        os.pwrite(fd, b"torn", 0)
        os.kill(os.getpid(), signal.SIGKILL)
    finish(fd, entry)
placing._finish = dying
base = Path(sys.argv[1])
repository = Repository(open_storage(f"file://{base}/storage"))
copy = WorkingCopy(base / "work", base / ".work.agent", base / "source")
restore.restore(repository, repository.latest(), copy, on_ready=lambda: None, threads=2)
"""


@pytest.mark.parametrize("at", [1, 4, 8])
def test_kill_9_and_gone_on_with(copy: WorkingCopy, tmp_path: Path, at: int) -> None:
    storage = open_storage(f"file://{tmp_path}/storage")
    save(Repository(storage), FILES | LARGE | EXTRA, *OTHERS)
    done = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path), str(at)], check=False)
    assert done.returncode == -9
    here = {name for name, content in on_disk(copy.path).items() if content == WHOLE.get(name)}
    watched = FaultyStorage(storage, {})
    bring(Repository(watched), copy)
    assert on_disk(copy.path).items() >= WHOLE.items()
    assert not {c.key for c in calls(watched, "read")} & here
    assert copy.is_same(storage.url, 1)


def test_what_people_do_while_large_files_arrive_is_left_alone(
    repository: Repository, copy: WorkingCopy
) -> None:
    work = copy.path

    def on_ready() -> None:
        (work / "z").write_bytes(b"changed")
        (work / "d/x").unlink()
        (work / "mine").write_bytes(b"new")
        (work / "big").write_bytes(b"in the way")
        shutil.rmtree(work / "d/deep")

    problems = bring(repository, copy, on_ready=on_ready)
    assert {p.path for p in problems} == {b"big", b"d/deep/er/y"}  # type: ignore[attr-defined]
    found = on_disk(work)
    assert (found["z"], found["mine"], found["big"]) == (b"changed", b"new", b"in the way")
    assert found["d/movie"] == LARGE[b"d/movie"]
    assert "d/x" not in found
    (aside,) = copy.state.glob("aside-*")
    assert on_disk(aside) == {"big": LARGE[b"big"]}
    assert copy.index.identities[b"big"] == UNSURE
    assert copy.index.identities[b"z"] not in (b"", UNSURE)
    assert not copy.has(repository.manifest(2)[b"z"])


def test_what_people_did_before_the_kill_is_left_alone(repository: Repository, copy: WorkingCopy) -> None:
    storage, work = faulty(repository), copy.path
    storage.plan = lambda c: Fault.FAIL if c.key in ("big", "d/movie") else None
    with pytest.raises(StorageError):
        bring(repository, copy, on_ready=lambda: None)
    (work / "z").write_bytes(b"changed")
    (work / "d/x").unlink()
    (work / "mine").write_bytes(b"new")
    (work / "big").write_bytes(b"in the way")
    storage.plan = {}
    ready = threading.Event()
    again = WorkingCopy(copy.path, copy.state, copy.source)
    problems = bring(repository, again, on_ready=ready.set)
    again.close()
    found = on_disk(work)
    assert ready.is_set()
    assert (found["z"], found["mine"], found["big"]) == (b"changed", b"new", b"in the way")
    assert found["d/movie"] == LARGE[b"d/movie"]
    assert "d/x" not in found
    assert again.index.identities[b"big"] == UNSURE
    assert problems == ()


def test_what_is_in_the_way_is_moved_aside(repository: Repository, copy: WorkingCopy, tmp_path: Path) -> None:
    """Weakness 1 of the systems before: the next restore wiped the only good copy."""
    work, outside = copy.path, tmp_path / "outside"
    (work / "results/1").mkdir(parents=True)
    (work / "results/1/only.star").write_bytes(b"precious")
    (work / "z").mkdir()
    (work / "z/inside").write_bytes(b"more")
    (work / "empty").write_bytes(b"not empty")
    (work / "run.sqlite").write_bytes(b"DB" * 40)
    (work / "run.sqlite-wal").write_bytes(b"of another time")
    outside.mkdir()
    (work / "d").symlink_to(outside)
    (work / "link").symlink_to(outside)
    assert bring(repository, copy) == ()
    assert on_disk(work).items() >= WHOLE.items()
    assert list(outside.iterdir()) == [], "nothing is written through a symlink"
    (aside,) = copy.state.glob("aside-*")
    assert on_disk(aside) == {
        "results/1/only.star": b"precious",
        "z/inside": b"more",
        "empty": b"not empty",
        "run.sqlite": b"DB" * 40,
        "run.sqlite-wal": b"of another time",
    }
    assert (aside / "d").is_symlink()
    assert not (work / "run.sqlite-wal").exists()


def test_what_is_right_already_is_not_copied(repository: Repository, copy: WorkingCopy) -> None:
    """Of a working copy whose state was lost."""
    bring(repository, copy)
    shutil.rmtree(copy.state)
    fresh = WorkingCopy(copy.path, copy.state, copy.source)
    faulty(repository).calls.clear()
    bring(repository, fresh)
    fresh.close()
    assert calls(faulty(repository), "read") == []
    assert on_disk(copy.path).items() >= WHOLE.items()
    assert copy.path.joinpath("hard").samefile(copy.path / "d/movie")


def test_back_to_an_earlier_generation(repository: Repository, copy: WorkingCopy) -> None:
    bring(repository, copy)
    faulty(repository).calls.clear()
    revert(repository, repository.generation(1), copy)
    assert on_disk(copy.path) == {"old": b"old", "z": b"before"}
    (aside,) = copy.state.glob("aside-*")
    assert on_disk(aside).items() >= (WHOLE | {"z": b"z"}).items() - {("z", b"before")}
    assert copy.index.generation == 2, "the next save is made from the latest, and is a new one"
    index = copy.index
    assert all(index.identities[path] for path in index.manifest), "what is not here counts as removed"
    assert not copy.has(index.manifest[b"z"])
    revert(repository, repository.generation(2), copy)
    assert on_disk(copy.path).items() >= WHOLE.items()


def test_not_back_while_the_project_arrives(repository: Repository, copy: WorkingCopy) -> None:
    stop = threading.Event()
    bring(repository, copy, on_ready=stop.set, stop=stop)
    with pytest.raises(SyncError, match="arriving"):
        revert(repository, repository.generation(1), copy)
    assert "z" in on_disk(copy.path)


@pytest.mark.parametrize("then", [1, 2])
def test_cut_off_on_the_way_to_an_earlier_generation(
    repository: Repository, copy: WorkingCopy, then: int
) -> None:
    """The same again goes on; the latest generation undoes it."""
    bring(repository, copy)
    damaged = next(s.key for s in faulty(repository).inner.walk(".scipion-cloud") if s.size == len(b"before"))
    faulty(repository).inner.remove(damaged)
    with pytest.raises((SyncError, StorageError)):
        revert(repository, repository.generation(1), copy)
    assert "old" in on_disk(copy.path)
    assert not is_in_use(copy)
    faulty(repository).inner.write(damaged, b"before")
    if then == 1:
        revert(repository, repository.generation(1), copy)
        assert on_disk(copy.path) == {"old": b"old", "z": b"before"}
    else:
        bring(repository, copy)
        assert on_disk(copy.path).items() >= WHOLE.items()
        assert "old" not in on_disk(copy.path)
    assert copy.index.generation == 2


@pytest.mark.parametrize("when", ["before", "ready"])
def test_stopped(repository: Repository, copy: WorkingCopy, when: str) -> None:
    """Weakness 3 of the systems before: copying could not be interrupted."""
    stop = threading.Event()
    if when == "before":
        stop.set()
    bring(repository, copy, on_ready=stop.set, stop=stop)
    assert "big" not in on_disk(copy.path)
    assert ("z" in on_disk(copy.path)) is (when == "ready")
    assert not copy.is_same(repository.storage.url, 2)
    bring(repository, copy)
    assert on_disk(copy.path).items() >= WHOLE.items()


def test_no_room_is_told_before_it_begins(
    repository: Repository, copy: WorkingCopy, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy.path.mkdir()
    (copy.path / "z").write_bytes(b"mine")
    monkeypatch.setattr(restoring, "free_space", lambda _: 1000)
    with pytest.raises(SyncError, match="not enough room"):
        bring(repository, copy)
    assert on_disk(copy.path) == {"z": b"mine"}
    assert copy.marker is None


def test_a_disk_that_is_full_on_the_way(
    repository: Repository, copy: WorkingCopy, monkeypatch: pytest.MonkeyPatch
) -> None:
    fetch = placing.fetch

    def full(storage: Storage, entry: Entry, fd: int, **more: object) -> None:
        if entry.path == b"d/movie":
            raise OSError(28, os.strerror(28))
        fetch(storage, entry, fd, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(placing, "fetch", full)
    with pytest.raises(SyncError, match="not enough room"):
        bring(repository, copy)
    monkeypatch.setattr(placing, "fetch", fetch)
    assert "d/movie" not in on_disk(copy.path)
    assert on_disk(copy.path)["z"] == b"z"
    bring(repository, copy)
    assert on_disk(copy.path).items() >= WHOLE.items()


def test_damaged_files_are_named_and_all_others_come(repository: Repository, copy: WorkingCopy) -> None:
    memory = faulty(repository).inner
    memory.write("z", b"!")
    memory.write("big", b"?" * 90)
    ready = threading.Event()
    with pytest.raises(SyncError, match="2 files") as told:
        bring(repository, copy, on_ready=ready.set)
    assert "'z'" in str(told.value)
    assert "'big'" in str(told.value)
    assert ready.is_set()
    assert on_disk(copy.path).keys() & WHOLE.keys() == WHOLE.keys() - {"z", "big"}
    assert not copy.index.identities.get(b"z"), "to the next save it has not arrived, and is not removed"
    memory.write("z", b"z")
    memory.write("big", LARGE[b"big"])
    bring(repository, copy)
    assert on_disk(copy.path).items() >= WHOLE.items()


def test_an_empty_project(copy: WorkingCopy) -> None:
    """Weakness 13 of the systems before."""
    repository = Repository(MemoryStorage())
    save(repository, {}, folder(b"Runs"))
    progress = Progress()
    bring(repository, copy, progress=progress)
    assert progress.seconds_left == 0
    assert (copy.path / "Runs").is_dir()
