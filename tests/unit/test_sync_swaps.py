"""Files that become folders, and second names that become files of their own, in the middle of a save."""

import errno
import os
from pathlib import Path

import pytest
from sync_project import Held, begin, contents, fetched, tree
from test_sync_save import Project

from scipion_cloud.errors import StorageError
from scipion_cloud.storage import open_storage
from scipion_cloud.sync import capture as capturing
from scipion_cloud.sync import sending
from scipion_cloud.sync.copy import WorkingCopy
from scipion_cloud.sync.layout import STRAYS
from scipion_cloud.sync.manifest import Manifest
from scipion_cloud.sync.repository import Repository


@pytest.mark.parametrize("deep", [b"a/inside", b"a/b/inside"])
def test_a_save_that_made_a_folder_of_a_file_is_killed_and_goes_on(tmp_path: Path, deep: bytes) -> None:
    repository = Repository(open_storage(tmp_path.as_uri()))
    begin(repository, old := tree({b"a": b"old"}), {b"a": b"old"}).commit(old)
    files = {deep: b"new", b"other": b"new"}
    manifest = tree(files)
    killed = begin(repository, manifest, files)
    again = begin(Repository(repository.storage), manifest, files, Held(2), resume=killed.id)
    assert again.resumed
    made = again.commit(manifest)
    assert contents(repository, made.number) == files


@pytest.mark.parametrize("how", ["replaced", "removed", "both replaced"])
def test_a_second_name_of_a_file_that_is_replaced_before_it_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    project = Project(tmp_path)
    first = project.write("a", b"old")
    os.link(first, project.work / "b")
    project.save()
    first.write_bytes(b"newer")
    real = capturing.capture
    happened = []

    def race(copy: WorkingCopy, path: bytes, **options: object) -> object:
        if not happened:
            happened.append(path)
            for name in {"replaced": ["a"], "removed": [], "both replaced": ["a", "b"]}[how]:
                project.write("another", f"of {name}".encode()).replace(project.work / name)
            if how == "removed":
                first.unlink()
        return real(copy, path, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(sending, "capture", race)
    project.save()
    found = project.tree
    b = found[b"b"]
    expected = b"of b" if how == "both replaced" else b"newer"
    assert project.content(found[b.target] if b.target else b) == expected
    project.save()
    found = project.tree
    assert project.content(found[b"b"]) == expected
    assert (b"a" in found) is (how != "removed")
    project.copy.close()


@pytest.mark.parametrize("replaced", [False, True])
def test_second_names_that_cannot_be_read_are_what_they_were(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, replaced: bool
) -> None:
    project = Project(tmp_path)
    first = project.write("a", b"old")
    os.link(first, project.work / "b")
    project.save()
    first.write_bytes(b"newer")
    os.link(first, project.work / "c")
    real = capturing.capture

    def refuse(copy: WorkingCopy, path: bytes, **options: object) -> object:
        if path == b"a" and replaced:
            project.write("another", b"replaced").replace(first)
            return real(copy, path, **options)  # type: ignore[arg-type]
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(sending, "capture", refuse)
    saved = project.save()
    assert {p.path for p in saved.problems} == {b"b", b"c"} | ({b"a"} if not replaced else set())
    found = latest(project)
    assert fetched(project.repository, found[b"a"]) == (b"replaced" if replaced else b"old")
    assert fetched(project.repository, found[found[b"b"].target or b"b"]) == b"old"
    assert b"c" not in found
    monkeypatch.undo()
    project.save()
    found = latest(project)
    assert [fetched(project.repository, found[found[n].target or n]) for n in (b"b", b"c")] == [
        b"newer",
        b"newer",
    ]
    project.copy.close()


def latest(project: Project) -> Manifest:
    """The last generation."""
    return project.repository.manifest(project.repository.generations()[0].number)


@pytest.mark.parametrize("strange", ["a/b/stray", "d"])
def test_what_a_writer_without_a_lease_has_put_in_the_way_is_set_aside(tmp_path: Path, strange: str) -> None:
    storage = open_storage(tmp_path.as_uri())
    repository = Repository(storage)
    files = {b"a": b"a", b"d/e/f": b"f", b"d/g": b"g"}
    begin(repository, first := tree(files), files).commit(first)
    for path, entry in first.items():
        if path != b"d/g" and entry.digest:
            storage.move(os.fsdecode(path), f".scipion-cloud/kept/{entry.digest.hex()}")
    if strange == "d":
        storage.move("d/g", f".scipion-cloud/kept/{first[b'd/g'].digest.hex()}")
        storage.remove_folder("d/e")
        storage.remove_folder("d")
    storage.write(strange, b"stray")
    files = {b"a": b"new", b"d/e/f": b"new", b"d/h": b"h"}
    second = tree(files)
    with pytest.raises(StorageError):
        begin(repository, second, files)
    made = begin(repository, second, files).commit(second)
    assert contents(repository, made.number) == files
    assert [storage.read_bytes(s.key) for s in storage.walk(STRAYS)] == [b"stray"]


def test_a_file_that_has_not_arrived_is_kept_though_something_new_makes_up_for_it(tmp_path: Path) -> None:
    project = Project(tmp_path)
    late = project.write("late", b"large")
    project.save()
    late.unlink()
    del project.copy.index.identities[b"late"]  # it has never been here
    (project.work / "folder").mkdir()
    project.save()
    assert set(project.tree) == {b"folder", b"late"}
    project.copy.close()
