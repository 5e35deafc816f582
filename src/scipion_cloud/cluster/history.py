"""What the page about elastic nodes shows: the nodes now, how they came and went, hours used and saved."""

import sqlite3
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from scipion_cloud.cluster.book import Line, opened, read_lines

FILE = "nodes.sqlite"
FOLDER = "slurm"
"""Where in a home its own cluster lies."""

WINDOW = timedelta(days=30)
EVENTS = 50


@dataclass(frozen=True)
class Event:
    """Something that happened to a node, in words for people that follow its name."""

    at: datetime
    node: str
    text: str


@dataclass(frozen=True)
class Point:
    """How many machines there were from this moment on, until the next point."""

    at: datetime
    on: int
    busy: int  # those of them that had jobs


@dataclass(frozen=True)
class NodesNow:
    """The elastic nodes of a cluster. Hours are those of nodes: two nodes for three hours are six."""

    nodes: tuple[Line, ...]
    events: tuple[Event, ...]  # the last first
    began: datetime | None  # what the hours are counted from; None: there are no records yet
    until: datetime
    hours_used: float
    hours_busy: float  # those of them in which the nodes had jobs
    hours_saved: float  # against all nodes always on
    price_per_hour: float  # of a node
    timeline: tuple[Point, ...]  # of the time from `began` to `until`; the first point is at `began`

    @property
    def cost(self) -> float:
        """Of the hours used."""
        return self.hours_used * self.price_per_hour

    @property
    def saved(self) -> float:
        """Of the hours saved."""
        return self.hours_saved * self.price_per_hour


def overview(home: Path, window: timedelta = WINDOW, now: datetime | None = None) -> NodesNow | None:
    """What is known of a home's elastic nodes over the last `window`; None if it has none.

    Reads one small file, and asks neither Slurm nor the provider. Raises ScipionCloudError if it cannot be
    read.
    """
    file = home / FOLDER / FILE
    return read_history(file, window, now) if file.exists() else None


def read_history(file: Path, window: timedelta = WINDOW, now: datetime | None = None) -> NodesNow:
    """The same for any cluster's book."""
    until = now or datetime.now(UTC)
    with opened(file) as db:
        facts = dict(db.execute("SELECT name, value FROM facts").fetchall())
        first = datetime.fromtimestamp(facts["began"], UTC) if "began" in facts else None
        began = max(first, until - window) if first else None
        on, busy = (_spans(db, kind, began or until, until) for kind in ("on", "busy"))
        nodes, events = read_lines(db), _events(db)
    used = _hours(on)
    all_hours = facts.get("nodes", 0.0) * (until - began).total_seconds() / 3600 if began else 0.0
    return NodesNow(
        nodes=nodes,
        events=events,
        began=began,
        until=until,
        hours_used=used,
        hours_busy=_hours(busy),
        hours_saved=max(all_hours - used, 0.0),
        price_per_hour=facts.get("price", 0.0),
        timeline=_timeline(on, busy, began) if began else (),
    )


Span = tuple[datetime, datetime]


def _spans(db: sqlite3.Connection, kind: str, began: datetime, until: datetime) -> list[Span]:
    """Those of one kind, cut to a window; what has not ended yet goes to its end."""
    rows = db.execute(
        "SELECT began, ended FROM spans WHERE kind = ? AND began < ? AND (ended IS NULL OR ended > ?)",
        (kind, until.timestamp(), began.timestamp()),
    )
    return [
        (
            max(datetime.fromtimestamp(row["began"], UTC), began),
            min(datetime.fromtimestamp(row["ended"], UTC), until) if row["ended"] else until,
        )
        for row in rows
    ]


def _hours(spans: Iterable[Span]) -> float:
    return sum((ended - began).total_seconds() for began, ended in spans) / 3600


def _timeline(on: Iterable[Span], busy: Iterable[Span], began: datetime) -> tuple[Point, ...]:
    """The points at which a number changes."""
    changes: dict[datetime, list[int]] = {began: [0, 0]}
    for kind, spans in enumerate((on, busy)):
        for start, end in spans:
            changes.setdefault(start, [0, 0])[kind] += 1
            changes.setdefault(end, [0, 0])[kind] -= 1
    points, counts = [], [0, 0]
    for at in sorted(changes):
        counts = [counts[0] + changes[at][0], counts[1] + changes[at][1]]
        points.append(Point(at, *counts))
    return tuple(points)


def _events(db: sqlite3.Connection) -> tuple[Event, ...]:
    rows = db.execute("SELECT at, node, text FROM events ORDER BY id DESC LIMIT ?", (EVENTS,))
    return tuple(Event(datetime.fromtimestamp(r["at"], UTC), r["node"], r["text"]) for r in rows)
