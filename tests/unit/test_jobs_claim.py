"""One claim for one job, on any file system, whoever comes when."""

import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from scipion_cloud.errors import ConfigError
from scipion_cloud.jobs import JobSpec, LocalBackend, index, rows
from scipion_cloud.jobs.claim import Claim, release, revoke, withdraw
from scipion_cloud.jobs.folder import JobFolder
from scipion_cloud.jobs.slurm import Slurm
from scipion_cloud.jobs.systems import backend_at, batch_system, read_system, write_system

RACER = """
import sys
from pathlib import Path
from scipion_cloud.jobs.claim import Claim
from scipion_cloud.jobs.folder import JobFolder
print("ready", flush=True)
sys.stdin.readline()
print(Claim(sys.argv[2]).take(JobFolder(Path(sys.argv[1]))))
"""


@pytest.fixture
def folder(tmp_path: Path) -> JobFolder:
    (tmp_path / "1").mkdir()
    return JobFolder(tmp_path / "1")


def test_one_of_many_gets_it(folder: JobFolder) -> None:
    racers = [
        subprocess.Popen(
            [sys.executable, "-c", RACER, str(folder.path), f"{n}"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for n in range(4)
    ]
    for racer in racers:
        assert racer.stdout
        assert racer.stdout.readline() == "ready\n"
    assert sorted(racer.communicate("go\n")[0] for racer in racers) == ["False\n"] * 3 + ["True\n"]
    assert [path.name for path in folder.path.iterdir()] == ["claim.json"]


def test_a_later_start_of_the_same_batch_job_takes_over(folder: JobFolder) -> None:
    first, again = Claim("7", 0, pid=1), Claim("7", 1, pid=2)
    assert first.take(folder)
    assert not Claim("8", 5).take(folder)
    assert again.take(folder)
    assert not first.holds(folder)
    assert not first.take(folder)
    assert again.holds(folder)
    assert first.outcome != again.outcome


def test_withdrawn_revoked_released(folder: JobFolder) -> None:
    mine = Claim("7")
    assert mine.take(folder)
    assert not withdraw(folder, "cancelled")
    release(folder, mine)
    assert not mine.holds(folder)
    other = Claim("8")
    assert other.take(folder)
    revoke(folder, "lost")
    assert not other.holds(folder)
    assert not Claim("9").take(folder)
    held = Claim.of(folder)
    assert held
    assert (held.batch, held.reason) == ("", "lost")


def test_what_cannot_be_seen_is_not_lost(folder: JobFolder) -> None:
    mine = Claim("7")
    assert mine.take(folder)
    (folder.path / "claim.json").unlink()
    (folder.path / "claim.json").symlink_to("claim.json")  # reading it is an error, as on a dead disk
    assert mine.holds(folder)


VERSION_1 = """
CREATE TABLE jobs (
    id INTEGER PRIMARY KEY AUTOINCREMENT, key BLOB NOT NULL UNIQUE, token TEXT NOT NULL, spec TEXT NOT NULL,
    cpus INTEGER NOT NULL, memory_gb REAL NOT NULL, state TEXT NOT NULL DEFAULT 'QUEUED', exit_code INTEGER,
    reason TEXT NOT NULL DEFAULT '', submitted REAL NOT NULL, started REAL, ended REAL,
    attempts INTEGER NOT NULL DEFAULT 0, cancelling INTEGER NOT NULL DEFAULT 0
);
CREATE INDEX live ON jobs (state, id) WHERE ended IS NULL;
CREATE INDEX past ON jobs (ended) WHERE ended IS NOT NULL;
CREATE TABLE limits (
    one INTEGER PRIMARY KEY CHECK (one = 1), cpus INTEGER, memory_gb REAL, max_queued INTEGER
);
INSERT INTO limits VALUES (1, 3, 2.5, 7);
INSERT INTO jobs (key, token, spec, cpus, memory_gb, submitted) VALUES (
    X'6f6c64', '00', '{"argv": ["true"], "cwd": "/", "name": "n", "owner": "", "hours": null, "env": {},
    "stdout": null, "stderr": null}', 1, 0.1, 1000.0
);
PRAGMA user_version = 1;
"""


def test_queue_of_the_first_version(tmp_path: Path) -> None:
    (tmp_path / "jobs").mkdir()
    db = sqlite3.connect(tmp_path / "jobs" / "queue.sqlite")
    db.executescript(VERSION_1)
    db.close()
    backend = LocalBackend(tmp_path / "jobs")
    job = backend.find("old")
    assert job == 1
    with index.reading(backend.spool) as now:
        assert index.limits(now) == (3, 2.5, 7, 0)
        row = now.execute("SELECT * FROM jobs").fetchone()
        assert rows.spec_of(row) == JobSpec(("true",), Path("/"), "n", memory_gb=0.1)
    backend.cancel([job])
    assert backend.list()[0].status.state == "CANCELLED"


def test_systems(tmp_path: Path) -> None:
    options = {"conf": "/a/slurm.conf", "partition": "p", "interactive_partition": "i"}
    assert batch_system("slurm", options) == Slurm(Path("/a/slurm.conf"), "p", "i")
    assert read_system(tmp_path) == ("local", {})
    write_system(tmp_path, "slurm", options)
    assert read_system(tmp_path) == ("slurm", options)
    assert backend_at(tmp_path).system == Slurm(Path("/a/slurm.conf"), "p", "i")  # type: ignore[attr-defined]
    with pytest.raises(ConfigError, match="partitoin"):
        batch_system("slurm", {"partitoin": "p"})
    with pytest.raises(ConfigError, match="pbs"):
        write_system(tmp_path, "pbs", {})
    write_system(tmp_path, "local", {})
    assert isinstance(backend_at(tmp_path), LocalBackend)
    (tmp_path / "system.json").write_text("[]")
    with pytest.raises(ConfigError, match=r"system\.json"):
        backend_at(tmp_path)
