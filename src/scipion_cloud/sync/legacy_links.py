"""The link files of the systems before this one, and what their absolute targets mean.

West-Life: `linklist`, lines of "folder" "name" "target". Scipion in Kubernetes: `symlink-dump`, lines of
<target> <absolute link>. Neither quotes anything: what can be told apart is read, the rest is a Problem.
"""

import os
import posixpath
import re
from collections.abc import Collection, Iterable, Sequence
from typing import NamedTuple

from scipion_cloud.sync.entry import Entry, EntryKind, parent_of
from scipion_cloud.sync.progress import Problem

_PROJECTS = re.compile(rb"(.*)/ScipionUserData/projects((?:/.*)?)", re.S)
_SOURCE = re.compile(rb"(?:.*)/ScipionUserData/source(?:/(.*))?", re.S)
_MOUNT = re.compile(rb"(/mnt/[^/]+)((?:/.*)?)", re.S)
_USUAL = re.compile(rb"/mnt/[^/]+|.*/ScipionUserData/projects/[^/]+", re.S)


class OldLink(NamedTuple):
    """One line of a link file."""

    path: bytes  # of the link; mostly absolute, as it was on the old machine
    target: bytes


def parse_linklist(data: bytes) -> tuple[list[OldLink], list[Problem]]:
    """West-Life's file. A name may hold spaces, quotes and line breaks, but not `" "`."""
    links: list[OldLink] = []
    problems: list[Problem] = []
    record = b""
    for line in data.split(b"\n"):
        record = record + b"\n" + line if record else line
        parts = record[1:-1].split(b'" "')
        if len(parts) == 3 and len(record) > 1 and record.startswith(b'"') and record.endswith(b'"'):
            folder, name, target = parts
            links.append(OldLink(posixpath.join(folder, name), target))
            record = b""
        elif record and (len(parts) > 3 or not record.startswith(b'"')):
            problems.append(_unreadable(record))
            record = b""
    if record:
        problems.append(_unreadable(record))
    return links, problems


def parse_dump(data: bytes) -> tuple[list[OldLink], list[Problem]]:
    """The file of Scipion in Kubernetes. The link begins at the only ' /' of its line.

    A line that is none may be a part of a name with a line break: its neighbours are not trusted then.
    """
    lines = data.split(b"\n")
    if lines[-1] == b"":
        lines.pop()
    good = [line.count(b" /") == 1 and not line.startswith(b" /") for line in lines]
    links: list[OldLink] = []
    problems: list[Problem] = []
    for i, line in enumerate(lines):
        broken = [j for j in (i - 1, i, i + 1) if 0 <= j < len(lines) and b" /" not in lines[j]]
        if good[i] and not broken:
            target, _, link = line.rpartition(b" /")
            links.append(OldLink(b"/" + link, target))
        else:
            problems.append(_unreadable(line))
    return links, problems


def _unreadable(line: bytes) -> Problem:
    text = f"cannot be read in the old system's list of links, and was left out: {line[:300]!r}"
    return Problem(b"", text)


