"""A project copied while it is there to be worked in: whole, with its links, and with live databases."""

import os
import sqlite3
import threading
from pathlib import Path

import pytest

from scipion_cloud.copies import contents, room, tree
from scipion_cloud.copies.rehome import rehome
from scipion_cloud.copies.report import Report, read_report
from scipion_cloud.copies.tree import copy_tree
from scipion_cloud.errors import NoRoom, SyncError

TIME = 1_600_000_000 * 10**9


@pytest.fixture
def project(tmp_path: Path) -> Path:
    project = tmp_path / "projects" / "old"
    (project / "Runs" / "0001").mkdir(parents=True)
    (project / "data").mkdir()
    (project / "empty").mkdir(mode=0o750)
    (project / "data" / "movie").write_bytes(b"m" * 100)
    (project / "run.sh").write_text("#!")
    (project / "run.sh").chmod(0o4755)
    os.utime(project / "run.sh", ns=(TIME, TIME))
    os.link(project / "data" / "movie", project / "Runs" / "0001" / "same")
    (project / "Runs" / "0001" / "absolute").symlink_to(project / "data" / "movie")
    (project / "Runs" / "0001" / "relative").symlink_to("../../data/movie")
    (project / "Runs" / "outside").symlink_to("/etc/hostname")
    (project / "Runs" / "dataset").symlink_to(tmp_path / "agents" / "old" / "source" / "day 1" / "a")
    Path(os.fsdecode(os.fsencode(project) + b"/Runs/a\nb\xff")).write_bytes(b"odd")
    (project / ".scipion-cloud").mkdir()
    (project / ".scipion-cloud" / "copy.json").write_text("{}")
    os.mkfifo(project / "pipe")
    return project


class Copied:
    def __init__(self, source: Path, folder: Path, **how: Path) -> None:
        self.path = folder / "copy"
        state = folder / "state"
        state.mkdir()
        try:
            with Report(state) as report:
                copy_tree(source, self.path, report, **how)
        finally:
            self.report = read_report(state)
        self.told = {p["path"]: p["text"] for p in self.report["problems"]}


def test_everything_comes_as_it_is(project: Path, tmp_path: Path) -> None:
    old, new = tmp_path / "agents" / "old" / "source", tmp_path / "agents" / "new" / "source"
    copied = Copied(project, tmp_path, dataset=old, new_dataset=new)
    copy = copied.path
    assert (copy / "data" / "movie").read_bytes() == b"m" * 100
    assert (copy / "run.sh").stat().st_mode & 0o7777 == 0o755
    assert (copy / "run.sh").stat().st_mtime_ns == TIME
    assert (copy / "empty").stat().st_mode & 0o777 == 0o750
    assert (copy / "Runs").stat().st_mtime_ns == (project / "Runs").stat().st_mtime_ns
    runs = copy / "Runs"
    assert (runs / "0001" / "same").samefile(copy / "data" / "movie")
    assert not (runs / "0001" / "same").samefile(project / "data" / "movie")
    assert str((runs / "0001" / "absolute").readlink()) == "../../data/movie", "it leads into the copy"
    assert str((runs / "0001" / "relative").readlink()) == "../../data/movie"
    assert str((runs / "outside").readlink()) == "/etc/hostname"
    assert str((runs / "dataset").readlink()) == str(new / "day 1" / "a")
    assert Path(os.fsdecode(os.fsencode(runs) + b"/a\nb\xff")).read_bytes() == b"odd"
    assert not (copy / ".scipion-cloud").exists()
    assert set(copied.told) == {"Runs/outside", "pipe"}
    assert copied.report["files_done"] == copied.report["files_total"] == 4
    assert copied.report["bytes_done"] == copied.report["bytes_total"] == 105


def test_a_dataset_that_the_copy_does_not_have_is_told(project: Path, tmp_path: Path) -> None:
    copied = Copied(project, tmp_path, dataset=tmp_path / "agents" / "old" / "source")
    assert "Runs/dataset" in copied.told


def test_holes_stay_holes(project: Path, tmp_path: Path) -> None:
    with (project / "holes").open("wb") as file:
        file.truncate(64 << 20)
        file.seek(32 << 20)
        file.write(b"x" * 10)
    copied = Copied(project, tmp_path)
    stat = (copied.path / "holes").stat()
    assert stat.st_size == 64 << 20
    assert stat.st_blocks * 512 < 1 << 20
    with (copied.path / "holes").open("rb") as file:
        file.seek((32 << 20) - 2)
        assert file.read(14) == b"\0\0" + b"x" * 10 + b"\0\0"


