"""Working copies: what they know of themselves, also after a crash at any moment."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from scipion_cloud.errors import SyncError
from scipion_cloud.sync.copy import WorkingCopy
from scipion_cloud.sync.entry import Entry, EntryKind
from scipion_cloud.sync.index import UNSURE, Index, identity_of
from scipion_cloud.sync.manifest import Manifest

URL = "file:///project"
A = Entry(b"a", EntryKind.FILE, size=1, digest=b"a" * 32)
B = Entry(b"b", EntryKind.FILE, size=1, digest=b"b" * 32)


class Copies:
    """The working copy as one process after the other finds it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.last: WorkingCopy | None = None

    def __call__(self) -> WorkingCopy:
        self.close()
        self.last = WorkingCopy(self.folder / "work", self.folder / ".work.agent")
        return self.last

    def close(self) -> None:
        if self.last is not None:
            self.last.close()


@pytest.fixture
def copies(tmp_path: Path) -> Iterator[Copies]:
    copies = Copies(tmp_path)
    yield copies
    copies.close()


def restored(copies: Copies) -> WorkingCopy:
    """A working copy of generation 1, with the files a and b."""
    copy = copies()
    copy.begin(URL, 1, Manifest([A, B]))
    for entry in (A, B):
        path = copy.path / entry.path.decode()
        path.write_bytes(entry.path)
        copy.arrived({entry.path: identity_of(path.lstat())})
    copy.complete()
    return copy


def test_one_restored_whole_is_the_same(copies: Copies) -> None:
    restored(copies)
    copy = copies()
    assert copy.is_same(URL, 1)
    assert copy.has(A)
    assert copy.has(B)
    assert not copy.is_same(URL, 2)
    assert not copy.is_same("file:///other", 1)
    (copy.path / "a").write_bytes(b"longer")
    assert not copy.has(A)


def test_a_restore_that_was_killed_goes_on(copies: Copies) -> None:
    copy = copies()
    copy.begin(URL, 1, Manifest([A, B]))
    (copy.path / "a").write_bytes(b"a")
    copy.arrived({A.path: identity_of((copy.path / "a").lstat())})
    (copy.path / "b").write_bytes(b"b")  # killed before it could be said to have arrived
    for _ in range(3):  # and killed again
        copy = copies()
        assert not copy.is_same(URL, 1)
        assert copy.has(A)
        assert not copy.has(B)
        copy.begin(URL, 1, Manifest([A, B]))
        assert copy.has(A)
        assert not copy.has(B)


