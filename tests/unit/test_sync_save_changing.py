"""Saves of what changes, is locked or cannot be read meanwhile: nothing half, nothing lost."""

import errno
import os
import socket
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from sync_working import Project, paths

from scipion_cloud.storage import Storage
from scipion_cloud.storage.wrapper import Wrapper
from scipion_cloud.sync import capture as capturing
from scipion_cloud.sync import sending
from scipion_cloud.sync.copy import WorkingCopy
from scipion_cloud.testing.memory import MemoryStorage


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Project]:
    project = Project(tmp_path)
    yield project
    project.copy.close()


def test_what_cannot_be_read_keeps_its_last_saved_version(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    project.write("closed/in", b"kept")
    file = project.write("file", b"kept too")
    project.write("other")
    project.save()
    tree = project.tree
    file.write_bytes(b"changed, but not readable")
    project.write("new")
    real = os.open

    def refuse(path: object, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
        if path in (b"closed", b"file", b"new"):
            raise PermissionError(errno.EACCES, "Permission denied")
        return real(path, flags, mode, dir_fd=dir_fd)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(os, "open", refuse)
        saved = project.save()
    assert paths(saved.problems) == {b"closed", b"file", b"new"}
    assert saved.generation is None
    assert project.tree == tree
    assert project.save().files == 2  # tried again
    assert project.content(project.tree[b"closed/in"]) == b"kept"


def test_a_log_beside_what_nobody_can_read_is_not_taken_for_a_file(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    with closing(sqlite3.connect(project.work / "p.db", isolation_level=None)) as c:
        c.execute("PRAGMA journal_mode = WAL")
        c.execute("CREATE TABLE t (x)")
        project.save()
        tree = project.tree
        c.execute("INSERT INTO t VALUES (7)")
        real = os.open

        def refuse(path: object, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
            if path == b"p.db":
                raise OSError(errno.EIO, "Input/output error")
            return real(path, flags, mode, dir_fd=dir_fd)  # type: ignore[arg-type]

        with monkeypatch.context() as patch:
            patch.setattr(os, "open", refuse)
            saved = project.save()
        assert paths(saved.problems) == {b"p.db"}
        assert all(problem.unsaved for problem in saved.problems)
        assert project.tree == tree
        assert project.save().files == 1
    assert b"p.db-wal" not in project.tree


def test_a_file_that_vanishes_while_it_is_saved(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    path = project.write("f", b"1")
    project.write("g", b"1")
    project.save()
    path.write_bytes(b"2")
    project.write("h", b"2")
    real = capturing.capture

    def vanish(copy: WorkingCopy, name: bytes, **options: object) -> object:
        if name in (b"f", b"h"):
            (project.work / os.fsdecode(name)).unlink(missing_ok=True)
        return real(copy, name, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(sending, "capture", vanish)
    saved = project.save()
    assert paths(saved.problems) == {b"f", b"h"}
    monkeypatch.undo()
    assert set(project.tree) == {b"f", b"g"}
    project.save()
    assert set(project.tree) == {b"g"}


class Slow(Wrapper):
    """A storage during whose writes something happens."""

    def __init__(self, inner: Storage) -> None:
        super().__init__(inner)
        self.happens: dict[str, list[object]] = {}

    def write(self, key: str, content: object, **options: object) -> None:
        if self.happens.get(key):
            self.happens[key].pop(0)()  # type: ignore[operator]
        super().write(key, content, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("how", ["rewritten", "grown", "cut"])
def test_a_large_file_changed_while_it_is_sent_is_sent_again(tmp_path: Path, how: str) -> None:
    storage = Slow(MemoryStorage())
    project = Project(tmp_path, storage)
    path = project.write("movie", os.urandom(3 << 20))
    os.utime(path, ns=(1, 1))

    def change() -> None:
        if how == "cut":
            os.truncate(path, 2 << 20)
            return
        with path.open("ab" if how == "grown" else "r+b") as file:
            file.write(b"changed")

    storage.happens["movie"] = [change]
    saved = project.save()
    assert saved.problems == ()
    assert project.content(project.tree[b"movie"]) == path.read_bytes()
    project.copy.close()


def test_a_file_that_turns_unstable_after_it_was_sent_keeps_its_old_version(tmp_path: Path) -> None:
    storage = Slow(MemoryStorage())
    project = Project(tmp_path, storage)
    path = project.write("movie", b"old" * (1 << 20))
    project.save()
    old = project.tree
    path.write_bytes(b"new" * (1 << 20))
    os.utime(path, ns=(1, 1))
    stop = threading.Event()

    def scribble() -> None:
        def work() -> None:
            n = 0
            while not stop.is_set():
                n += 1
                with path.open("r+b") as file:
                    file.write(b"%d" % n)
                os.utime(path, ns=(n, n))

        thread = threading.Thread(target=work, daemon=True)
        thread.start()
        crew.append(thread)
        time.sleep(0.05)

    crew: list[threading.Thread] = []
    storage.happens["movie"] = [scribble]
    try:
        saved = project.save()
    finally:
        stop.set()
        for thread in crew:
            thread.join()
    assert crew
    if saved.problems:  # else the writer was slow enough for one whole copy
        assert paths(saved.problems) == {b"movie"}
        assert project.tree[b"movie"] == old[b"movie"]
    project.save()
    assert project.content(project.tree[b"movie"]) == path.read_bytes()
    project.copy.close()


def test_databases(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(capturing, "PATIENCE", 0.2)
    path = project.work / "project.sqlite"
    with closing(sqlite3.connect(path, isolation_level=None)) as c:
        c.execute("PRAGMA journal_mode = WAL")
        c.execute("CREATE TABLE t (x)")
        project.save()
        assert set(project.tree) == {b"project.sqlite"}  # not its companions
        time.sleep(0.1)
        project.save()
        digest = project.tree[b"project.sqlite"].digest
        stat = path.stat()
        c.execute("INSERT INTO t VALUES (1)")
        assert path.stat().st_mtime_ns == stat.st_mtime_ns  # only the log has changed
        assert project.save().files == 1
        assert project.tree[b"project.sqlite"].digest != digest
    project.save()
    assert set(project.tree) == {b"project.sqlite"}


def test_a_database_locked_for_long_is_saved_the_next_time(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = capturing.capture

    def hurried(copy: WorkingCopy, path: bytes, **options: object) -> object:
        return real(copy, path, **{"patience": 0.2, **options})  # type: ignore[arg-type]

    monkeypatch.setattr(sending, "capture", hurried)
    with closing(sqlite3.connect(project.work / "p.db", isolation_level=None)) as c:
        c.execute("CREATE TABLE t (x)")
        project.write("other")
        project.save()
        tree = project.tree
        c.execute("INSERT INTO t VALUES (1)")
        c.execute("BEGIN EXCLUSIVE")
        project.write("other", b"changed")
        saved = project.save()
        assert saved.generation is not None
        assert paths(saved.problems) == {b"p.db"}
        assert project.tree[b"p.db"] == tree[b"p.db"]
        c.execute("COMMIT")
    saved = project.save()
    assert saved.problems == ()
    assert project.tree[b"p.db"].digest != tree[b"p.db"].digest


def test_what_only_looks_like_a_database_is_saved_with_what_is_beside_it(project: Project) -> None:
    bad = b"SQLite format 3\0" + b"rubbish" * 1000
    project.write("bad.db", bad)
    project.write("bad.db-wal", b"log")
    project.write("text-journal", b"no database has this name")
    for _ in range(3):
        project.save()
        tree = project.tree
        assert {p: project.content(e) for p, e in tree.items()} == {
            b"bad.db": bad,
            b"bad.db-wal": b"log",
            b"text-journal": b"no database has this name",
        }
        time.sleep(0.1)
    project.write("bad.db-wal", b"another log")
    project.save()
    assert project.content(project.tree[b"bad.db-wal"]) == b"another log"


def test_sockets_do_not_stop_a_save(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(project.work)
    project.write("f")
    with socket.socket(socket.AF_UNIX) as s:
        s.bind("socket")
        saved = project.save()
    assert paths(saved.problems) == {b"socket"}
    assert set(project.tree) == {b"f"}