@pytest.mark.parametrize("mode", ["wal", "delete"])
def test_a_database_that_is_being_written_arrives_as_it_was_at_one_moment(
    project: Path, tmp_path: Path, mode: str
) -> None:
    file = project / "project.sqlite"
    db = sqlite3.connect(file, check_same_thread=False, timeout=60)
    db.execute(f"PRAGMA journal_mode = {mode}")
    db.execute("CREATE TABLE t (n, padding)")
    db.executemany("INSERT INTO t VALUES (0, ?)", [(b"x" * 500,)] * 2000)
    db.commit()
    stop = threading.Event()

    def write() -> None:
        n = 0
        while not stop.is_set():
            n += 1
            db.execute("UPDATE t SET n = ?", (n,))
            db.commit()
            stop.wait(0.01)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        copied = Copied(project, tmp_path)
    finally:
        stop.set()
        writer.join()
        db.close()
    assert not [p for p in copied.path.iterdir() if p.name.startswith("project.sqlite-")]
    copy = sqlite3.connect(copied.path / "project.sqlite")
    assert copy.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    assert copy.execute("SELECT count(DISTINCT n), count(*) FROM t").fetchall() == [(1, 2000)]
    copy.close()
    assert (copied.path / "project.sqlite").stat().st_mode == file.stat().st_mode


def test_a_database_that_stays_locked(project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tree, "_PATIENCE", 0.2)
    db = sqlite3.connect(project / "project.sqlite")
    db.execute("CREATE TABLE t (n)")
    db.commit()
    db.execute("BEGIN EXCLUSIVE")
    with pytest.raises(SyncError, match=r"project\.sqlite locked"):
        Copied(project, tmp_path)
    db.close()


def test_what_only_looks_like_a_database_comes_with_its_companions(project: Path, tmp_path: Path) -> None:
    (project / "odd.sqlite").write_bytes(b"SQLite format 3\0" + b"no" * 1000)
    (project / "odd.sqlite-wal").write_bytes(b"log")
    copied = Copied(project, tmp_path)
    for name in ("odd.sqlite", "odd.sqlite-wal"):
        assert (copied.path / name).read_bytes() == (project / name).read_bytes()


def test_a_file_that_changes_meanwhile_is_taken_again(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    movie, always = project / "run.sh", project / "always"
    always.write_bytes(b"0")
    whole = contents.copy_content
    count = 0

    def change(source: int, target: int, size: int, *more: object) -> None:
        nonlocal count
        whole(source, target, size, *more)  # type: ignore[arg-type]
        name = str(Path(f"/proc/self/fd/{source}").readlink())
        if name == str(movie) and not count:
            count += 1
            movie.write_text("#! changed")
        if name == str(always):
            always.write_bytes(always.read_bytes() + b"0")

    monkeypatch.setattr(tree, "copy_content", change)
    copied = Copied(project, tmp_path)
    assert (copied.path / "run.sh").read_text() == "#! changed"
    assert "being written" in copied.told["always"]
    assert "run.sh" not in copied.told


def test_no_room(project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room.Room, "left", property(lambda _: 4096))
    with pytest.raises(NoRoom, match="are needed"):
        Copied(project, tmp_path)


def test_a_project_that_is_taken_away_is_not_copied_in_half(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = contents.copy_content

    def take_away(*arguments: object) -> None:
        whole(*arguments)  # type: ignore[arg-type]
        if project.exists():
            project.rename(tmp_path / "trash")

    monkeypatch.setattr(tree, "copy_content", take_away)
    with pytest.raises(SyncError, match="closed or deleted"):
        Copied(project, tmp_path)
    (tmp_path / "state").rename(tmp_path / "state of before")
    with pytest.raises(SyncError, match="closed or deleted"):
        Copied(project, tmp_path)


def test_boxes_name_the_files_of_the_copy(tmp_path: Path) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    (new / "Runs" / "0001" / "logs").mkdir(parents=True)
    (new / "Runs" / "0002" / "logs").mkdir(parents=True)
    outside = tmp_path / "outside.db"
    rows = [f"{old}", f"{old}/data/movie", f"{old}er/data", "data/movie", f"x{old}/", "", None, 7]
    files = [new / "project.sqlite", new / "Runs" / "0001" / "logs" / "run.db", outside]
    for file in files:
        db = sqlite3.connect(file)
        db.execute("CREATE TABLE Objects (value)")
        db.executemany("INSERT INTO Objects VALUES (?)", [(row,) for row in rows])
        db.commit()
        db.close()
        os.utime(file, ns=(TIME, TIME))
    (new / "Runs" / "0002" / "logs" / "run.db").symlink_to(outside)
    (new / "Runs" / "0003" / "logs").mkdir(parents=True)
    (new / "Runs" / "0003" / "logs" / "run.db").write_bytes(b"no database" * 100)
    state = tmp_path / "state"
    state.mkdir()
    with Report(state) as report:
        rehome(new, old, tmp_path / "place", report)
    place = tmp_path / "place"
    for file in files:
        db = sqlite3.connect(file)
        found = [row[0] for row in db.execute("SELECT value FROM Objects")]
        db.close()
        assert found == (rows if file == outside else [f"{place}", f"{place}/data/movie", *rows[2:]])
        assert file.stat().st_mtime_ns == TIME
    assert [p["path"] for p in read_report(state)["problems"]] == ["Runs/0003/logs/run.db"]
