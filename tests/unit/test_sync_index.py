"""The index of a working copy and the journals beside it."""

import os
from pathlib import Path

import pytest

from scipion_cloud.errors import SyncError
from scipion_cloud.sync.entry import Entry, EntryKind
from scipion_cloud.sync.index import UNSURE, Index, identity_of, is_moved, is_settled
from scipion_cloud.sync.journal import Journal
from scipion_cloud.sync.manifest import Manifest

A = Entry(b"a", EntryKind.FILE, size=1, digest=b"a" * 32)
B = Entry(b"b\xff\n", EntryKind.FILE, size=2, digest=b"b" * 32)
D = Entry(b"d", EntryKind.FOLDER, 0o755, 1)


def test_it_comes_back_from_the_disk(tmp_path: Path) -> None:
    index = Index("file:///x", 41, Manifest([A, B, D]), {b"a": b"1" * 32, b"d": UNSURE}, "save")
    index.write(tmp_path / "index")
    back = Index.read(tmp_path / "index")
    assert vars(back) == vars(index)


def test_one_cut_off_is_refused_and_the_old_one_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Index("u", 1, Manifest([A])).write(tmp_path / "index")

    def full(_fd: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="space"):
        Index("u", 2, Manifest([A, B])).write(tmp_path / "index")
    assert Index.read(tmp_path / "index").generation == 1
    data = (tmp_path / "index").read_bytes()
    (tmp_path / "index").write_bytes(data[:-1])
    with pytest.raises(SyncError):
        Index.read(tmp_path / "index")


def test_any_change_changes_the_identity(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_bytes(b"12345")
    before = path.stat()
    while path.stat().st_ctime_ns == before.st_ctime_ns:  # the clock of the file system ticks slowly
        path.write_bytes(b"54321")
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    after = path.stat()
    assert (after.st_size, after.st_mtime_ns, after.st_ino) == (
        before.st_size,
        before.st_mtime_ns,
        before.st_ino,
    )
    assert identity_of(after) != identity_of(before)


def test_a_renamed_file_is_known_again(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"x")
    (tmp_path / "other").write_bytes(b"y")
    old, other = (identity_of((tmp_path / n).stat()) for n in ("a", "other"))
    (tmp_path / "a").rename(tmp_path / "b")
    moved = is_moved([identity_of((tmp_path / "b").stat())])
    assert moved(old)
    assert not moved(other)
    assert not moved(b"")


def test_a_fresh_file_is_not_settled(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"x")
    stat = (tmp_path / "a").stat()
    assert not is_settled(identity_of(stat), stat.st_ctime_ns)
    assert is_settled(identity_of(stat), stat.st_ctime_ns + 10**9)


def test_another_generation_keeps_what_is_the_same() -> None:
    index = Index("u", 1, Manifest([A, B, D]), {b"a": b"1" * 32, B.path: b"2" * 32, b"d": b"3" * 32})
    later = Manifest([A, B._replace(digest=b"c" * 32), D._replace(mtime_ns=9), A._replace(path=b"new")])
    assert index.rebased("u", 2, later).identities == {b"a": b"1" * 32, B.path: UNSURE, b"d": b"3" * 32}
    assert index.rebased("u", 2, later, saved_here=True).identities[b"new"] == UNSURE
    assert index.rebased("elsewhere", 2, later).identities == {}


def test_a_journal_is_read_again_up_to_where_it_was_cut(tmp_path: Path) -> None:
    head = {"url": "u", "index": "1"}
    journal = Journal(tmp_path / "j")
    journal.start(head)
    for n in range(5):
        journal.add(b"path\xff%d" % n, b"i" * 32)
    journal.close()
    data = (tmp_path / "j").read_bytes()
    for size in range(len(data)):
        (tmp_path / "j").write_bytes(data[:size])
        rows = list(Journal(tmp_path / "j").read(head))
        assert rows == [[b"path\xff%d" % n, b"i" * 32] for n in range(len(rows))]
    assert len(rows) == 4
    again = Journal(tmp_path / "j")  # which ends in half a row
    again.start(head)
    again.add(b"more")
    again.close()
    assert list(Journal(tmp_path / "j").read(head))[3:] == [[b"path\xff3", b"i" * 32], [b"more"]]


def test_a_journal_of_something_else_or_from_before_the_start_is_not_read(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "j")
    journal.start({"index": "1"})
    journal.add(1)
    journal.close()
    assert list(journal.read({"index": "1"})) == [[1]]
    assert list(journal.read({"index": "2"})) == []
    other = tmp_path / "boot"
    other.write_text("another start of the machine\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("scipion_cloud.sync.journal.BOOT", other)
        assert list(journal.read({"index": "1"})) == []
    journal.start({"index": "2"})
    journal.close()
    assert list(journal.read({"index": "1"})) == []
