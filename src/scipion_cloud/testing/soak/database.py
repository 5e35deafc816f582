"""A database whose rows prove by themselves that none is missing: each holds a digest of all before it."""

import hashlib
import sqlite3
from contextlib import closing
from pathlib import Path

START = "0" * 64


def make(path: Path, mode: str) -> None:
    """A new one, in journal mode `wal` or `delete`."""
    with closing(connect(path, mode)) as db, db:
        db.execute("CREATE TABLE rows (seq INTEGER PRIMARY KEY, payload BLOB, chain TEXT)")
        db.execute("CREATE TABLE total (count INTEGER, chain TEXT)")
        db.execute("INSERT INTO total VALUES (0, ?)", (START,))


def connect(path: Path, mode: str = "") -> sqlite3.Connection:
    """Open it as a program does that works with it."""
    db = sqlite3.connect(path, timeout=60)
    if mode:
        db.execute(f"PRAGMA journal_mode = {mode}")
    db.execute("PRAGMA synchronous = OFF")  # no power is cut here
    return db


def count(db: sqlite3.Connection) -> int:
    """How many rows there are."""
    return int(db.execute("SELECT count FROM total").fetchone()[0])


def add(db: sqlite3.Connection, payload: bytes) -> None:
    """One more row, in one transaction."""
    with db:
        db.execute("BEGIN IMMEDIATE")
        number, chain = db.execute("SELECT count, chain FROM total").fetchone()
        chain = link(chain, payload)
        db.execute("INSERT INTO rows VALUES (?, ?, ?)", (number + 1, payload, chain))
        db.execute("UPDATE total SET count = ?, chain = ?", (number + 1, chain))


def link(chain: str, payload: bytes) -> str:
    """The digest of a row and of all before it."""
    return hashlib.sha256(chain.encode() + payload).hexdigest()


def check(path: Path) -> tuple[int, str]:
    """How many rows a copy has, and what is wrong with it, if anything is."""
    try:
        with closing(sqlite3.connect(path)) as db:
            if (said := db.execute("PRAGMA integrity_check").fetchone()[0]) != "ok":
                return 0, f"integrity check: {said}"
            number, total = db.execute("SELECT count, chain FROM total").fetchone()
            chain, rows = START, 0
            for seq, payload, here in db.execute("SELECT seq, payload, chain FROM rows ORDER BY seq"):
                chain, rows = link(chain, payload), rows + 1
                if (seq, here) != (rows, chain):
                    return number, f"row {rows} is another"
            wrong = "" if (number, total) == (rows, chain) else f"{rows} rows, but {number} were counted"
            return number, wrong
    except sqlite3.Error as e:
        return 0, f"no database any more: {e}"
