"""What a copied project says about where it is."""

import contextlib
import os
import sqlite3
import time
from pathlib import Path
from urllib.parse import quote

from scipion_cloud.copies.report import Report

_LONGEST = 60.0  # seconds for one database, which anybody can have made


def rehome(project: Path, old: Path, new: Path, report: Report) -> None:
    """Let the boxes of the project in folder `project` name files in `new` where they name files in `old`.

    Scipion keeps what a person chose in its file dialogs by absolute paths: a box that is run again in a copy
    must read the copy's files. The databases keep their times, by which Scipion judges which is the newer.
    """
    for file in (project / "project.sqlite", *sorted(project.glob("Runs/*/logs/run.db"))):
        inside = file.resolve().is_relative_to(project.resolve())
        if not inside or file.is_symlink() or not file.is_file():
            continue
        before = file.stat()
        try:
            _rehome(file, str(old), str(new))
        except sqlite3.Error as e:
            text = f"still names files of the original ({e})."
            report.problem(os.fsencode(file.relative_to(project)), text)
        os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))


def _rehome(file: Path, old: str, new: str) -> None:
    with contextlib.closing(sqlite3.connect(f"file:{quote(str(file))}?mode=rw", uri=True)) as db:
        end = time.monotonic() + _LONGEST
        db.set_progress_handler(lambda: time.monotonic() > end, 100_000)
        db.execute("PRAGMA trusted_schema = OFF")
        with db:
            db.execute(
                "UPDATE Objects SET value = ? || substr(value, ?) WHERE value = ? OR substr(value, 1, ?) = ?",
                (new, len(old) + 1, old, len(old) + 1, f"{old}/"),
            )
