"""The index of a queue's jobs: an SQLite file, what is committed is whole and survives crashes.

With a rollback journal and no write-ahead log: reading then needs no room on a full disk.
"""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from scipion_cloud.errors import JobError
from scipion_cloud.jobs.limits import Limits
from scipion_cloud.jobs.turn import turn

_VERSION = 2
_FIRST = """
CREATE TABLE jobs (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    key BLOB NOT NULL UNIQUE,
    token TEXT NOT NULL,           -- marks the job's processes
    spec TEXT NOT NULL,            -- JSON, see `rows`
    cpus INTEGER NOT NULL,         -- for each task
    memory_gb REAL NOT NULL,
    state TEXT NOT NULL DEFAULT 'QUEUED',
    exit_code INTEGER,
    reason TEXT NOT NULL DEFAULT '',
    submitted REAL NOT NULL,       -- seconds since 1970, UTC
    started REAL,
    ended REAL,
    attempts INTEGER NOT NULL DEFAULT 0,   -- how often it was started here, or sent to the batch system
    cancelling INTEGER NOT NULL DEFAULT 0
);
CREATE INDEX live ON jobs (state, id) WHERE ended IS NULL;
CREATE INDEX past ON jobs (ended) WHERE ended IS NOT NULL;
CREATE TABLE limits (
    one INTEGER PRIMARY KEY CHECK (one = 1), cpus INTEGER, memory_gb REAL, max_queued INTEGER
);
"""
_SECOND = """
ALTER TABLE jobs ADD COLUMN tasks INTEGER NOT NULL DEFAULT 1;
ALTER TABLE jobs ADD COLUMN gpus INTEGER NOT NULL DEFAULT 0;
ALTER TABLE jobs ADD COLUMN devices TEXT NOT NULL DEFAULT '';  -- the GPUs that it was given here: "0,2"
ALTER TABLE jobs ADD COLUMN resumable INTEGER NOT NULL DEFAULT 0;
ALTER TABLE jobs ADD COLUMN site TEXT NOT NULL DEFAULT '';     -- where the broker takes it; here if empty
ALTER TABLE jobs ADD COLUMN batch TEXT NOT NULL DEFAULT '';    -- its name in the batch system
ALTER TABLE jobs ADD COLUMN batch_index INTEGER NOT NULL DEFAULT 0;  -- in an array of that name
ALTER TABLE jobs ADD COLUMN batch_id TEXT NOT NULL DEFAULT ''; -- the batch system's own id, once known
ALTER TABLE jobs ADD COLUMN seen REAL;     -- when the batch system took it, or last had news of it
ALTER TABLE jobs ADD COLUMN missing REAL;  -- since when it is not what the batch system says it is
ALTER TABLE limits ADD COLUMN gpus INTEGER NOT NULL DEFAULT 0;
ALTER TABLE limits ADD COLUMN learned REAL NOT NULL DEFAULT 0; -- when they were asked for
CREATE TABLE looks (               -- at the batch system, by whoever makes them
    one INTEGER PRIMARY KEY CHECK (one = 1),
    token TEXT NOT NULL,           -- makes the names of this queue's jobs its own
    looked REAL NOT NULL DEFAULT 0,
    pause REAL NOT NULL DEFAULT 0, -- seconds to the next one
    fault TEXT NOT NULL DEFAULT '' -- why it did not answer
);
INSERT INTO looks (one, token) VALUES (1, lower(hex(randomblob(8))));
CREATE INDEX batches ON jobs (batch) WHERE batch != '';
"""
_STEPS = (_FIRST, _SECOND)


@contextmanager
def reading(spool: Path) -> Iterator[sqlite3.Connection]:
    """A connection to the index, made on first use. Raises JobError when it cannot be used."""
    try:
        db = _open(spool)
        try:
            yield db
        finally:
            db.close()
    except (sqlite3.Error, OSError) as e:
        raise JobError(
            f"The queue of jobs in {spool} cannot be used ({e}). "
            "Is its disk full, and may this user write there?"
        ) from e


@contextmanager
def writing(spool: Path) -> Iterator[sqlite3.Connection]:
    """The same in one transaction: all of it happens, or with any exception nothing."""
    with reading(spool) as db:
        db.execute("BEGIN IMMEDIATE")
        yield db
        db.execute("COMMIT")


def _open(spool: Path) -> sqlite3.Connection:
    spool.mkdir(0o700, parents=True, exist_ok=True)
    db = sqlite3.connect(spool / "queue.sqlite", timeout=10, isolation_level=None)
    try:
        db.row_factory = sqlite3.Row
        if _version(db) < _VERSION:
            with turn(spool, "setup.lock"):
                _bring_up_to_date(db, spool)
        if _version(db) != _VERSION:
            raise JobError(f"The queue in {spool} was made by a newer Scipion Cloud; upgrade this one.")
        db.execute("PRAGMA synchronous = FULL")
    except BaseException:
        db.close()
        raise
    return db


def _version(db: sqlite3.Connection) -> int:
    version: int = db.execute("PRAGMA user_version").fetchone()[0]
    return version


def _bring_up_to_date(db: sqlite3.Connection, spool: Path) -> None:
    """Make the tables, or take those of an earlier version a step further; each step happens or does not."""
    for version in range(_version(db), _VERSION):
        db.executescript(f"BEGIN IMMEDIATE; {_STEPS[version]} PRAGMA user_version = {version + 1};")
        if version == 0:
            _skip_used_ids(db, spool)
        db.execute("COMMIT")


def _skip_used_ids(db: sqlite3.Connection, spool: Path) -> None:
    """Should the index have been lost, no id of an older job is given again."""
    used = [int(p.name) for p in spool.iterdir() if p.name.isdigit()]
    db.execute("INSERT INTO sqlite_sequence VALUES ('jobs', ?)", (max(used, default=0),))


def limits(db: sqlite3.Connection) -> Limits | None:
    """The limits that were last stored."""
    row = db.execute("SELECT cpus, memory_gb, max_queued, gpus FROM limits").fetchone()
    return Limits(*row) if row else None


def store_limits(db: sqlite3.Connection, new: Limits) -> None:
    """Keep the limits for those who do not know them: a supervisor that starts the next job."""
    if limits(db) != new:
        db.execute(
            "INSERT OR REPLACE INTO limits (one, cpus, memory_gb, max_queued, gpus) VALUES (1, ?, ?, ?, ?)",
            new,
        )
