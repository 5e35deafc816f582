"""Results that have arrived, put in their place: the run's database last, for it tells that all is there."""

import contextlib
import os
import shutil
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path

from scipion_cloud.broker.parcel import Parcel
from scipion_cloud.errors import TransferError
from scipion_cloud.sync.layout import ARRIVING

_JOURNALS = ("-journal", "-wal", "-shm")


def arrivals(parcel: Parcel, job: int) -> Path:
    """Where the results of a job arrive: beside its run's folder, on the same disk, and never saved."""
    run = parcel.root / parcel.run
    return run.with_name(f"{ARRIVING}-{job}")


def place(arrived: Path, parcel: Parcel, roots: Mapping[str, Path]) -> None:
    """Move all that has arrived into the run's folder; what is there besides stays. May be repeated.

    `roots` says which absolute path at the site is which folder here: links into them are made to fit.
    Raises TransferError when the disk refuses.
    """
    run, last = parcel.root / parcel.run, arrived / "logs" / "run.db"
    try:
        for database in _torn(arrived):
            _mend(database)
        for path in _files(arrived):
            if path != last:
                _move(path, arrived, parcel, roots)
        if last.exists():
            os.utime(last)  # newer than what was seen of it: Scipion compares
            _move(last, arrived, parcel, roots)
        shutil.rmtree(arrived, ignore_errors=True)
    except (OSError, sqlite3.OperationalError) as e:
        reason = e.strerror if isinstance(e, OSError) and e.strerror else e
        raise TransferError(f"Results cannot be put into {run}: {reason}.") from e


def show_running(parcel: Parcel) -> None:
    """Let a desktop that has the project open see that the run, until now launched, runs."""
    database = parcel.root / parcel.run_db
    with (
        contextlib.suppress(sqlite3.Error),
        closing(sqlite3.connect(f"{database.as_uri()}?mode=rw", uri=True, timeout=10)) as db,
        db,
    ):
        db.execute(
            "UPDATE Objects SET value = 'running' WHERE name = ? AND value = 'launched'",
            (f"{parcel.protocol}.status",),
        )


def _files(folder: Path) -> Iterator[Path]:
    """All files and links below, and folders that hold none."""
    for base, folders, files in os.walk(folder):
        links = [name for name in folders if Path(base, name).is_symlink()]
        names = [*files, *links] or ([] if folders or base == str(folder) else [""])
        yield from (Path(base, name) for name in names)


def _move(path: Path, arrived: Path, parcel: Parcel, roots: Mapping[str, Path]) -> None:
    inner = path.relative_to(arrived)
    target = parcel.root / parcel.run / inner
    if path.is_dir() and not path.is_symlink():
        target.mkdir(parents=True, exist_ok=True)
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    if path.is_symlink() and not _fit(path, target, inner, parcel, roots):
        return
    if target.is_dir() and not target.is_symlink():
        target.rename(target.with_name(f"{target.name}.before"))  # it was a folder here, and is none there
    if path.name.endswith((".db", ".sqlite")):
        _remove_journals(target)
    path.replace(target)


def _fit(link: Path, target: Path, inner: Path, parcel: Parcel, roots: Mapping[str, Path]) -> bool:
    """Have a link say here what it said there; False, and it is gone, if the one that is here does."""
    there = next(place for place, root in roots.items() if root == parcel.root)
    text = os.fspath(link.readlink())
    whole = os.path.normpath(os.path.join(there, parcel.run, inner.parent, text))  # noqa: PTH118 - is text
    place = next((place for place in roots if f"{whole}/".startswith(f"{place}/")), None)
    if place is None or (place == there and not text.startswith("/")):
        return True
    meant = os.path.normpath(f"{roots[place]}{whole[len(place) :]}")
    if target.is_symlink() and os.path.normpath(target.parent / target.readlink()) == meant:
        link.unlink()
        return False
    new = link.with_name(f"{link.name}.new")
    new.unlink(missing_ok=True)
    new.symlink_to(meant if place != there else os.path.relpath(meant, target.parent))
    new.replace(link)
    return True


def _torn(folder: Path) -> Iterator[Path]:
    """Databases whose writer was killed: their journals are beside them."""
    found = {
        path.with_name(path.name.removesuffix(suffix)): None
        for path in _files(folder)
        for suffix in _JOURNALS
        if path.name.endswith(suffix)
    }
    yield from (database for database in found if database.is_file())


def _mend(database: Path) -> None:
    """Undo what a dead writer began: a journal must never meet another file than its own.

    Raises sqlite3.OperationalError when there is no room for that; nothing is lost by it.
    """
    try:
        with closing(sqlite3.connect(database, timeout=30)) as db:
            db.execute("PRAGMA quick_check").fetchall()
            db.execute("PRAGMA journal_mode = DELETE").fetchall()
    except sqlite3.Error as e:  # else it is no database, or one that nobody can mend
        if getattr(e, "sqlite_errorname", "").startswith(("SQLITE_FULL", "SQLITE_IOERR")):
            raise
    _remove_journals(database)


def _remove_journals(database: Path) -> None:
    for suffix in _JOURNALS:
        database.with_name(database.name + suffix).unlink(missing_ok=True)
