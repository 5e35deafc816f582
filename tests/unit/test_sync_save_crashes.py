"""Saves that are cut off, come too late or meet a storage that fails: nothing lost."""

import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from sync_working import Project, Right

from scipion_cloud.errors import (
    Conflict,
    LeaseLost,
    StorageTransient,
)
from scipion_cloud.storage.wrapper import Wrapper
from scipion_cloud.sync import sending
from scipion_cloud.sync.copy import WorkingCopy
from scipion_cloud.sync.index import identity_of
from scipion_cloud.sync.save import save
from scipion_cloud.testing.memory import MemoryStorage


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Project]:
    project = Project(tmp_path)
    yield project
    project.copy.close()


def test_files_that_have_not_arrived_are_not_deleted(project: Project) -> None:
    for n in range(5):
        project.write(f"d/{n}", b"%d" % n)
    project.save()
    tree = project.tree
    shutil.rmtree(project.work)
    shutil.rmtree(project.copy.state)
    project.reopen()
    project.copy.begin(project.storage.url, 1, tree)
    (project.work / "d").mkdir()
    project.copy.arrived({tree[b"d"].path: identity_of((project.work / "d").lstat())})
    assert project.save().generation is None
    path = project.write("d/0", b"0")
    project.copy.arrived({tree[b"d/0"].path: identity_of(path.lstat())})
    project.write("mine", b"new")
    assert project.save().generation is not None
    assert set(project.tree) == {*tree, b"mine"}
    path.unlink()  # had arrived, and was deleted by a person
    project.save()
    assert set(project.tree) == {*tree, b"mine"} - {b"d/0"}
    project.reopen()
    assert project.save().generation is None


def test_a_lost_lease_stops_a_save_at_once(project: Project) -> None:
    for n in range(50):
        project.write(f"{n}", b"%d" % n)
    project.save()
    for n in range(50):
        project.write(f"{n}", b"changed %d" % n)

    class Expiring(Right):
        checks = 0

        def check(self) -> None:
            self.checks += 1
            self.lost = self.lost or self.checks > 20
            super().check()

    fence = Expiring()
    with pytest.raises(LeaseLost):
        save(project.copy, project.repository, fence, threads=2)
    assert fence.checks < 60
    assert project.repository.latest().number == 1  # type: ignore[union-attr]
    assert len(project.tree) == 50  # whole
    project.fence.epoch = 2
    assert project.save().generation is not None
    assert all(project.content(e).startswith(b"changed") for e in project.tree.values())


def test_a_project_changed_by_somebody_else_is_left_alone(project: Project, tmp_path: Path) -> None:
    project.write("f", b"mine")
    project.save()
    (tmp_path / "there").mkdir()
    other = Project(tmp_path / "there", project.storage)
    other.fence = Right(epoch=2, deployment="dep-2")
    other.copy.begin(project.storage.url, 1, project.tree)
    other.write("f", b"theirs")
    other.copy.complete()
    other.save()
    other.copy.close()
    project.write("f", b"mine again")
    with pytest.raises(Conflict, match="generation 2, by ana on host"):
        project.save()
    assert project.content(project.tree[b"f"]) == b"theirs"


@pytest.mark.parametrize("lost", ["nothing", "the prepared index"])
def test_a_crash_between_the_commit_and_the_index(
    project: Project, monkeypatch: pytest.MonkeyPatch, lost: str
) -> None:
    for n in range(10):
        project.write(f"{n}", b"%d" % n)
    project.save()
    project.write("new", b"new")
    project.write("0", b"changed")
    (project.work / "1").unlink()

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(WorkingCopy, "committed", killed)
        with pytest.raises(KeyboardInterrupt):
            project.save()
    tree = project.tree
    assert set(tree) == {b"new", *(b"%d" % n for n in range(10) if n != 1)}
    project.reopen()
    if lost != "nothing":
        (project.copy.state / "index.next").write_bytes(b"")
    writes: list[str] = []
    monkeypatch.setattr(MemoryStorage, "write", lambda _self, key, *_, **__: writes.append(key))
    saved = project.save()
    assert saved.generation is None
    assert saved.files == 0
    assert writes == []
    assert project.copy.index.generation == 2
    assert project.copy.is_same(project.storage.url, 2)
    monkeypatch.undo()
    (project.work / "new").unlink()
    project.save()
    assert set(project.tree) == set(tree) - {b"new"}


def test_a_first_save_that_was_killed_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Dying(Wrapper):
        """A storage whose writer is killed."""

        writes = 0
        last = 1 << 30

        def write(self, key: str, content: object, **options: object) -> None:
            if not key.startswith(".scipion-cloud"):
                if self.writes >= self.last:
                    raise KeyboardInterrupt
                self.writes += 1
            super().write(key, content, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(sending, "CHECKPOINT", 0)
    storage = Dying(MemoryStorage())
    project = Project(tmp_path, storage)
    for n in range(100):
        project.write(f"{n}", b"%d" % n)
    time.sleep(0.1)
    storage.last = 60
    with pytest.raises(KeyboardInterrupt):
        project.save(threads=1)
    project.reopen()
    storage.last = 80
    with pytest.raises(KeyboardInterrupt):
        project.save(threads=1)
    project.reopen()
    project.write("5", b"changed meanwhile")
    storage.last = 1 << 30
    assert project.save(threads=3).generation is not None
    assert storage.writes <= 103  # and not 240
    assert {p: project.content(e) for p, e in project.tree.items()} == {
        b"%d" % n: b"%d" % n if n != 5 else b"changed meanwhile" for n in range(100)
    }
    project.copy.close()


def test_a_storage_that_fails_leaves_the_last_generation_and_the_next_save_succeeds(tmp_path: Path) -> None:
    class Failing(Wrapper):
        fails = False

        def write(self, key: str, content: object, **options: object) -> None:
            if self.fails and key == "7":
                raise StorageTransient("no answer")
            super().write(key, content, **options)  # type: ignore[arg-type]

    storage = Failing(MemoryStorage())
    project = Project(tmp_path, storage)
    for n in range(20):
        project.write(f"{n}", b"%d" % n)
    project.save()
    for n in range(20):
        project.write(f"{n}", b"new %d" % n)
    storage.fails = True
    with pytest.raises(StorageTransient):
        project.save()
    assert project.content(project.tree[b"3"]) == b"3"
    storage.fails = False
    project.save()
    assert project.content(project.tree[b"7"]) == b"new 7"
    project.copy.close()
