"""Files taken at one moment: live databases, growing logs, large files that change, holes."""

import os
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from blake3 import blake3

from scipion_cloud.sync import databases
from scipion_cloud.sync.capture import SMALL, Captured, Unstable, capture
from scipion_cloud.sync.copy import WorkingCopy
from scipion_cloud.sync.databases import Busy
from scipion_cloud.sync.index import UNSURE, identity_of


@pytest.fixture
def copy(tmp_path: Path) -> Iterator[WorkingCopy]:
    (tmp_path / "work").mkdir()
    copy = WorkingCopy(tmp_path / "work", tmp_path / "state")
    yield copy
    copy.close()
    assert not list(copy.tmp.iterdir())  # nothing is left behind


def content_of(taken: Captured) -> bytes:
    """The bytes of a capture, which are as many and of the digest that its entry says."""
    if isinstance(taken.content, bytes):
        data = taken.content
    else:
        assert taken.content.tell() == 0
        data = taken.content.read()
    assert len(data) == taken.entry.size
    assert blake3(data).digest() == taken.entry.digest
    return data


def aged(path: Path, seconds: float = 60) -> None:
    """Let a file look as if nobody had written it for a while."""
    then = time.time_ns() - int(seconds * 1e9)
    os.utime(path, ns=(then, then))


def rows(database: bytes, tmp_path: Path) -> list[int]:
    """What is in a database's table `t`, which is whole."""
    path = tmp_path / "saved.db"
    path.write_bytes(database)
    with closing(sqlite3.connect(path)) as c:
        assert c.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        found = [x for (x,) in c.execute("SELECT x FROM t ORDER BY x")]
    for left in tmp_path.glob("saved.db*"):
        left.unlink()
    return found


WRITER = """
import sqlite3, sys
c = sqlite3.connect(sys.argv[1], isolation_level=None, timeout=60)
c.execute("PRAGMA synchronous = OFF")
n = 0
while True:
    c.execute("BEGIN IMMEDIATE")
    c.executemany("INSERT INTO t VALUES (?, ?)", [(n, b"x" * 300), (n + 1, b"y" * 3000)])
    c.execute("UPDATE t SET y = y || 'z' WHERE x % 7 = 3")
    c.execute("COMMIT")
    n += 2
    print(n, flush=True)
"""


@pytest.mark.parametrize("mode", ["wal", "delete", "truncate", "persist"])
def test_a_database_that_another_process_writes(copy: WorkingCopy, tmp_path: Path, mode: str) -> None:
    path = copy.path / "project.sqlite"
    with closing(sqlite3.connect(path)) as c:
        c.execute(f"PRAGMA journal_mode = {mode}")
        c.execute("CREATE TABLE t (x INTEGER, y BLOB)")
        c.commit()
    writer = subprocess.Popen([sys.executable, "-c", WRITER, path], stdout=subprocess.PIPE, text=True)
    try:
        assert writer.stdout is not None
        for _ in range(8):
            acknowledged = int(writer.stdout.readline())
            with capture(copy, b"project.sqlite", patience=120) as taken:
                assert taken.database
                found = rows(content_of(taken), tmp_path)
            assert found == list(range(len(found)))
            assert len(found) % 2 == 0  # never half of a transaction
            assert len(found) >= acknowledged  # and never less than what was committed
    finally:
        writer.kill()
        writer.communicate()


def test_a_journal_that_a_crash_has_left_is_rolled_back(copy: WorkingCopy, tmp_path: Path) -> None:
    crash = """
import os, sqlite3, sys
c = sqlite3.connect(sys.argv[1])
c.execute("CREATE TABLE t (x INTEGER, y BLOB)")
c.executemany("INSERT INTO t VALUES (?, ?)", [(n, b"x" * 900) for n in range(100)])
c.commit()
c.execute("PRAGMA cache_size = 1")
c.execute("UPDATE t SET x = x + 1000, y = y || 'z'")
os._exit(0)
"""
    subprocess.run([sys.executable, "-c", crash, copy.path / "p.db"], check=True)
    journal = copy.path / "p.db-journal"
    assert journal.stat().st_size > 0
    with closing(sqlite3.connect(f"file:{copy.path / 'p.db'}?immutable=1", uri=True)) as c:
        torn = c.execute("SELECT count(*) FROM t WHERE x >= 1000").fetchone()
    assert torn != (0,)  # the file alone has half of what was never committed
    with capture(copy, b"p.db") as taken:
        assert rows(content_of(taken), tmp_path) == list(range(100))


