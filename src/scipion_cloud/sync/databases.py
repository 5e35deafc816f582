"""SQLite databases that are in use, copied as SQLite itself does it."""

import contextlib
import errno
import os
import sqlite3
import time
from pathlib import Path
from urllib.parse import quote

HEADER = b"SQLite format 3\0"
COMPANIONS = (b"-wal", b"-shm", b"-journal")
LONGEST = 500  # bytes of a path; SQLite opens none with more than 512
PAUSE = 0.05  # seconds between two tries

_IS_NONE = ("SQLITE_NOTADB", "SQLITE_CORRUPT", "SQLITE_ERROR", "SQLITE_FORMAT", "SQLITE_IOERR_SHORT_READ")
_NEEDS_WRITING = ("SQLITE_READONLY_ROLLBACK", "SQLITE_READONLY_RECOVERY", "SQLITE_READONLY_CANTINIT")


class Busy(OSError):
    """Somebody has had a database locked for all the time that there was."""


def looks_like_database(fd: int) -> bool:
    """Whether an open file begins as SQLite databases do."""
    return os.pread(fd, len(HEADER), 0) == HEADER


def back_up(database: bytes, target: Path, wait: float) -> bool:
    """Write what is committed in the database at an absolute path to `target`, an empty file, as a database.

    False if it only looks like one, or is damaged. Nothing in it is changed, but if a crashed program has
    left its journal, that is rolled back, as the next program that opens the database would do. Raises Busy
    after `wait` seconds, OSError if the disk is full or fails.
    """
    if len(database) > LONGEST:
        return False
    deadline = time.monotonic() + wait
    for mode in ("ro", "rw"):
        try:
            _copy(f"file:{quote(database)}?mode={mode}", target, deadline)
            return True
        except sqlite3.Error as e:
            name = getattr(e, "sqlite_errorname", "")
            if name in _NEEDS_WRITING and mode == "ro":
                continue
            if name.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
                raise _busy() from e
            if name == "SQLITE_FULL":
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)) from e
            if name.startswith(_IS_NONE) or mode == "rw":  # where we may not write, nobody of us does
                return False
            # what cannot be looked at now may well be a database that somebody writes
            raise OSError(errno.EIO, f"SQLite cannot read it: {e}") from e
    return False


def _copy(uri: str, target: Path, deadline: float) -> None:
    def give_up(_status: int, _remaining: int, _total: int) -> None:
        if time.monotonic() > deadline:
            raise _busy()

    with (
        contextlib.closing(sqlite3.connect(uri, uri=True, timeout=PAUSE)) as source,
        contextlib.closing(sqlite3.connect(target)) as copy,
    ):
        copy.execute("PRAGMA journal_mode = OFF")
        copy.execute("PRAGMA synchronous = OFF")
        # all pages in one step: else every write by another process starts it again
        source.backup(copy, pages=-1, progress=give_up, sleep=PAUSE)


def _busy() -> Busy:
    return Busy(errno.EBUSY, "it is locked by another program")
