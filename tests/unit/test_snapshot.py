"""Reading a project's databases without Scipion: merging, and what to make of bad ones."""

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from scipion_cloud.tools.snapshot import read_project

SCHEMA = """CREATE TABLE Objects (id INTEGER PRIMARY KEY AUTOINCREMENT, parent_id INTEGER, name TEXT,
classname TEXT, value TEXT DEFAULT NULL, label TEXT DEFAULT NULL, comment TEXT DEFAULT NULL, creation DATE)"""
RUN = "Runs/000002_ProtImportMovies"
ERROR = "\x1b[31mProtocol failed: no\x1b[0m"


def local(moment: datetime) -> str:
    """A time as Scipion writes it: local, without a zone."""
    return moment.astimezone().strftime("%Y-%m-%d %H:%M:%S.%f")


@contextmanager
def database(file: Path) -> Iterator[sqlite3.Connection]:
    file.parent.mkdir(parents=True, exist_ok=True)
    with closing(sqlite3.connect(file)) as db:
        if not db.execute("SELECT 1 FROM sqlite_master").fetchone():
            db.execute(SCHEMA)
        yield db
        db.commit()


def add(db: sqlite3.Connection, number: int, class_name: str, run_dir: str = "", **fields: str) -> None:
    """A protocol with its direct attributes."""
    db.execute("DELETE FROM Objects WHERE id = ? OR name LIKE ?", (number, f"{number}.%"))
    row = (number, class_name, f"box {number}", "2026-01-02 03:04:05")
    db.execute("INSERT INTO Objects (id, name, classname, label, creation) VALUES (?, '', ?, ?, ?)", row)
    for name, value in {"workingDir": run_dir, **fields}.items():
        query = "INSERT INTO Objects (parent_id, name, classname, value) VALUES (?, ?, 'String', ?)"
        db.execute(query, (number, f"{number}.{name}", value))


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """Two protocols: an import that has been launched, and an alignment of its movies."""
    folder = tmp_path / "a project #1?%"
    with database(folder / "project.sqlite") as db:
        db.execute("INSERT INTO Objects (id, name, classname) VALUES (1, 'CreationTime', 'String')")
        known = local(datetime.now(UTC) - timedelta(hours=1))
        add(db, 2, "ProtImportMovies", RUN, status="launched", _jobId="17", lastUpdateTimeStamp=known)
        db.execute("INSERT INTO Objects VALUES (50, 2, '2.outputMovies', 'SetOfMovies', NULL, '', '', '')")
        add(db, 60, "ProtRelionMotioncor", status="saved")
        db.execute("INSERT INTO Objects VALUES (70, 60, '60.inputMovies', 'Pointer', '50', '', '', '')")
    with database(folder / RUN / "logs" / "run.db") as db:
        began = local(datetime(2026, 5, 1, 12, tzinfo=UTC))
        add(
            db,
            2,
            "ProtImportMovies",
            RUN,
            status="failed",
            initTime=began,
            _error=ERROR,
            _outputs="outputMovies",
        )
    return folder


def test_the_runs_own_database_wins_where_it_is_newer(project: Path) -> None:
    seen = read_project(project)
    first, second = seen.protocols
    assert seen.problems == ()
    assert (first.id, first.class_name, first.label) == (2, "ProtImportMovies", "box 2")
    assert (first.status, first.error, first.outputs) == ("failed", "Protocol failed: no", ("outputMovies",))
    assert first.started == datetime(2026, 5, 1, 12, tzinfo=UTC)
    assert first.created == datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    assert (first.job_id, first.run_dir) == ("17", RUN)
    assert (second.status, second.parents) == ("saved", (2,))
    assert seen.find(60) == second
    assert seen.find(61) is None


def test_the_project_wins_where_it_is_newer(project: Path) -> None:
    os.utime(project / RUN / "logs" / "run.db", (0, 0))
    assert read_project(project).protocols[0].status == "launched"


def test_a_run_without_a_database_is_as_the_project_says(project: Path) -> None:
    (project / RUN / "logs" / "run.db").unlink()
    seen = read_project(project)
    assert (seen.protocols[0].status, seen.problems) == ("launched", ())


