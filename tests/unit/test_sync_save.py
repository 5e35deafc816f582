"""Saves: only what has changed, nothing half, and a question before much is deleted."""

import os
import shutil
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from sync_working import Project, paths

from scipion_cloud.errors import (
    NeedsConfirmation,
    SyncError,
)
from scipion_cloud.storage.wrapper import Wrapper
from scipion_cloud.sync.entry import Entry, EntryKind
from scipion_cloud.sync.progress import Progress
from scipion_cloud.sync.repository import Repository
from scipion_cloud.sync.save import Saved


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Project]:
    project = Project(tmp_path)
    yield project
    project.copy.close()


def test_a_tree_of_everything(project: Project) -> None:
    project.write("Runs/000002_Prot/extra/mic.mrc", b"m" * 5000)
    project.write(os.fsdecode(b"odd\n\xff"), b"odd")
    project.write("big", os.urandom(3 << 20))
    (project.work / "empty/folder").mkdir(parents=True)
    os.link(project.work / "big", project.work / "also-big")
    with (project.work / "holes").open("wb") as file:
        file.truncate(2 << 20)
    (project.work / "big").chmod(0o600)
    saved = project.save(note="first")
    assert saved.generation is not None
    assert (saved.generation.number, saved.generation.note) == (1, "first")
    assert saved.files == 4
    assert saved.problems == ()
    tree = project.tree
    assert tree[b"also-big"].kind is EntryKind.FILE  # the first in byte order
    assert tree[b"also-big"].mode == 0o600
    assert tree[b"big"] == Entry(b"big", EntryKind.HARD_LINK, target=b"also-big")
    assert tree[b"holes"].sparse
    assert tree[b"empty/folder"].kind is EntryKind.FOLDER
    assert project.content(tree[b"odd\n\xff"]) == b"odd"
    assert set(tree) == {
        os.fsencode(p.relative_to(project.work))
        for p in project.work.rglob("*")
        if ".scipion-cloud" not in p.parts
    }


def test_a_save_with_nothing_changed_does_not_even_ask_the_storage(project: Project) -> None:
    for n in range(30):
        project.write(f"d/{n}", b"%d" % n)
    project.write("p.sqlite").unlink()
    with closing(sqlite3.connect(project.work / "p.sqlite")) as c:
        c.execute("PRAGMA journal_mode = WAL")
        c.execute("CREATE TABLE t (x)")
        c.commit()
        assert project.save().files == 31
        time.sleep(0.1)
        project.save()  # what was written just before the first is looked at once more
        before, index = project.storage, project.copy.index
        project.repository = Repository(Untouchable(project.storage))
        assert project.save() == Saved(None, 0, 0, ())
        assert project.copy.index is index
        assert project.storage is before
        project.copy.close()
        project.copy = project.open()
        assert project.save() == Saved(None, 0, 0, ())


class Untouchable(Wrapper):
    """A storage that must not be used."""

    def _refuse(self, *_: object, **__: object) -> None:
        raise AssertionError("the storage was asked")

    children = walk = stat = read = write = create = move = remove = flush = _refuse  # type: ignore[assignment]


def test_what_has_not_changed_is_the_same_object(project: Project) -> None:
    project.write("a")
    project.write("b")
    (project.work / "l").symlink_to("a")
    project.save()
    old = project.copy.index.manifest
    project.write("b", b"changed")
    saved = project.save()
    assert saved.generation is not None
    new = project.copy.index.manifest
    assert saved.files == 1
    assert new[b"a"] is old[b"a"]
    assert new[b"l"] is old[b"l"]
    assert new[b"b"] != old[b"b"]


def test_a_change_of_the_same_size_and_time_is_saved(project: Project) -> None:
    path = project.write("f", b"12345")
    stat = path.stat()
    project.save()
    time.sleep(0.1)
    project.save()
    path.write_bytes(b"54321")
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert project.save().files == 1
    assert project.content(project.tree[b"f"]) == b"54321"


def test_touching_a_file_sends_no_bytes_and_moving_only_a_folders_time_is_no_generation(
    project: Project,
) -> None:
    path = project.write("d/f", b"same")
    project.save()
    os.utime(path, ns=(5, 5))
    saved = project.save()
    assert saved.generation is not None
    assert (saved.files, saved.bytes) == (0, 0)
    assert project.tree[b"d/f"].mtime_ns == 5
    project.write("d/temporary").unlink()
    assert project.save().generation is None
    path.chmod(0o755)
    assert project.save().generation is not None
    assert project.tree[b"d/f"].mode == 0o755
    assert project.tree[b"d"].mtime_ns == (project.work / "d").stat().st_mtime_ns


