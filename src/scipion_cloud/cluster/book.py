"""The book of an elastic cluster, `nodes.sqlite` in its folder: what was seen last, and what has been.

It serves people only. Nothing is decided by it: should it be lost, nodes come and go as before.
"""

import json
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from scipion_cloud.errors import ScipionCloudError

KEEP_EVENTS = 500
_VERSION = 1
_SCHEMA = f"""
BEGIN;
CREATE TABLE nodes (
    name TEXT PRIMARY KEY, state TEXT NOT NULL, since REAL NOT NULL, reason TEXT NOT NULL, jobs TEXT NOT NULL,
    cpus INTEGER NOT NULL, cpus_used INTEGER NOT NULL, memory_gb REAL NOT NULL
);
CREATE TABLE spans (      -- a node was there (on), or had jobs (busy); times in seconds since 1970, UTC
    kind TEXT NOT NULL, node TEXT NOT NULL, began REAL NOT NULL, ended REAL
);
CREATE UNIQUE INDEX open_spans ON spans (kind, node) WHERE ended IS NULL;
CREATE INDEX ended_spans ON spans (ended);
CREATE TABLE events (
    id INTEGER PRIMARY KEY AUTOINCREMENT, at REAL NOT NULL, node TEXT NOT NULL, text TEXT NOT NULL
);
CREATE TABLE facts (name TEXT PRIMARY KEY, value REAL NOT NULL);
PRAGMA user_version = {_VERSION};
COMMIT;
"""


@dataclass(frozen=True)
class Line:
    """What the book says of a node."""

    name: str
    state: str  # one word for people: off, starting, idle, busy, full, stopping, down
    reason: str = ""  # why it is down
    jobs: tuple[str, ...] = ()  # names of the jobs that it has
    cpus: int = 0
    cpus_used: int = 0
    memory_gb: float = 0.0  # GiB
    since: datetime | None = None  # when it came into this state; set by the book


@contextmanager
def opened(file: Path) -> Iterator[sqlite3.Connection]:
    """A connection to the book, which is made on first use. Raises ScipionCloudError if it cannot be used."""
    try:
        file.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        with closing(sqlite3.connect(file, timeout=10, isolation_level=None)) as db:
            db.row_factory = sqlite3.Row
            version = db.execute("PRAGMA user_version").fetchone()[0]
            if version == 0:
                db.executescript(_SCHEMA)
            elif version != _VERSION:
                raise ScipionCloudError(f"{file} was made by a newer Scipion Cloud; upgrade this one.")
            yield db
    except (sqlite3.Error, OSError) as e:
        raise ScipionCloudError(
            f"The history of nodes in {file} cannot be used ({e}). Is its disk full? It may be deleted."
        ) from e


class Book:
    """Where the controller writes; only what has changed is written."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self._written: dict[str, Line] | None = None
        self._spans: set[tuple[str, str]] | None = None

    def look(
        self,
        lines: Iterable[Line],
        there: Mapping[str, datetime | None],
        now: datetime,
        price_per_hour: float,
    ) -> None:
        """Write down what was seen: each node's line, and the machines that are there, and since when."""
        new = {line.name: line for line in lines}
        busy = {line.name for line in new.values() if line.jobs and line.name in there}
        spans = {("on", name) for name in there} | {("busy", name) for name in busy}
        if new == self._written and spans == self._spans:
            return
        with opened(self.file) as db:
            db.execute("BEGIN IMMEDIATE")
            facts = [("nodes", len(new)), ("price", price_per_hour)]
            db.executemany("INSERT OR REPLACE INTO facts VALUES (?, ?)", facts)
            db.execute("INSERT OR IGNORE INTO facts VALUES ('began', ?)", (now.timestamp(),))
            _write_lines(db, new, now)
            _write_spans(db, spans, there, now)
            db.execute("COMMIT")
        self._written, self._spans = new, spans

    def tell(self, node: str, text: str, now: datetime) -> None:
        """Write down that something happened, for the page."""
        with opened(self.file) as db:
            db.execute("BEGIN IMMEDIATE")
            db.execute("INSERT INTO events (at, node, text) VALUES (?, ?, ?)", (now.timestamp(), node, text))
            db.execute("DELETE FROM events WHERE id <= (SELECT max(id) FROM events) - ?", (KEEP_EVENTS,))
            db.execute("COMMIT")


def _write_lines(db: sqlite3.Connection, new: Mapping[str, Line], now: datetime) -> None:
    old = {row["name"]: row for row in db.execute("SELECT * FROM nodes")}
    db.execute("DELETE FROM nodes")
    for line in new.values():
        was = old.get(line.name)
        same = was is not None and was["state"] == line.state
        since = was["since"] if was is not None and same else now.timestamp()
        jobs = json.dumps(line.jobs)
        row = (line.name, line.state, since, line.reason, jobs, line.cpus, line.cpus_used, line.memory_gb)
        db.execute("INSERT INTO nodes VALUES (?, ?, ?, ?, ?, ?, ?, ?)", row)


def _write_spans(
    db: sqlite3.Connection,
    now_open: set[tuple[str, str]],
    there: Mapping[str, datetime | None],
    now: datetime,
) -> None:
    known = {(r["kind"], r["node"]) for r in db.execute("SELECT kind, node FROM spans WHERE ended IS NULL")}
    for kind, node in known - now_open:
        db.execute(
            "UPDATE spans SET ended = ? WHERE kind = ? AND node = ? AND ended IS NULL",
            (now.timestamp(), kind, node),
        )
    for kind, node in now_open - known:
        began = (there[node] or now) if kind == "on" else now
        db.execute("INSERT INTO spans VALUES (?, ?, ?, NULL)", (kind, node, began.timestamp()))


def read_lines(db: sqlite3.Connection) -> tuple[Line, ...]:
    """The nodes as they were seen last."""
    return tuple(
        Line(
            name=row["name"],
            state=row["state"],
            reason=row["reason"],
            jobs=tuple(json.loads(row["jobs"])),
            cpus=row["cpus"],
            cpus_used=row["cpus_used"],
            memory_gb=row["memory_gb"],
            since=datetime.fromtimestamp(row["since"], UTC),
        )
        for row in db.execute("SELECT * FROM nodes ORDER BY rowid")
    )
