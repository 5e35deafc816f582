"""What has changed in a working copy since it was last saved or restored."""

import errno
import os
import stat as modes
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

from scipion_cloud.sync.copy import WorkingCopy
from scipion_cloud.sync.databases import COMPANIONS, looks_like_database
from scipion_cloud.sync.entry import Entry, EntryKind, parent_of
from scipion_cloud.sync.index import WIDTH, Index, identity_of
from scipion_cloud.sync.progress import Problem
from scipion_cloud.sync.scan import scan
from scipion_cloud.sync.symlinks import OUTSIDE, Symlinks


class Local(NamedTuple):
    """A file whose content has to be looked at."""

    path: bytes
    size: int  # bytes
    identity: bytes
    companions: tuple["Local", ...] = ()  # of a database: to be saved only if it turns out to be none


@dataclass
class Changes:
    """A working copy compared with its index."""

    entries: dict[bytes, Entry] = field(default_factory=dict)  # all but `files`; the index' own if unchanged
    identities: dict[bytes, bytes] = field(default_factory=dict)  # of what is not as the index says
    files: dict[bytes, Local] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)


def changes(copy: WorkingCopy, index: Index) -> Changes:
    """Look at all of a working copy, but into no file. Raises OSError only if there is no such folder."""
    return _Look(copy, index).look()