def test_arrivals_from_before_the_machine_was_started_are_not_believed(
    copies: Copies, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = copies()
    copy.begin(URL, 1, Manifest([A, B]))
    (copy.path / "a").write_bytes(b"a")
    copy.arrived({A.path: identity_of((copy.path / "a").lstat())})
    (tmp_path / "boot").write_text("next")
    monkeypatch.setattr("scipion_cloud.sync.journal.BOOT", tmp_path / "boot")
    assert not copies().has(A)


def test_an_emptied_or_replaced_folder_is_not_taken_for_the_project(copies: Copies) -> None:
    copy = restored(copies)
    assert copy.check(URL).generation == 1
    with pytest.raises(SyncError, match="not of file:///other"):
        copy.check("file:///other")
    aside = copy.path.with_name("aside")
    copy.path.rename(aside)
    with pytest.raises(SyncError, match="mounted"):
        copy.check(URL)  # it is not there at all
    copy.path.mkdir()
    with pytest.raises(SyncError, match="mounted"):
        copy.check(URL)  # an empty one, as when the disk is not mounted
    assert not copy.is_same(URL, 1)
    other = WorkingCopy(aside.with_name("other"), aside.with_name("other-state"))
    other.begin(URL, 1, Manifest())
    other.complete()
    other.close()
    shutil.copytree(other.path, copy.path, dirs_exist_ok=True)
    with pytest.raises(SyncError, match="replaced"):
        copy.check(URL)  # another working copy, of the same project even
    shutil.rmtree(copy.path)
    aside.rename(copy.path)
    assert copy.is_same(URL, 1)
    shutil.rmtree(copy.state)
    with pytest.raises(SyncError, match="Nothing is known"):
        copies().check(URL)


def test_the_folder_is_looked_at_anew_when_another_one_has_its_path(copies: Copies) -> None:
    copy = restored(copies)
    assert copy.lstat(b"a").st_size == 1
    moved = copy.path.with_name("moved")
    copy.path.rename(moved)
    shutil.copytree(moved, copy.path)
    (copy.path / "a").write_bytes(b"another")
    copy.check(URL)
    assert copy.lstat(b"a").st_size == 7


def test_for_another_generation_what_differs_is_not_here(copies: Copies) -> None:
    copy = restored(copies)
    changed = B._replace(digest=b"c" * 32)
    copy.begin(URL, 2, Manifest([A, changed]))
    assert copy.has(A)
    assert not copy.has(changed)
    assert copy.index.identities[b"b"] == UNSURE
    assert not copy.is_same(URL, 2)


def test_a_damaged_index_is_no_proof(copies: Copies) -> None:
    copy = restored(copies)
    (copy.state / "index").write_bytes(b"rubbish")
    copy = copies()
    assert not copy.is_same(URL, 1)
    with pytest.raises(SyncError):
        _ = copy.index
    copy.begin(URL, 1, Manifest([A, B]))  # starts from nothing
    assert not copy.has(A)


@pytest.mark.parametrize("killed_at", ["prepare", "commit", "mark", "rename"])
def test_a_save_killed_around_its_commit(
    copies: Copies, monkeypatch: pytest.MonkeyPatch, killed_at: str
) -> None:
    copy = restored(copies)
    new = Index(URL, None, Manifest([A]), {b"a": copy.index.identities[b"a"]}, "save-2")
    copy.prepare(new)
    if killed_at not in ("prepare", "commit"):

        def killed(*_: object) -> None:
            raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            if killed_at == "mark":
                patch.setattr(copy, "_mark", killed)
            else:
                patch.setattr(Path, "replace", killed_if_index(Path.replace))
            with pytest.raises(KeyboardInterrupt):
                copy.committed(new, 2)
    copy = copies()
    assert copy.has_prepared
    assert not copy.is_same(URL, 2)
    assert copy.index.manifest == Manifest([A, B])
    if killed_at == "prepare":  # the storage does not know the save
        assert not copy.catch_up(1, "save-1")
        assert not copy.catch_up(1, "")
        return
    assert copy.catch_up(2, "save-2")
    for later in (copy, copies()):
        assert later.is_same(URL, 2)
        assert later.has(A)
        assert later.index.manifest == Manifest([A])
        assert not later.has_prepared


def killed_if_index(real: object) -> object:
    """A rename that is not carried out for the index."""

    def replace(self: Path, target: Path) -> object:
        if self.name == "index.next":
            raise KeyboardInterrupt
        return real(self, target)  # type: ignore[operator]

    return replace


def test_files_that_arrive_while_a_save_is_made_are_not_forgotten(copies: Copies) -> None:
    copy = copies()
    copy.begin(URL, 1, Manifest([A, B]))
    prepared = Index(URL, None, Manifest([A, B]), dict(copy.index.identities), "save-2")
    copy.prepare(prepared)
    (copy.path / "b").write_bytes(b"b")
    copy.arrived({B.path: identity_of((copy.path / "b").lstat())})
    copy.committed(prepared, 2)
    assert copy.has(B)
    assert copies().has(B)


def test_temporary_files_of_a_crash_are_removed(copies: Copies) -> None:
    copy = restored(copies)
    (copy.tmp / "left").write_bytes(b"x")
    with copy.temporary() as (path, file):
        file.write(b"y")
        assert path.parent == copy.tmp
    assert not path.exists()
    copy.clean()
    assert not list(copy.tmp.iterdir())
