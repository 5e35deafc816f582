"""A pure snapshot of a tree, and what lies between two of them."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from scipion_cloud.errors import SyncError
from scipion_cloud.sync.entry import Entry, EntryKind, parent_of

LONGEST_PATH = 1 << 20  # bytes; longer ones are no path but an attack


class Manifest(Mapping[bytes, Entry]):
    """The entries of a tree by path. What a manifest holds can be restored without leaving its folder.

    Raises SyncError for entries that cannot stand together: a path that is absolute or climbs, a parent that
    is missing or no folder, a hard link to anything but a file.
    """

    def __init__(self, entries: Iterable[Entry] = ()) -> None:
        self._entries = {entry.path: entry for entry in entries}
        folders = {e.path for e in self._entries.values() if e.kind is EntryKind.FOLDER} | {b""}
        for entry in self._entries.values():
            _check(entry, folders, self._entries)

    def __getitem__(self, path: bytes) -> Entry:
        return self._entries[path]

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, path: object) -> bool:
        return path in self._entries

    @property
    def files(self) -> int:
        """How many files there are."""
        return sum(e.kind is EntryKind.FILE for e in self._entries.values())

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(e.size for e in self._entries.values())


def _check(entry: Entry, folders: set[bytes], entries: Mapping[bytes, Entry]) -> None:
    path = entry.path
    if (
        not path
        or len(path) > LONGEST_PATH
        or b"\0" in path
        or any(part in (b"", b".", b"..") for part in path.split(b"/"))
    ):
        raise SyncError(f"A manifest names {path[:200]!r}, which is no path inside a project.")
    if parent_of(path) not in folders:
        raise SyncError(f"A manifest names {path[:200]!r}, but what should be its folder is none.")
    if entry.kind is EntryKind.HARD_LINK:
        first = entries.get(entry.target)
        if first is None or first.kind is not EntryKind.FILE:
            raise SyncError(f"A manifest calls {path[:200]!r} another name of a file that is not there.")
    elif entry.kind is EntryKind.FILE and len(entry.digest) != 32:
        raise SyncError(f"A manifest gives no digest for {path[:200]!r}.")


@dataclass(frozen=True)
class Plan:
    """What turns one tree into another."""

    put: tuple[Entry, ...]  # new or different in any way; folders before what is in them
    remove: tuple[Entry, ...]  # as they were; what is in a folder before the folder

    def __bool__(self) -> bool:
        return bool(self.put or self.remove)


def diff(old: Mapping[bytes, Entry], new: Mapping[bytes, Entry]) -> Plan:
    """What turns `old` into `new`."""
    put = [entry for path, entry in new.items() if old.get(path) != entry]
    remove = [entry for path, entry in old.items() if path not in new]
    put.sort(key=lambda entry: entry.path)
    remove.sort(key=lambda entry: entry.path, reverse=True)
    return Plan(tuple(put), tuple(remove))


def apply(plan: Plan, tree: Mapping[bytes, Entry]) -> Manifest:
    """The tree after a plan. Raises SyncError if that is none."""
    entries = dict(tree)
    for entry in plan.remove:
        entries.pop(entry.path, None)
    for entry in plan.put:
        entries[entry.path] = entry
    return Manifest(entries.values())


def same_content(a: Entry | None, b: Entry | None) -> bool:
    """Whether two files hold the same bytes, so that only the manifest has to change."""
    return (
        a is not None
        and b is not None
        and a.kind is EntryKind.FILE
        and b.kind is EntryKind.FILE
        and a.digest == b.digest
        and a.size == b.size
    )
