"""The index of one machine's jobs: an SQLite file, what is committed is whole and survives crashes.

With a rollback journal and no write-ahead log: reading then needs no room on a full disk.
"""

import json
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from scipion_cloud.errors import JobError
from scipion_cloud.jobs.limits import Limits
from scipion_cloud.jobs.turn import turn

_VERSION = 1
_SCHEMA = f"""
BEGIN;
CREATE TABLE jobs (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    key BLOB NOT NULL UNIQUE,
    token TEXT NOT NULL,           -- marks the job's processes
    spec TEXT NOT NULL,            -- JSON, what the supervisor reads
    cpus INTEGER NOT NULL,
    memory_gb REAL NOT NULL,
    state TEXT NOT NULL DEFAULT 'QUEUED',
    exit_code INTEGER,
    reason TEXT NOT NULL DEFAULT '',
    submitted REAL NOT NULL,       -- seconds since 1970, UTC
    started REAL,
    ended REAL,
    attempts INTEGER NOT NULL DEFAULT 0,
    cancelling INTEGER NOT NULL DEFAULT 0
);
CREATE INDEX live ON jobs (state, id) WHERE ended IS NULL;
CREATE INDEX past ON jobs (ended) WHERE ended IS NOT NULL;
CREATE TABLE limits (
    one INTEGER PRIMARY KEY CHECK (one = 1), cpus INTEGER, memory_gb REAL, max_queued INTEGER
);
PRAGMA user_version = {_VERSION};
COMMIT;
"""


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
        if _version(db) == 0:
            with turn(spool, "setup.lock"):
                if _version(db) == 0:
                    db.executescript(_SCHEMA)
                    _skip_used_ids(db, spool)
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


def _skip_used_ids(db: sqlite3.Connection, spool: Path) -> None:
    """Should the index have been lost, no id of an older job is given again."""
    used = [int(p.name) for p in spool.iterdir() if p.name.isdigit()]
    db.execute("INSERT INTO sqlite_sequence VALUES ('jobs', ?)", (max(used, default=0),))


def limits(db: sqlite3.Connection) -> Limits | None:
    """The limits that were last stored."""
    row = db.execute("SELECT cpus, memory_gb, max_queued FROM limits").fetchone()
    return Limits(*row) if row else None


def store_limits(db: sqlite3.Connection, new: Limits) -> None:
    """Keep the limits for those who do not know them: a supervisor that starts the next job."""
    if limits(db) != new:
        db.execute("INSERT OR REPLACE INTO limits VALUES (1, ?, ?, ?)", new)


def key_bytes(key: str) -> bytes:
    """Any text as bytes, different for different texts."""
    return key.encode("utf-8", "surrogatepass")


def rows(db: sqlite3.Connection, ids: Iterable[int]) -> list[sqlite3.Row]:
    """The jobs with these ids that exist, without their specs."""
    return db.execute(
        "SELECT id, state, exit_code, reason, submitted, started, ended FROM jobs"
        " WHERE id IN (SELECT value FROM json_each(?))",
        (json.dumps(list(ids)),),
    ).fetchall()


def finish(db: sqlite3.Connection, job: int, ending: dict[str, Any]) -> None:
    """Record how a job ended."""
    db.execute(
        "UPDATE jobs SET state = ?, exit_code = ?, reason = ?, ended = ? WHERE id = ?",
        (ending["state"], ending["exit_code"], ending["reason"], ending["time"], job),
    )