def test_a_write_ahead_log_that_a_crash_has_left_is_in_the_copy(copy: WorkingCopy, tmp_path: Path) -> None:
    crash = """
import os, sqlite3, sys
c = sqlite3.connect(sys.argv[1])
c.execute("PRAGMA journal_mode = WAL")
c.execute("CREATE TABLE t (x INTEGER)")
c.execute("INSERT INTO t VALUES (7)")
c.commit()
os._exit(0)
"""
    subprocess.run([sys.executable, "-c", crash, copy.path / "p.db"], check=True)
    with capture(copy, b"p.db") as taken:
        assert rows(content_of(taken), tmp_path) == [7]


def test_a_database_locked_for_long_is_told(copy: WorkingCopy) -> None:
    with closing(sqlite3.connect(copy.path / "p.db", isolation_level=None)) as c:
        c.execute("CREATE TABLE t (x)")
        c.execute("BEGIN EXCLUSIVE")
        with pytest.raises(Busy, match="locked"), capture(copy, b"p.db", patience=0.2):
            pass
        c.execute("COMMIT")
    with capture(copy, b"p.db", patience=60) as taken:
        assert taken.database


def test_a_database_that_cannot_be_opened_now_is_not_taken_raw(
    copy: WorkingCopy, monkeypatch: pytest.MonkeyPatch
) -> None:
    with closing(sqlite3.connect(copy.path / "p.db", isolation_level=None)) as c:
        c.execute("CREATE TABLE t (x)")

    def fail(*_: object, **__: object) -> None:
        error = sqlite3.OperationalError("unable to open database file")
        error.sqlite_errorname = "SQLITE_CANTOPEN"
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(databases.sqlite3, "connect", fail)
        with pytest.raises(OSError, match="SQLite cannot read it"), capture(copy, b"p.db"):
            pass
    with capture(copy, b"p.db") as taken:
        assert taken.database


@pytest.mark.parametrize(
    "content",
    [
        b"SQLite format 3\0",
        b"SQLite format 3\0" + b"no database" * 1000,
        b"SQLite format 3\0" + bytes(5000),
        b"SQLite",
        b"",
    ],
)
def test_what_only_looks_like_a_database_is_a_file(copy: WorkingCopy, content: bytes) -> None:
    (copy.path / "p.db").write_bytes(content)
    with capture(copy, b"p.db") as taken:
        assert not taken.database
        assert content_of(taken) == content


def test_a_database_under_an_odd_name(copy: WorkingCopy, tmp_path: Path) -> None:
    name = b"a b?mode=memory#%41\n\xff.db"
    with closing(sqlite3.connect(copy.path / "plain.db")) as c:
        c.execute("CREATE TABLE t (x)")
        c.execute("INSERT INTO t VALUES (1)")
        c.commit()
    (copy.path / "plain.db").rename(copy.path / os.fsdecode(name))
    with capture(copy, name) as taken:
        assert taken.database
        assert rows(content_of(taken), tmp_path) == [1]


def test_the_same_database_gives_the_same_bytes(copy: WorkingCopy) -> None:
    with closing(sqlite3.connect(copy.path / "p.db")) as c:
        c.execute("PRAGMA journal_mode = WAL")
        c.execute("CREATE TABLE t (x)")
        c.commit()
        digests = set()
        for _ in range(3):
            with capture(copy, b"p.db") as taken:
                digests.add(taken.entry.digest)
    assert len(digests) == 1


@pytest.mark.parametrize("size", [0, 1, 1000, SMALL, SMALL + 1, 5 * SMALL])
@pytest.mark.parametrize("frozen", [False, True])
def test_a_file_at_rest(copy: WorkingCopy, size: int, frozen: bool) -> None:
    path = copy.path / "f"
    path.write_bytes(os.urandom(size))
    path.chmod(0o4751)
    aged(path)
    time.sleep(0.1)
    with capture(copy, b"f", frozen=frozen) as taken:
        assert content_of(taken) == path.read_bytes()
        assert taken.still_same()
        assert taken.entry.mode == 0o4751
        assert taken.entry.mtime_ns == path.stat().st_mtime_ns
        assert taken.identity == identity_of(path.stat())
        assert not taken.entry.sparse


