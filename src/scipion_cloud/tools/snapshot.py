"""The state of a Scipion project, read from its databases without Scipion (milliseconds instead of seconds).

`project.sqlite` holds all protocols; a launched one keeps its truth in its own `logs/run.db`, and Scipion
copies that back only when somebody looks. Here both are read, never written, and merged as Scipion would.
"""

import re
import shutil
import sqlite3
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from urllib.parse import quote

_DATABASE = "project.sqlite"
_TIMEOUT = 2.0  # s to wait for a writer's transaction
# Whoever has the desktop can put any database there. These bounds are far beyond those of a real project.
_LONGEST = 5.0  # s that reading may take
_MOST_ROWS = 1_000_000
_MOST_TEXT = 1 << 20  # bytes of one value
_MOST_COPIED = 1 << 30  # bytes of a database with a dead writer's journal
_COLOURS = re.compile(r"\x1b\[[0-9;]*m")
_ATTRIBUTE = re.compile(r"(\d+)\.([A-Za-z_]\w*)")


@dataclass(frozen=True)
class ProtocolInfo:
    """One protocol ("box") of a project.

    Times are UTC; `status` is Scipion's own word (saved, launched, running, finished, failed, aborted, ...);
    `run_dir` is relative to the project.
    """

    id: int
    class_name: str
    label: str
    comment: str
    status: str
    created: datetime | None
    started: datetime | None
    ended: datetime | None
    run_dir: str
    job_id: str
    error: str
    parents: tuple[int, ...]
    outputs: tuple[str, ...]

    @property
    def is_active(self) -> bool:
        """True while Scipion counts it as going on."""
        return self.status in ("launched", "running", "scheduled", "waiting")


@dataclass(frozen=True)
class ProjectSnapshot:
    """All protocols of a project by id, and what could not be read, in words."""

    protocols: tuple[ProtocolInfo, ...]
    problems: tuple[str, ...]

    def find(self, protocol_id: int) -> ProtocolInfo | None:
        """The protocol with that id."""
        return next((p for p in self.protocols if p.id == protocol_id), None)


@dataclass(frozen=True)
class _Row:
    id: int
    parent: int | None
    name: str
    class_name: str
    value: str
    label: str
    comment: str
    creation: str


class _Objects:
    """The objects of a database, in one pass; names are `<protocol>.<attribute>` or deeper."""

    def __init__(self, rows: Iterable[_Row]) -> None:
        self.by_id: dict[int, _Row] = {}
        self.fields: dict[int, dict[str, _Row]] = {}  # of each protocol, its direct attributes by name
        self.pointers: dict[int, set[int]] = {}  # of each protocol, the objects that its inputs point to
        for row in rows:
            self.by_id[row.id] = row
            if found := _ATTRIBUTE.fullmatch(row.name):
                self.fields.setdefault(int(found[1]), {})[found[2]] = row
            if row.class_name == "Pointer" and row.value.isdecimal():
                self.pointers.setdefault(_owner(row), set()).add(int(row.value))

    def protocols(self) -> list[_Row]:
        """Objects without a parent that have a status."""
        tops = (self.by_id.get(key) for key, fields in sorted(self.fields.items()) if "status" in fields)
        return [row for row in tops if row is not None and row.parent is None]

    def parents(self, protocol: int) -> tuple[int, ...]:
        """The protocols whose outputs this one takes: a pointer names a protocol or something in one."""
        targets = (self.by_id.get(number) for number in self.pointers.get(protocol, ()))
        owners = {_owner(row) for row in targets if row is not None} - {protocol}
        return tuple(sorted(number for number in owners if "status" in self.fields.get(number, {})))


def _owner(row: _Row) -> int:
    """The protocol that an object belongs to."""
    number, dot, _ = row.name.partition(".")
    return int(number) if dot and number.isdecimal() else row.id


def read_project(path: Path) -> ProjectSnapshot:
    """Read the project in folder `path`.

    Never raises for a bad database: what can be read is returned, and `problems` tells the rest. Links that
    lead out of the project are not followed.
    """
    problems: list[str] = []
    try:
        objects = _Objects(_rows(path / _DATABASE, path))
    except (OSError, sqlite3.Error) as e:
        return ProjectSnapshot((), (f"{_DATABASE} could not be read: {e}.",))
    protocols = []
    for top in objects.protocols():
        fields = objects.fields[top.id]
        own, own_problem = _run_fields(path, top.id, fields)
        if own_problem:
            problems.append(f"{_name(top)}: {own_problem}")
        protocols.append(_protocol(top, fields, own, objects.parents(top.id)))
    return ProjectSnapshot(tuple(protocols), tuple(problems))


