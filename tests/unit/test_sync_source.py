"""A read-only dataset beside the working copy: linked from here, copied from elsewhere."""

import os
import threading
from datetime import UTC, datetime
from pathlib import Path

import pytest
from sync_project import calls, on_disk

from scipion_cloud.errors import StorageError, SyncError
from scipion_cloud.storage import open_storage
from scipion_cloud.storage.retrying import Retrying
from scipion_cloud.sync import source as sources
from scipion_cloud.sync.progress import Progress
from scipion_cloud.sync.source import PARTS, stage_source
from scipion_cloud.testing.faulty import Fault, FaultyStorage
from scipion_cloud.testing.memory import MemoryStorage

MOVIES = {f"day {n % 3}/movie_{n:03}.tiff": bytes([n]) * (100 + n) for n in range(30)}
TIME = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


@pytest.fixture
def dataset() -> FaultyStorage:
    """Movies, and the traces of a project."""
    memory = MemoryStorage()
    for key, content in MOVIES.items():
        memory.write(key, content, mtime=TIME)
    memory.write(".scipion-cloud/generations/0000000001", b"not data")
    return FaultyStorage(memory, {})


def test_copied_with_their_times(dataset: FaultyStorage, tmp_path: Path) -> None:
    progress = Progress()
    assert stage_source(dataset, tmp_path / "source", progress=progress) == ()
    assert on_disk(tmp_path / "source") == MOVIES
    stat = (tmp_path / "source/day 0/movie_000.tiff").stat()
    assert stat.st_mtime == TIME.timestamp()
    assert stat.st_mode & 0o222 == 0
    assert (progress.files_done, progress.files_total) == (30, 30)
    assert progress.bytes_done == progress.bytes_total == sum(map(len, MOVIES.values()))


def test_gone_on_with(dataset: FaultyStorage, tmp_path: Path) -> None:
    dataset.plan = {20: Fault.FAIL}
    with pytest.raises(StorageError):
        stage_source(dataset, tmp_path / "source", threads=2)
    here = on_disk(tmp_path / "source")
    assert 10 < len(here) < 30
    (tmp_path / "source" / PARTS / "7").write_bytes(b"torn by a kill")
    dataset.plan = {}
    dataset.calls.clear()
    progress = Progress()
    stage_source(dataset, tmp_path / "source", progress=progress)
    assert on_disk(tmp_path / "source") == MOVIES
    assert len(calls(dataset, "read")) == 30 - len(here)
    assert progress.bytes_done == progress.bytes_total
    assert not (tmp_path / "source" / PARTS).exists()


def test_what_has_changed_is_brought_again(dataset: FaultyStorage, tmp_path: Path) -> None:
    stage_source(dataset, tmp_path / "source")
    dataset.inner.write("day 0/movie_000.tiff", b"?" * 100)  # the same size, another time
    dataset.inner.remove("day 1/movie_001.tiff")
    dataset.calls.clear()
    stage_source(dataset, tmp_path / "source")
    assert len(calls(dataset, "read")) == 1
    assert on_disk(tmp_path / "source") == MOVIES | {"day 0/movie_000.tiff": b"?" * 100}


@pytest.mark.parametrize("fault", [Fault.SHORT, Fault.MIDWAY])
def test_a_torn_download_is_not_taken_for_a_movie(
    dataset: FaultyStorage, tmp_path: Path, fault: Fault
) -> None:
    dataset.plan = lambda call: fault if call.key == "day 2/movie_005.tiff" else None
    with pytest.raises(StorageError):
        stage_source(dataset, tmp_path / "source")
    assert "day 2/movie_005.tiff" not in on_disk(tmp_path / "source")


def test_links_of_the_dataset(dataset: FaultyStorage, tmp_path: Path) -> None:
    inner = dataset.inner
    inner.symlink("all/first", b"../day 0/movie_000.tiff")
    inner.symlink("passwords", b"/etc/passwd")
    inner.symlink("all/above", b"../../work")
    for _ in range(2):
        problems = stage_source(dataset, tmp_path / "source")
        assert {p.path for p in problems} == {b"passwords", b"all/above"}
    assert (tmp_path / "source/all/first").read_bytes() == MOVIES["day 0/movie_000.tiff"]
    assert not os.path.lexists(tmp_path / "source/passwords")


def test_never_through_a_symlink(dataset: FaultyStorage, tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "source/day 0").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(SyncError, match="does not take"):
        stage_source(dataset, tmp_path / "source")
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_a_folder_of_this_machine_is_linked(tmp_path: Path) -> None:
    data, target = tmp_path / "my data", tmp_path / "source"
    data.mkdir()
    (data / "movie").write_bytes(b"movie")
    storage = open_storage(data.as_uri())
    assert isinstance(storage, Retrying)
    target.mkdir()  # empty, as left by a mount
    for _ in range(2):
        stage_source(storage, target)
        assert target.readlink() == data
    other = tmp_path / "other"
    other.mkdir()
    stage_source(open_storage(other.as_uri()), target)
    assert target.readlink() == other
    assert (data / "movie").read_bytes() == b"movie"


def test_a_link_never_replaces_data(tmp_path: Path) -> None:
    data, target = tmp_path / "data", tmp_path / "source"
    data.mkdir()
    target.mkdir()
    (target / "mine").write_bytes(b"mine")
    with pytest.raises(SyncError, match="in the way"):
        stage_source(open_storage(data.as_uri()), target)
    with pytest.raises(SyncError, match="no folder"):
        stage_source(open_storage((tmp_path / "nothing").as_uri()), tmp_path / "new")
    assert on_disk(target) == {"mine": b"mine"}


def test_a_copy_takes_the_place_of_a_link(dataset: FaultyStorage, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "source").symlink_to(tmp_path / "data")
    stage_source(dataset, tmp_path / "source")
    assert on_disk(tmp_path / "source") == MOVIES
    assert list((tmp_path / "data").iterdir()) == []


def test_stopped(dataset: FaultyStorage, tmp_path: Path) -> None:
    stop = threading.Event()

    def plan(call: object) -> None:
        if len(dataset.calls) > 10:
            stop.set()

    dataset.plan = plan  # type: ignore[assignment]
    stage_source(dataset, tmp_path / "source", stop=stop, threads=2)
    assert len(on_disk(tmp_path / "source")) < 30
    dataset.plan = {}
    stage_source(dataset, tmp_path / "source")
    assert on_disk(tmp_path / "source") == MOVIES


def test_no_room(dataset: FaultyStorage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "free_space", lambda _: 1000)
    with pytest.raises(SyncError, match="not enough room"):
        stage_source(dataset, tmp_path / "source")
    assert on_disk(tmp_path / "source") == {}


def test_an_empty_dataset(tmp_path: Path) -> None:
    progress = Progress()
    stage_source(MemoryStorage(), tmp_path / "source", progress=progress)
    assert list((tmp_path / "source").iterdir()) == []
    assert progress.seconds_left == 0
