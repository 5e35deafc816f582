"""What a symlink of a working copy means anywhere else."""

import os
from pathlib import Path

from scipion_cloud.sync.entry import Entry, EntryKind, parent_of

OUTSIDE = "leads out of the project; it is saved as it is, but what it leads to is not."


class Symlinks:
    """Tells what is to be saved of the symlinks in the folder `root`; `source` is a read-only dataset."""

    def __init__(self, root: Path, source: Path | None) -> None:
        self._roots = _names(root)
        self._sources = _names(source) if source else ()

    def entry(self, path: bytes, text: bytes, mtime_ns: int) -> tuple[Entry, bool]:
        """The entry of the symlink at `path` that says `text`, and whether it stays in the project or source.

        A link to a place in the project is relative in the entry, one into the source tells the place there.
        """
        folder = parent_of(path)
        kind, target, inside = EntryKind.LINK, text, True
        if not text.startswith(b"/") and not _climbs(
            os.path.normpath(folder + b"/" + text if folder else text)
        ):
            return Entry(path, kind, 0o777, mtime_ns, target=target), True
        whole = text if text.startswith(b"/") else b"/".join((self._roots[0], folder, text))
        whole = os.path.normpath(whole)
        for place in (whole, _real(whole)):
            if (below := _below(place, self._roots)) is not None:
                target = os.path.relpath(b"/" + below, b"/" + folder)
                break
            if (below := _below(place, self._sources)) is not None:
                kind, target = EntryKind.SOURCE_LINK, below
                break
        else:
            inside = False
        return Entry(path, kind, 0o777, mtime_ns, target=target), inside


def _names(folder: Path) -> tuple[bytes, ...]:
    """A folder's absolute names: as it was given, and without symlinks on the way."""
    given = os.path.normpath(os.fsencode(folder.absolute()))
    return tuple(dict.fromkeys((given, os.path.realpath(given))))


def _real(path: bytes) -> bytes:
    """A path without symlinks on the way to it; what it is itself is not followed."""
    folder, name = os.path.split(path)
    return os.path.realpath(folder).rstrip(b"/") + b"/" + name


def _below(path: bytes, roots: tuple[bytes, ...]) -> bytes | None:
    """The path below one of the roots; b"" for a root itself, None if it is below none."""
    for root in roots:
        if path == root:
            return b""
        if path.startswith(root.rstrip(b"/") + b"/"):
            return path[len(root.rstrip(b"/")) + 1 :]
    return None


def _climbs(path: bytes) -> bool:
    return path == b".." or path.startswith(b"../")