def _rows(file: Path, project: Path, only: int | None = None) -> list[_Row]:
    """The objects in a database: all of them, or a protocol and what belongs to it."""
    if file.is_symlink() or not file.resolve().is_relative_to(project.resolve()):
        raise OSError("it is a link to somewhere else")
    if not file.is_file():
        raise FileNotFoundError("there is no such file")
    query = "SELECT id, parent_id, name, classname, value, label, comment, creation FROM Objects"
    values: tuple[int | str, ...] = ()
    if only is not None:
        query += " WHERE id = ? OR name LIKE ?"
        values = (only, f"{only}.%")
    with _connection(file) as db:
        found = db.execute(f"{query} LIMIT {_MOST_ROWS}", values).fetchall()
    return [_Row(r[0], r[1], *(str(v) if v is not None else "" for v in r[2:])) for r in found]


@contextmanager
def _connection(file: Path) -> Iterator[sqlite3.Connection]:
    """A read-only connection.

    Where a dead writer left a journal behind, which only a writer may undo, a private copy is read instead.
    """
    try:
        with closing(_open(file, "ro")) as db:
            db.execute("SELECT 1 FROM sqlite_master LIMIT 1").fetchone()
            yield db
            return
    except sqlite3.OperationalError:
        journal = file.with_name(file.name + "-journal")
        if not journal.is_file() or journal.is_symlink() or file.stat().st_size > _MOST_COPIED:
            raise
    with tempfile.TemporaryDirectory(prefix="scipion-cloud-") as folder:
        copy = Path(folder) / file.name
        shutil.copyfile(file, copy)
        shutil.copyfile(journal, copy.with_name(journal.name))
        with closing(_open(copy, "rw")) as db:
            yield db


def _open(file: Path, mode: str) -> sqlite3.Connection:
    db = sqlite3.connect(f"file:{quote(str(file.absolute()))}?mode={mode}", uri=True, timeout=_TIMEOUT)
    db.text_factory = lambda raw: raw.decode(errors="replace")
    db.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, _MOST_TEXT)
    end = time.monotonic() + _LONGEST
    db.set_progress_handler(lambda: time.monotonic() > end, 100_000)
    return db


def _run_fields(path: Path, protocol: int, fields: dict[str, _Row]) -> tuple[dict[str, _Row] | None, str]:
    """The attributes in the run's own database if it is newer than what the project knows, and a problem."""
    run_dir = _run_dir(fields)
    if not run_dir:
        return None, ""
    file = path / run_dir / "logs" / "run.db"
    try:
        modified = datetime.fromtimestamp(file.stat().st_mtime, UTC)
        known = _time(_value(fields, "lastUpdateTimeStamp"))
        if known is not None and modified <= known:
            return None, ""
        return _Objects(_rows(file, path, protocol)).fields.get(protocol), ""
    except FileNotFoundError:
        return None, ""
    except (OSError, sqlite3.Error) as e:
        return None, f"the state of the run could not be read ({e})."


def _protocol(
    top: _Row, fields: dict[str, _Row], own: dict[str, _Row] | None, parents: tuple[int, ...]
) -> ProtocolInfo:
    state = own if own and "status" in own else fields  # the label and the job belong to the project
    return ProtocolInfo(
        id=top.id,
        class_name=top.class_name,
        label=top.label or _name(top),
        comment=top.comment,
        status=_value(state, "status"),
        created=_time(top.creation, utc=True),
        started=_time(_value(state, "initTime")),
        ended=_time(_value(state, "endTime")),
        run_dir=_run_dir(fields),
        job_id=_value(fields, "_jobId") or _value(state, "_jobId"),
        error=_COLOURS.sub("", _value(state, "_error")).strip(),
        parents=parents,
        outputs=tuple(filter(None, _value(state, "_outputs").split(","))),
    )


def _name(row: _Row) -> str:
    return row.label or f"{row.class_name}.{row.id}"


def _value(fields: dict[str, _Row], name: str) -> str:
    return fields[name].value if name in fields else ""


def _run_dir(fields: dict[str, _Row]) -> str:
    """The run's folder, or "" if it is unset or would lead out of the project."""
    folder = PurePosixPath(_value(fields, "workingDir"))
    unsafe = folder.is_absolute() or ".." in folder.parts or not folder.parts
    return "" if unsafe else str(folder)


def _time(text: str, utc: bool = False) -> datetime | None:
    """A time as Scipion writes it: local without a zone (SQLite's own `creation` is UTC)."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    return moment.replace(tzinfo=UTC) if utc else moment.astimezone(UTC)