class _Look:
    def __init__(self, copy: WorkingCopy, index: Index) -> None:
        self._copy = copy
        self._known = index.manifest
        self._held = index.identities
        self._links = Symlinks(copy.path, copy.source)
        self._seen = Changes()

    def look(self) -> Changes:
        seen, held, known = self._seen, self._held, self._known
        entries = seen.entries
        absent = self._absent()
        unknown: set[bytes] = set()
        linked: dict[tuple[int, int], list[Local]] = {}
        aside: list[Local] = []
        for path, stat in scan(self._copy.root, seen.problems, unknown):
            identity = identity_of(stat)
            if modes.S_ISREG(stat.st_mode):
                if stat.st_nlink > 1:
                    names = linked.setdefault((stat.st_dev, stat.st_ino), [])
                    names.append(Local(path, stat.st_size, identity))
                elif path.endswith(COMPANIONS):
                    aside.append(Local(path, stat.st_size, identity))
                elif held.get(path) == identity and (entry := known[path]).kind is EntryKind.FILE:
                    entries[entry.path] = entry
                else:
                    seen.files[path] = Local(path, stat.st_size, identity)
            elif held.get(path) == identity:
                entry = known[path]
                entries[entry.path] = entry
            else:
                self._folder_or_link(path, stat, identity)
        for names in linked.values():
            self._hard_links(sorted(names))
        self._companions(aside)
        if absent or unknown:
            self._keep(unknown, absent)
        return seen

    def _file(self, local: Local) -> None:
        entry = self._known.get(local.path)
        if self._held.get(local.path) == local.identity and entry and entry.kind is EntryKind.FILE:
            self._seen.entries[entry.path] = entry
        else:
            self._seen.files[local.path] = local

    def _folder_or_link(self, path: bytes, stat: os.stat_result, identity: bytes) -> None:
        if modes.S_ISDIR(stat.st_mode):
            self._take(Entry(path, EntryKind.FOLDER, modes.S_IMODE(stat.st_mode), stat.st_mtime_ns), identity)
            return
        try:
            with self._copy.parent(path) as (folder, name):
                text = os.readlink(name, dir_fd=folder)
        except OSError as e:
            self._seen.problems.append(Problem(path, f"could not be read ({e.strerror}).", unsaved=True))
            if (old := self._known.get(path)) is not None:
                self._seen.entries[old.path] = old
            return
        entry, inside = self._links.entry(path, text, stat.st_mtime_ns)
        if not inside:
            self._seen.problems.append(Problem(path, OUTSIDE))
        self._take(entry, identity)

    def _hard_links(self, names: list[Local]) -> None:
        """The first name in byte order is the file."""
        first, *others = names
        self._file(first)
        for other in others:
            self._take(Entry(other.path, EntryKind.HARD_LINK, target=first.path), other.identity)

    def _take(self, entry: Entry, identity: bytes) -> None:
        old = self._known.get(entry.path)
        if old is not None and old == entry:
            entry = old  # one object: there are hundreds of thousands
        self._seen.entries[entry.path] = entry
        if entry is not old or self._held.get(entry.path) != identity:
            self._seen.identities[entry.path] = identity

    def _companions(self, aside: Iterable[Local]) -> None:
        """Write-ahead logs and journals: parts of the database beside them, if there is one."""
        parts: dict[bytes, list[Local]] = {}
        for local in aside:
            suffix = next(s for s in COMPANIONS if local.path.endswith(s))
            base = local.path.removesuffix(suffix)
            try:
                database = self._is_database(base)
            except OSError as e:
                self._unread(base, local, e)
                continue
            if database:
                parts.setdefault(base, []).append(local)
            else:
                self._file(local)
        for base, locals_ in parts.items():
            self._database(base, tuple(sorted(locals_)))

    def _is_database(self, path: bytes) -> bool:
        """Whether it is one. Raises OSError if nobody can tell now."""
        if path not in self._seen.entries and path not in self._seen.files:
            return False
        try:
            with self._copy.parent(path) as (folder, name):
                fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
        except OSError as e:
            if e.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
                return False
            raise
        try:
            return modes.S_ISREG(os.fstat(fd).st_mode) and looks_like_database(fd)
        finally:
            os.close(fd)

    def _unread(self, path: bytes, companion: Local, error: OSError) -> None:
        """Nobody can tell whether it is a database: it and what is beside it stay as they were saved."""
        self._seen.problems.append(Problem(path, f"could not be read ({error.strerror}).", unsaved=True))
        self._seen.files.pop(path, None)
        for name in (path, companion.path):
            if (old := self._known.get(name)) is not None and old.kind is EntryKind.FILE:
                self._seen.entries[name] = old

    def _database(self, path: bytes, companions: tuple[Local, ...]) -> None:
        """A database has changed if its file has, or its log or journal."""
        local = self._seen.files.pop(path, None)
        entry = self._seen.entries.pop(path, None)
        own = local.identity if local else self._held.get(path, b"")[:WIDTH]
        size = local.size if local else entry.size if entry else 0
        companions = tuple(c for c in companions if not c.path.endswith(b"-shm"))  # made anew as needed
        logs = [c for c in companions if c.size]
        whole = own + b"".join(c.identity for c in logs)
        self._file(Local(path, size + sum(c.size for c in logs), whole, companions))
        if path in self._seen.entries:  # unchanged; if it was no database then, neither is it now
            for companion in companions:
                if companion.path in self._known:
                    self._file(companion)

    def _absent(self) -> frozenset[bytes]:
        """What has not arrived here before the scan; it may do so while that goes on."""
        if len(self._held) >= len(self._known):
            return frozenset()
        return frozenset(path for path in self._known if not self._held.get(path))

    def _keep(self, unknown: set[bytes], absent: frozenset[bytes]) -> None:
        """What could not be looked at, or has not arrived here yet, stays as it was saved."""
        seen, known = self._seen, self._known
        for path in sorted(p for p in known if p not in seen.entries and p not in seen.files):
            if path not in absent and not _is_below(path, unknown):
                continue
            folder = seen.entries.get(parent_of(path))
            if b"/" not in path or (folder is not None and folder.kind is EntryKind.FOLDER):
                seen.entries[path] = known[path]


def _is_below(path: bytes, places: set[bytes]) -> bool:
    """Whether a path is one of the places or below one."""
    if not places:
        return False
    while path not in places:
        if not path:
            return False
        path = parent_of(path)
    return True
