"""The files that databases of Scipion and its objects name. Standard library only."""

import os
import re
import sqlite3
from contextlib import closing
from pathlib import Path

_NUMBERED = re.compile(r"[\w,./-]*?@", re.ASCII)  # 12@stack.mrcs, class001@file.star
_KIND = re.compile(r":\w{1,8}$", re.ASCII)  # volume.map:mrc
_LONGEST = 4096  # characters of a path
_DATABASES = (".sqlite", ".db")


def named_in(database: Path) -> set:
    """All text in a database that may name a file: each value with a slash, once. Raises sqlite3.Error."""
    with closing(_open(database)) as db:
        db.text_factory = os.fsdecode  # names may be of any bytes
        found = set()
        for (table,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall():
            for column in db.execute(f"PRAGMA table_info({_quoted(table)})").fetchall():
                name = _quoted(column[1])
                found.update(
                    value
                    for (value,) in db.execute(
                        f"SELECT DISTINCT {name} FROM {_quoted(table)} WHERE typeof({name}) = 'text'"  # noqa: S608
                        f" AND instr({name}, '/') AND length({name}) <= {_LONGEST}"
                        f" AND substr({name}, 1, 1) != '['"  # a matrix
                    )
                )
        return found


def file_of(text: str, root: Path) -> str:
    """The path of the file that a text names, as it stands there; "" if there is none in the project.

    A part of a file is named as `12@stack.mrcs`, its kind as `volume.map:mrc`.
    """
    if "/" not in text or "\0" in text or len(text) > _LONGEST:
        return ""
    for path in dict.fromkeys((text, _NUMBERED.sub("", text, count=1))):
        for bare in dict.fromkeys((path, _KIND.sub("", path))):
            if os.path.isfile(root / bare):  # noqa: PTH113 - far quicker, and there may be a million
                return bare
    return ""


def is_database(path: str) -> bool:
    """Whether a file is called like a database."""
    return path.endswith(_DATABASES)


def tree(folder: str, root: Path) -> list:
    """All files and links below a folder of the project, as paths relative to it; nothing if it is none."""
    found = []
    for base, folders, files in os.walk(root / folder):
        links = [name for name in folders if os.path.islink(os.path.join(base, name))]  # noqa: PTH114, PTH118
        found += [os.path.relpath(os.path.join(base, name), root) for name in (*files, *links)]  # noqa: PTH118
    return found


def _open(database: Path) -> sqlite3.Connection:
    return sqlite3.connect(f"{database.absolute().as_uri()}?mode=ro", uri=True, timeout=60)


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