def test_links_mean_the_same_anywhere_else(project: Project) -> None:
    work, source = project.work, project.source
    project.write("Runs/1/f")
    alias = work.with_name("alias")
    alias.symlink_to(work)
    links = {
        "Runs/1/absolute": work / "Runs/1/f",
        "Runs/1/other": work / "Tmp/x",
        "Runs/1/alias": alias / "Runs/1/f",
        "Runs/1/root": work,
        "movie": source / "grid/m.mrc",
        "up": Path("../source/m.mrc"),
        "relative": Path("Runs/../Runs/1/f"),
        "etc": Path("/etc/passwd"),
        "climbs": Path("../../x"),
    }
    for name, target in links.items():
        (work / name).symlink_to(target)
    saved = project.save()
    told = {e.path.decode(): (e.kind, e.target.decode()) for e in project.tree.values() if e.target}
    link, from_source = EntryKind.LINK, EntryKind.SOURCE_LINK
    assert told == {
        "Runs/1/absolute": (link, "f"),
        "Runs/1/other": (link, "../../Tmp/x"),
        "Runs/1/alias": (link, "f"),
        "Runs/1/root": (link, "../.."),
        "movie": (from_source, "grid/m.mrc"),
        "up": (from_source, "m.mrc"),
        "relative": (link, "Runs/../Runs/1/f"),
        "etc": (link, "/etc/passwd"),
        "climbs": (link, "../../x"),
    }
    assert paths(saved.problems) == {b"etc", b"climbs"}


def test_hard_links_come_and_go(project: Project) -> None:
    b = project.write("b", b"shared")
    project.save()
    os.link(b, project.work / "a")
    project.save()
    assert project.tree[b"b"] == Entry(b"b", EntryKind.HARD_LINK, target=b"a")
    assert project.content(project.tree[b"a"]) == b"shared"
    (project.work / "a").unlink()
    project.save()
    assert project.tree[b"b"].kind is EntryKind.FILE
    assert set(project.tree) == {b"b"}


def test_kinds_change(project: Project) -> None:
    project.write("x/in", b"1")
    project.write("y", b"2")
    (project.work / "z").symlink_to("y")
    project.save()
    shutil.rmtree(project.work / "x")
    project.write("x", b"3")
    (project.work / "y").unlink()
    project.write("y/in", b"4")
    (project.work / "z").unlink()
    project.write("z", b"5")
    project.save()
    tree = project.tree
    assert {p: project.content(e) for p, e in tree.items() if e.kind is EntryKind.FILE} == {
        b"x": b"3",
        b"y/in": b"4",
        b"z": b"5",
    }


def test_an_emptied_working_copy_does_not_reach_the_storage(project: Project) -> None:
    for n in range(3):
        project.write(f"{n}")
    project.save()
    for n in range(3):
        (project.work / f"{n}").unlink()
    with pytest.raises(NeedsConfirmation, match="3 of the project's 3 files"):
        project.save()
    assert len(project.tree) == 3
    assert project.save(allow_deletions=True).generation is not None
    assert len(project.tree) == 0
    shutil.rmtree(project.work)
    with pytest.raises(SyncError, match="mounted"):
        project.save(allow_deletions=True)
    project.work.mkdir()
    with pytest.raises(SyncError, match="mounted"):
        project.save(allow_deletions=True)


def test_much_is_deleted_only_after_a_question_but_may_be_moved(project: Project) -> None:
    for n in range(60):
        project.write(f"old/{n}", b"%d" % n)
    project.save()
    (project.work / "old").rename(project.work / "new")
    assert project.save().generation is not None
    assert sum(e.kind is EntryKind.FILE for e in project.tree.values()) == 60
    for n in range(31):
        (project.work / f"new/{n}").unlink()
    with pytest.raises(NeedsConfirmation, match="31 of the project's 60"):
        project.save()
    assert project.save(max_deleted=0.6).generation is not None
    for n in range(31, 50):
        (project.work / f"new/{n}").unlink()
    assert project.save().generation is not None  # 19 of 29, but few


def test_progress_counts_all_of_it(project: Project) -> None:
    now = [0.0]
    progress = Progress(lambda: now[0])
    assert progress.seconds_left == 0.0  # an empty project
    for n in range(10):
        project.write(f"{n}", b"x" * 100)
    project.save(progress=progress)
    assert (progress.files_total, progress.files_done) == (10, 10)
    assert (progress.bytes_total, progress.bytes_done) == (1000, 1000)
    assert progress.seconds_left == 0.0


def test_the_rate_is_that_of_the_last_seconds() -> None:
    now = [0.0]
    progress = Progress(lambda: now[0])
    progress.expect(0, 10_000)
    assert progress.seconds_left is None
    for _ in range(60):
        now[0] += 1
        progress.add(0, 50 if now[0] <= 30 else 100)
    assert progress.rate == pytest.approx(100, rel=0.05)
    assert progress.seconds_left == pytest.approx((10_000 - 4500) / 100, rel=0.05)
    now[0] += 100  # nothing for long
    assert progress.rate == 0
    assert progress.seconds_left is None


def test_an_empty_project_is_saved_and_saved_again(project: Project) -> None:
    assert project.save().generation is None
    project.write("f")
    assert project.save().generation is not None