@pytest.mark.parametrize(
    "content", [b"", b"no database at all" * 100, b"SQLite format 3\0" + os.urandom(4000)]
)
def test_a_torn_run_database_is_told_and_the_rest_kept(project: Path, content: bytes) -> None:
    (project / RUN / "logs" / "run.db").write_bytes(content)
    seen = read_project(project)
    assert [p.status for p in seen.protocols] == ["launched", "saved"]
    assert len(seen.problems) == 1
    assert "box 2" in seen.problems[0]


@pytest.mark.parametrize("content", [None, b"", b"no database at all" * 100])
def test_a_project_without_a_readable_database(project: Path, content: bytes | None) -> None:
    (project / "project.sqlite").unlink()
    if content is not None:
        (project / "project.sqlite").write_bytes(content)
    seen = read_project(project)
    assert seen.protocols == ()
    assert len(seen.problems) == 1


def test_a_writer_in_the_middle_of_its_work_does_not_disturb(project: Path) -> None:
    with closing(sqlite3.connect(project / "project.sqlite")) as db:
        db.execute("UPDATE Objects SET value = 'half' WHERE name = '60.status'")
        assert read_project(project).protocols[1].status == "saved"


def test_what_a_killed_writer_left_is_undone_in_a_copy(project: Path) -> None:
    file = project / "project.sqlite"
    pid = os.fork()
    if pid == 0:  # a writer that dies with its changes half in the file
        db = sqlite3.connect(file, isolation_level=None)
        db.execute("PRAGMA cache_size = 1")
        db.execute("BEGIN IMMEDIATE")
        db.execute("UPDATE Objects SET value = 'half' WHERE name = '60.status'")
        db.executemany("INSERT INTO Objects (name, value) VALUES ('z', ?)", [("v" * 1000,)] * 300)
        os.kill(os.getpid(), 9)
    os.waitpid(pid, 0)
    before = file.read_bytes()
    assert b"half" in before
    assert Path(f"{file}-journal").stat().st_size > 0
    seen = read_project(project)
    assert seen.problems == ()
    assert seen.protocols[1].status == "saved"
    assert file.read_bytes() == before  # reading never writes


@pytest.mark.parametrize("run_dir", ["/etc", "../other", "Runs/../../other", "."])
def test_a_run_folder_cannot_lead_out(project: Path, run_dir: str) -> None:
    with database(project.parent / "other" / "logs" / "run.db") as db:
        add(db, 2, "ProtImportMovies", status="secret")
    with database(project / "project.sqlite") as db:
        add(db, 2, "ProtImportMovies", run_dir, status="launched")
    first = read_project(project).protocols[0]
    assert (first.status, first.run_dir) == ("launched", "")


def test_links_out_of_the_project_are_not_followed(project: Path) -> None:
    secret = project.parent / "secret" / "logs" / "run.db"
    with database(secret) as db:
        add(db, 2, "ProtImportMovies", RUN, status="secret")
    own = project / RUN / "logs" / "run.db"
    own.unlink()
    own.symlink_to(secret)
    seen = read_project(project)
    assert seen.protocols[0].status == "launched"
    assert "link" in seen.problems[0]

    (project / "project.sqlite").rename(project.parent / "elsewhere.sqlite")
    (project / "project.sqlite").symlink_to(project.parent / "elsewhere.sqlite")
    assert "link" in read_project(project).problems[0]


def test_bytes_that_are_no_text_are_shown_somehow(project: Path) -> None:
    with database(project / "project.sqlite") as db:
        db.execute("UPDATE Objects SET label = CAST(x'66ff' AS TEXT) WHERE id = 60")
    assert read_project(project).protocols[1].label == "f\N{REPLACEMENT CHARACTER}"


def test_pointers_in_a_circle_end(project: Path) -> None:
    with database(project / "project.sqlite") as db:
        db.execute("INSERT INTO Objects VALUES (80, 81, 'x', 'String', NULL, '', '', '')")
        db.execute("INSERT INTO Objects VALUES (81, 80, 'y', 'String', NULL, '', '', '')")
        db.execute("UPDATE Objects SET value = '80' WHERE id = 70")
    assert read_project(project).protocols[1].parents == ()


def test_three_hundred_protocols_are_read_at_once(project: Path) -> None:
    with database(project / "project.sqlite") as db:
        for number in range(10_000, 40_000, 100):
            add(db, number, "ProtX", status="finished")
    assert len(read_project(project).protocols) == 302