class Roots:
    """Where the project and its source were on the old machine.

    `tops` are the names at the top of the project, which tell how much of a link's path is the project's
    folder; `inside` are the project's paths. `project` and `sources` may name further absolute paths.
    """

    def __init__(
        self,
        links: Sequence[OldLink],
        tops: Collection[bytes],
        inside: Collection[bytes],
        project: Iterable[bytes] = (),
        sources: Iterable[bytes] = (),
    ) -> None:
        self._inside = inside
        self._sources = [_clean(path) for path in sources if path]
        found = _root([link.path for link in links if link.path.startswith(b"/")], tops)
        self._projects = [_clean(path) for path in (*project, *([found] if found else [])) if path]
        self._volume, self._tail = _volume(found) if found else (b"", b"")

    def place(self, link: OldLink) -> bytes | None:
        """The path of a link in the project; None if it was elsewhere."""
        path = link.path if link.path.startswith(b"/") else b"/" + link.path
        roots = self._projects if link.path.startswith(b"/") else [b"/"]
        for root in roots:
            below = _below(root, _clean(path))
            if below:
                return below
        return None

    def entry(self, path: bytes, target: bytes) -> tuple[Entry, Problem | None]:
        """What a link at `path` of the project becomes, and what a person has to know about it."""
        if not target.startswith(b"/"):
            return Entry(path, EntryKind.LINK, 0o777, target=target), None
        clean = _clean(target)
        inside = self._in_project(clean)
        if inside is not None:
            relative = posixpath.relpath(b"/" + inside, b"/" + parent_of(path))
            return Entry(path, EntryKind.LINK, 0o777, target=relative), None
        source = self._in_source(clean)
        if source is not None:
            return Entry(path, EntryKind.SOURCE_LINK, 0o777, target=source), None
        text = f"leads to {os.fsdecode(target)!r} on the old machine, outside of the project; kept as it is."
        return Entry(path, EntryKind.LINK, 0o777, target=target), Problem(path, text)

    def _in_project(self, target: bytes) -> bytes | None:
        for root in self._projects:
            if (below := _below(root, target)) is not None:
                return below
        named, mounted = _PROJECTS.fullmatch(target), _MOUNT.fullmatch(target)
        if named and self._volume:
            return self._below_volume(named[2], sure=True)
        if mounted and self._volume.endswith(b"/projects"):  # the project is known by its other name only
            return self._below_volume(mounted[2], sure=bool(self._tail))
        return None

    def _below_volume(self, path: bytes, *, sure: bool) -> bytes | None:
        """What is below another name of the project's volume, in which the project may be a folder."""
        below = _below(self._tail or b"/", path or b"/")
        if self._tail:
            return below
        shorter = (below or b"").partition(b"/")[2]
        return next((b for b in (below, shorter) if b and b in self._inside), below if sure else None)

    def _in_source(self, target: bytes) -> bytes | None:
        for root in self._sources:
            if (below := _below(root, target)) is not None:
                return below
        if named := _SOURCE.fullmatch(target):
            return named[1] or b""
        if mounted := _MOUNT.fullmatch(target):
            # of two volumes the one that is not the project's is the source
            return mounted[2].lstrip(b"/") if mounted[1] != self._volume and self._volume else None
        return None


def _root(paths: Sequence[bytes], tops: Collection[bytes]) -> bytes | None:
    """The folder below which most links are where the project has something at its top."""
    if not paths:
        return None
    paths = [_clean(path) for path in paths]
    common = posixpath.commonpath([posixpath.dirname(path) for path in paths])
    best, most = None, 0
    while True:
        names = [(_below(common, path) or b"").split(b"/")[0] for path in paths]
        score = sum(name in tops for name in names)
        if score > most:  # of two that explain the same the longer one
            best, most = common, score
        if common == b"/":
            break
        common = posixpath.dirname(common)
    if best is None and (usual := _USUAL.match(paths[0])):
        return usual[0]
    return best


def _volume(root: bytes) -> tuple[bytes, bytes]:
    """The old volume that a project was in, and where in it."""
    if named := _PROJECTS.fullmatch(root):
        return named[1] + b"/ScipionUserData/projects", named[2]
    if mounted := _MOUNT.fullmatch(root):
        return mounted[1], mounted[2]
    return b"", b""


def _clean(path: bytes) -> bytes:
    return b"/" + posixpath.normpath(path).lstrip(b"/")


def _below(root: bytes, path: bytes) -> bytes | None:
    """A path below a root, relative to it: b"" for the root itself, None for what is elsewhere."""
    root = root.rstrip(b"/")
    if path == root or (not root and path == b"/"):
        return b""
    return path[len(root) + 1 :] if path.startswith(root + b"/") else None