def test_a_change_that_might_not_show_later_leaves_the_file_unsure(copy: WorkingCopy) -> None:
    (copy.path / "f").write_bytes(b"x")
    with capture(copy, b"f") as taken:
        assert taken.identity == UNSURE + identity_of((copy.path / "f").stat())


@pytest.mark.parametrize("size", [1000, 3 * SMALL])
def test_a_log_that_grows_is_taken_as_far_as_it_was(
    copy: WorkingCopy, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    path = copy.path / "run.log"
    path.write_bytes(os.urandom(size))
    grown = [0]
    real = os.fstat

    def fstat(fd: int) -> os.stat_result:
        told = real(fd)
        if told.st_ino == path.stat().st_ino:  # after every look at it there is more
            with path.open("ab") as log:
                log.write(b"line\n")
            grown[0] += 1
        return told

    start = path.read_bytes()
    monkeypatch.setattr(os, "fstat", fstat)
    with capture(copy, b"run.log") as taken:
        monkeypatch.undo()
        data = content_of(taken)
    assert grown[0] >= 2
    whole = path.read_bytes()
    assert len(whole) > len(data) >= len(start)
    assert whole.startswith(data)


@pytest.mark.parametrize("size", [1000, 3 * SMALL])
def test_a_file_rewritten_all_the_time_is_unstable(
    copy: WorkingCopy, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    path = copy.path / "f"
    path.write_bytes(os.urandom(size))
    real = os.fstat
    count = [0]

    def fstat(fd: int) -> os.stat_result:
        told = real(fd)
        if told.st_ino == path.stat().st_ino:
            count[0] += 1
            with path.open("r+b") as file:
                file.write(b"%10d" % count[0])
            os.utime(path, ns=(count[0], count[0]))
        return told

    monkeypatch.setattr(os, "fstat", fstat)
    with pytest.raises(Unstable), capture(copy, b"f"):
        pass


def test_a_file_cut_while_it_is_taken_is_taken_again(
    copy: WorkingCopy, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = copy.path / "f"
    path.write_bytes(b"x" * (2 * SMALL))
    real = os.fstat
    looks = [0]

    def fstat(fd: int) -> os.stat_result:
        told = real(fd)
        if told.st_ino == path.stat().st_ino:
            looks[0] += 1
            if looks[0] == 2:
                path.write_bytes(b"short")
        return told

    monkeypatch.setattr(os, "fstat", fstat)
    with capture(copy, b"f") as taken:
        assert content_of(taken) == b"short"


def test_a_large_file_changed_while_it_is_read_says_so(copy: WorkingCopy) -> None:
    path = copy.path / "movie.mrcs"
    path.write_bytes(os.urandom(2 * SMALL))
    aged(path)
    with capture(copy, b"movie.mrcs") as taken:
        assert taken.still_same()
        with path.open("r+b") as file:
            file.write(b"changed")
        assert not taken.still_same()
    with capture(copy, b"movie.mrcs", frozen=True) as taken:
        with path.open("ab") as file:
            file.write(b"more")
        assert taken.still_same()
        assert content_of(taken) == path.read_bytes()[: 2 * SMALL]


def test_holes_are_seen(copy: WorkingCopy) -> None:
    with (copy.path / "f").open("wb") as file:
        file.truncate(3 * SMALL)
    with capture(copy, b"f") as taken:
        assert taken.entry.sparse
        assert content_of(taken) == bytes(3 * SMALL)


def test_links_and_pipes_are_never_opened(copy: WorkingCopy) -> None:
    (copy.path / "target").write_text("secret")
    (copy.path / "link").symlink_to("target")
    os.mkfifo(copy.path / "pipe")
    for path in (b"link", b"pipe", b"nowhere"):
        with pytest.raises(OSError, match=r"link|no file|such"), capture(copy, path):
            pass


def test_many_threads_at_once(copy: WorkingCopy) -> None:
    for n in range(40):
        (copy.path / f"{n}").write_bytes(b"%d" % n * 1000)
    wrong: list[int] = []

    def take(n: int) -> None:
        with capture(copy, b"%d" % n) as taken:
            if content_of(taken) != b"%d" % n * 1000:
                wrong.append(n)

    crew = [threading.Thread(target=take, args=(n,)) for n in range(40)]
    for member in crew:
        member.start()
    for member in crew:
        member.join()
    assert not wrong
