"""What comes back fits this place: links into the source dataset, and databases whose writer was killed."""

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from broker_site import Run, near_site, parcel, running

from scipion_cloud.config import Config
from scipion_cloud.jobs import JobState


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Run]:
    config = Config(home=tmp_path / "home")
    with near_site(config, tmp_path / "area"), running(config) as run:
        yield run


def test_content_of_the_source_is_sent_and_its_links_stay_what_they_are(run: Run, tmp_path: Path) -> None:
    root = run.config.projects / "bound-1"
    source = run.config.agents / "bound-1" / "source"  # of a project that is open from a storage
    (source / "raw").mkdir(parents=True)
    for name in ("1.tif", "2.tif", "unused.tif"):
        (source / "raw" / name).write_text(name)
    (root / "out").mkdir(parents=True)
    (root / "data").mkdir()
    (root / "data" / "all").symlink_to(source / "raw")
    (root / "data" / "1.tif").symlink_to(source / "raw" / "1.tif")
    near = os.path.relpath(source / "raw" / "2.tif", root / "out")
    (root / "out" / "2.tif").symlink_to(near)
    script = (
        "cat data/1.tif data/all/1.tif out/2.tif > out/content; ls data/all > out/there\n"
        'ln -s "$(readlink -f data/1.tif)" out/absolute; ln -s ../data/1.tif out/inside\n'
        'ln -s "$(realpath --relative-to=out data/1.tif)" out/relative; ln -s "$PWD/data" out/folder'
    )
    job = run.backend.submit(parcel(root, script, "data/1.tif", "data/all/1.tif", site="near"), "source")
    status = run.end(job)
    assert status.state is JobState.DONE, status
    out = root / "out"
    assert (out / "content").read_text() == "1.tif1.tif2.tif"
    assert (out / "there").read_text().split() == ["1.tif", "2.tif"]  # nothing else of it was sent
    assert {link.name: str(link.readlink()) for link in out.iterdir() if link.is_symlink()} == {
        "2.tif": near,
        "absolute": str(source / "raw" / "1.tif"),
        "relative": str(source / "raw" / "1.tif"),
        "inside": "../data/1.tif",
        "folder": "../data",
    }
    assert all(link.exists() for link in out.iterdir())


TEAR = """
import os, sqlite3
def torn(file, mode):
    db = sqlite3.connect(file, isolation_level=None)
    db.execute(f"PRAGMA journal_mode = {mode}")
    db.execute("PRAGMA cache_size = 2")  # what is not committed gets into the file all the same
    db.execute("CREATE TABLE t (n, text)")
    db.execute("INSERT INTO t VALUES (1, 'kept')")
    db.execute("BEGIN")
    db.executemany("INSERT INTO t VALUES (?, ?)", [(n, "x" * 500) for n in range(2000)])
    db.execute("UPDATE t SET text = 'lost' WHERE n = 1")
    return db
os.makedirs("out/logs", exist_ok=True)
open("out/notes.db", "w").write("no database")
open("out/notes.db-journal", "w").write("no journal")
held = [torn("out/logs/run.db", "DELETE"), torn("out/a.sqlite", "WAL")]
open("out/size", "w").write(str(os.path.getsize("out/logs/run.db-journal")))
os.kill(os.getpid(), 9)
"""


def test_databases_whose_writer_was_killed_come_home_mended(run: Run, tmp_path: Path) -> None:
    root = tmp_path / "p"
    (root / "out" / "logs").mkdir(parents=True)
    (root / "tear.py").write_text(TEAR)
    stale = root / "out" / "logs" / "run.db-journal"  # of an earlier database
    stale.write_bytes(b"\xd9\xd5\x05\xf9\x20\xa1\x63\xd7" + os.urandom(600))
    job = run.backend.submit(parcel(root, "python3 tear.py", "tear.py", site="near"), "torn")
    assert run.end(job).state is JobState.FAILED
    for name in ("logs/run.db", "a.sqlite"):
        with closing(sqlite3.connect(root / "out" / name)) as db:
            assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
            assert db.execute("SELECT * FROM t").fetchall() == [(1, "kept")]
    left = sorted(str(p.relative_to(root / "out")) for p in (root / "out").rglob("*") if p.is_file())
    assert left == ["a.sqlite", "logs/run.db", "notes.db", "size"]
    assert int((root / "out" / "size").read_text()) > 512  # it was torn indeed
