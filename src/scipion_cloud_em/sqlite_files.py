"""Copies of live SQLite databases, and mending of those that a killed process left behind."""

import sqlite3
from contextlib import closing
from pathlib import Path

_TIMEOUT = 60  # s to wait for another process's transaction


def copy_database(source: Path, target: Path) -> None:
    """Copy a database that others may be writing to; the copy is whole, unlike one made by reading the file.

    A target that exists is overwritten in one transaction, which also undoes a half-written one
    that was left in it. A target that is no database any more is replaced.
    """
    try:
        _backup(source, target)
    except sqlite3.DatabaseError:
        if not target.exists() or is_sound(target):
            raise  # the fault is the source's, or the disk is full
        remove_database(target)
        _backup(source, target)


def _backup(source: Path, target: Path) -> None:
    with (
        closing(sqlite3.connect(f"{source.absolute().as_uri()}?mode=rw", uri=True, timeout=_TIMEOUT)) as old,
        closing(sqlite3.connect(target, timeout=_TIMEOUT)) as new,
    ):
        old.backup(new, sleep=0.01)  # s between tries while another writes; the default is 0.25


def is_sound(file: Path) -> bool:
    """True if the database can be read; opening it completes or undoes what a dead writer began."""
    try:
        with closing(
            sqlite3.connect(f"{file.absolute().as_uri()}?mode=rw", uri=True, timeout=_TIMEOUT)
        ) as db:
            return db.execute("PRAGMA quick_check").fetchone() == ("ok",)
    except sqlite3.DatabaseError:
        return False


def remove_database(file: Path) -> None:
    """Remove a database together with its journal: a journal must never meet another file."""
    for suffix in ("", "-journal", "-wal", "-shm"):
        file.with_name(file.name + suffix).unlink(missing_ok=True)
