"""One name in a tree, as a manifest tells it."""

from collections.abc import Iterator
from enum import StrEnum
from typing import NamedTuple


class EntryKind(StrEnum):
    """What a name in a tree is. The letters are what manifests hold."""

    FILE = "f"
    FOLDER = "d"
    LINK = "l"  # a symlink; `target` is what it says
    HARD_LINK = "h"  # another name of the file `target`, a path in the same tree
    SOURCE_LINK = "s"  # a symlink into the read-only source; `target` is the path below the source's root


class Entry(NamedTuple):
    """One name in a tree. A tuple, since a project has hundreds of thousands of them."""

    path: bytes  # relative to the project's folder, '/' between its parts
    kind: EntryKind
    mode: int = 0o644  # permission bits only
    mtime_ns: int = 0  # since the epoch
    size: int = 0  # bytes; 0 unless it is a file
    digest: bytes = b""  # BLAKE3, 32 bytes; empty unless it is a file
    target: bytes = b""
    sparse: bool = False  # a file with holes: long runs of zeros are left out again when it is restored


def parent_of(path: bytes) -> bytes:
    """The path of the folder that holds a path; b"" for what stands at the top."""
    return path.rpartition(b"/")[0]


def parents_of(path: bytes) -> Iterator[bytes]:
    """The paths of all folders that hold a path, from the innermost to the outermost, without the top."""
    while path := parent_of(path):
        yield path
