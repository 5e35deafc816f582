"""What of ours lies at a site, and since when nobody has used it. An SQLite file a site, at home.

Inputs stay there for later runs, by whole folders: a run's, or another one of the project. What is over -
the folder of a run that has come back - is noted before the job ends here, so that no crash forgets it.
Which files have been sent is noted for people who ask where a run would have its results first.
"""

import os
import sqlite3
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from scipion_cloud.errors import JobError

DEPTH = 4  # projects / PROJECT / Runs / RUN: the folders that are kept or removed as one
_SCHEMA = """
CREATE TABLE IF NOT EXISTS inputs (path BLOB PRIMARY KEY, used REAL NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS over (path BLOB PRIMARY KEY) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS sent (path BLOB PRIMARY KEY, size INTEGER NOT NULL, changed INTEGER NOT NULL)
    WITHOUT ROWID;
"""


class Stamp(NamedTuple):
    """A file at home, as far as it can be told without reading it."""

    size: int  # bytes
    changed: int  # ns since 1970


@dataclass(frozen=True)
class Ledger:
    """The notes about one site. Raises JobError when they cannot be kept."""

    file: Path

    def use(self, paths: Iterable[str]) -> None:
        """These files are used from now on; their folders are not over, whatever was noted."""
        folders = {folder_of(path) for path in paths}
        with self._open() as db:
            used = ((os.fsencode(folder), time.time()) for folder in folders)
            db.executemany("INSERT OR REPLACE INTO inputs VALUES (?, ?)", used)
            db.executemany("DELETE FROM over WHERE path = ?", _each(folders))

    def end(self, paths: Iterable[str]) -> None:
        """Nobody needs these folders any more."""
        with self._open() as db:
            db.executemany("INSERT OR REPLACE INTO over VALUES (?)", _each(paths))

    def over(self) -> list[str]:
        """The folders that nobody needs any more."""
        with self._open() as db:
            return [os.fsdecode(path) for (path,) in db.execute("SELECT path FROM over ORDER BY path")]

    def removed(self, paths: Sequence[str]) -> None:
        """These folders are gone, with all files in them."""
        with self._open() as db:
            for table in ("over", "inputs", "sent"):
                db.executemany(f"DELETE FROM {table} WHERE path = ?", _each(paths))  # noqa: S608
            below = ((path + b"/", path + b"0") for (path,) in _each(paths))  # "0" comes after "/"
            db.executemany("DELETE FROM sent WHERE path > ? AND path < ?", below)

    def sent(self, files: Mapping[str, Stamp]) -> None:
        """These files lie there now, as they were here when they were sent."""
        with self._open() as db:
            rows = ((os.fsencode(path), *stamp) for path, stamp in files.items())
            db.executemany("INSERT OR REPLACE INTO sent VALUES (?, ?, ?)", rows)

    def same(self, files: Mapping[str, Stamp]) -> list[str]:
        """Which of these files lie there as they are here."""
        query = "SELECT size, changed FROM sent WHERE path = ?"
        with self._open() as db:
            return [
                path
                for path, stamp in files.items()
                if db.execute(query, (os.fsencode(path),)).fetchone() == stamp
            ]

    def last_used(self) -> dict[str, float]:
        """When each folder was used last, s since 1970."""
        with self._open() as db:
            return {os.fsdecode(path): used for path, used in db.execute("SELECT path, used FROM inputs")}

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        try:
            self.file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            db = sqlite3.connect(self.file, timeout=30)
            try:
                db.executescript(_SCHEMA)
                with db:
                    yield db
            finally:
                db.close()
        except (sqlite3.Error, OSError) as e:
            raise JobError(f"{self.file} cannot be used ({e}). Is the disk full?") from e


def _each(paths: Iterable[str]) -> Iterator[tuple[bytes]]:
    return ((os.fsencode(path),) for path in paths)  # of any bytes


def folder_of(path: str) -> str:
    """The folder that a file below the area is kept or removed with."""
    return "/".join(path.split("/")[:DEPTH])


def too_old(
    sizes: Mapping[str, int], used: Mapping[str, float], busy: set[str], most: float | None, oldest: float
) -> list[str]:
    """The folders to remove: those last used before `oldest`, then the oldest until `most` bytes are left.

    Those in `busy`, and what is below them, stay. One of which nobody knows when it was used counts as the
    oldest.
    """

    def last(path: str) -> float:
        return next((used[folder] for folder in _up(path) if folder in used), 0.0)

    left, victims = sum(sizes.values()), []
    for path in sorted(sizes, key=lambda p: (last(p), p)):
        too_much = most is not None and left > most
        if not busy.intersection(_up(path)) and (too_much or last(path) < oldest):
            victims.append(path)
            left -= sizes[path]
    return victims


def _up(path: str) -> list[str]:
    """A path and all folders that it is in."""
    parts = path.split("/")
    return ["/".join(parts[:n]) for n in range(len(parts), 0, -1)]
