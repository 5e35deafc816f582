"""What stood under every name of a working copy, and when: written by who changes it, read by who judges.

One JSON line before each change ({"t0", "set"}), one after it ({"t1"}); times are of the machine's clock.
"""

import hashlib
import json
import math
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

from blake3 import blake3

EMPTY = blake3().hexdigest()


@dataclass(frozen=True)
class State:
    """What stands under one name."""

    kind: str  # f: file, d: folder, l: symlink, b: a database, judged by its own rules
    mode: int = 0o644
    size: int = 0
    digest: str = ""  # hex
    target: str = ""  # of a symlink, as latin-1
    inode: str = ""  # names of one file have the same
    token: str = ""  # its bytes from `base` on are made of this
    base: int = 0
    base_digest: str = EMPTY


Change = Mapping[bytes, State | None]


class Version(NamedTuple):
    """A state that came to be between two moments (s since the epoch)."""

    begun: float
    done: float
    state: State | None


class Transaction(NamedTuple):
    """One of a database; its number of rows afterwards."""

    begun: float
    done: float
    rows: int


def content(token: str, size: int) -> bytes:
    """The bytes that a token stands for; those for a smaller size are their beginning."""
    return hashlib.shake_128(token.encode()).digest(size)


class Ledger:
    """The writing side. What a killed writer had begun is in `torn`."""

    def __init__(self, path: Path) -> None:
        history = History(path)
        self.names = {p: v[-1].state for p, v in history.versions.items()}
        self.torn = [p for p, v in history.versions.items() if v[-1].done == math.inf]
        self._file = path.open("ab", buffering=0)

    def begin(self, change: Change) -> None:
        """Something is about to be changed."""
        self.names.update(change)
        self._add({"t0": time.time(), "set": {_text(p): s and asdict(s) for p, s in change.items()}})

    def end(self) -> None:
        """It has been changed."""
        self._add({"t1": time.time()})

    def begin_rows(self, database: bytes, rows: int) -> None:
        """A transaction after which a database has `rows` is about to begin."""
        self._add({"t0": time.time(), "db": _text(database), "rows": rows})

    def close(self) -> None:
        """The end."""
        self._file.close()

    def _add(self, values: dict[str, Any]) -> None:
        self._file.write(json.dumps(values).encode() + b"\n")


class History:
    """The reading side: the versions of every name, in order."""

    def __init__(self, path: Path) -> None:
        self.versions: dict[bytes, list[Version]] = {}
        self.transactions: dict[bytes, list[Transaction]] = {}
        for begun, done, values in _changes(path):
            if "db" in values:
                row = Transaction(begun, done, values["rows"])
                self.transactions.setdefault(values["db"].encode("latin-1"), []).append(row)
                continue
            for name, state in values["set"].items():
                version = Version(begun, done, State(**state) if state else None)
                self.versions.setdefault(name.encode("latin-1"), []).append(version)

    def possible(self, path: bytes, since: float, until: float) -> list[Version]:
        """What may have been seen under a name between two moments."""
        versions = self.versions.get(path, [])
        found = [Version(-math.inf, -math.inf, None)] if not versions or versions[0].done >= since else []
        for version, after in zip(versions, [*versions[1:], None], strict=False):
            if version.begun <= until and (after is None or after.done >= since):
                found.append(version)
        return found

    def rows(self, database: bytes, since: float, until: float) -> tuple[int, int]:
        """How many rows a copy of a database, taken between two moments, has at least and at most."""
        done = [t.rows for t in self.transactions.get(database, []) if t.done < since]
        begun = [t.rows for t in self.transactions.get(database, []) if t.begun <= until]
        return max(done, default=0), max(begun, default=0)


def start(path: Path, names: Change) -> None:
    """Begin a ledger with what stands there from the beginning of time."""
    values = {"t0": -math.inf, "set": {_text(p): s and asdict(s) for p, s in names.items()}}
    path.write_text(f"{json.dumps(values)}\n{json.dumps({'t1': -math.inf})}\n")


def start_rows(path: Path, database: bytes, rows: int) -> None:
    """A database has rows from the beginning of time."""
    values = {"t0": -math.inf, "db": _text(database), "rows": rows}
    with path.open("a") as file:
        file.write(f"{json.dumps(values)}\n{json.dumps({'t1': -math.inf})}\n")


def _changes(path: Path) -> Iterator[tuple[float, float, dict[str, Any]]]:
    """Begin, end and values of each change; the end of the last one may be missing."""
    pending: dict[str, Any] | None = None
    for line in path.read_bytes().splitlines(keepends=True):
        if not line.endswith(b"\n"):
            break
        values = json.loads(line)
        if "t1" not in values:
            if pending is not None:  # its writer was killed; the next one tells what came of it
                yield pending["t0"], math.inf if "db" in pending else values["t0"], pending
            pending = values
        elif pending is not None:
            yield pending["t0"], values["t1"], pending
            pending = None
    if pending is not None:
        yield pending["t0"], math.inf, pending


def _text(path: bytes) -> str:
    return path.decode("latin-1")
