"""What a folder has of a generation already, before the rest of it is put there."""

import os
import stat as modes
import threading
from dataclasses import dataclass, field

from scipion_cloud.sync.copy import WorkingCopy
from scipion_cloud.sync.entry import Entry, EntryKind, parent_of
from scipion_cloud.sync.fetch import Stopped
from scipion_cloud.sync.index import Index, identity_of
from scipion_cloud.sync.manifest import Manifest
from scipion_cloud.sync.progress import Problem
from scipion_cloud.sync.scan import Found, scan

NO_SOURCE = "/no-source-was-given"
_OF_FILE_SYSTEMS = b"lost+found"


@dataclass
class Present:
    """The entries of a generation by what is to be done about them, and what else is there."""

    whole: list[Entry] = field(default_factory=list)  # known to be here
    maybe: list[Entry] = field(default_factory=list)  # files of the right size, to be read; links
    missing: list[Entry] = field(default_factory=list)
    taken: list[Entry] = field(default_factory=list)  # by something of the user's, or he has removed it
    strange: list[bytes] = field(default_factory=list)  # no part of the generation; a folder with all in it
    problems: list[Problem] = field(default_factory=list)


def look(
    copy: WorkingCopy, known: Index, manifest: Manifest, in_use: bool, stop: threading.Event | None
) -> Present:
    """Compare a working copy with a generation, without reading files; `known` is what is known of them.

    `in_use`: people work in it, so that what is not as it arrived is theirs. Raises Stopped.
    """
    result = Present()
    met: set[bytes] = set()
    passed: set[bytes] = set()  # folders that are passed over with all that is in them
    for found in scan(copy.root, result.problems, set()):
        if stop is not None and stop.is_set():
            raise Stopped
        path = found.path
        if parent_of(path) in passed:
            passed.add(path)
            continue
        entry = manifest.get(path)
        if entry is None:
            passed.add(path)
            if not in_use and path != _OF_FILE_SYSTEMS:
                result.strange.append(path)
            continue
        met.add(path)
        if _is_known(known, entry, found):
            result.whole.append(entry)
        elif in_use and _was_here(known, entry):
            passed.add(path)
            result.taken.append(entry)
        elif _may_be(copy, entry, found):
            result.maybe.append(entry)
        else:
            passed.add(path)
            if in_use:
                result.taken.append(entry)
            else:
                result.strange.append(path)
                result.missing.append(entry)
    for path, entry in manifest.items():
        if path not in met:
            (result.taken if in_use and _was_here(known, entry) else result.missing).append(entry)
    if not in_use:
        _part_strays(result)
    return result


def link_text(copy: WorkingCopy, entry: Entry) -> bytes:
    """What the symlink of an entry says in this working copy."""
    if entry.kind is EntryKind.LINK:
        return entry.target
    source = os.fsencode(copy.source.absolute() if copy.source else NO_SOURCE)
    return source + b"/" + entry.target if entry.target else source


def _part_strays(result: Present) -> None:
    """What is another name of a file that comes anew has to come anew too."""
    comes = {entry.path for entry in result.missing}
    for entry in [e for e in result.whole if e.kind is EntryKind.HARD_LINK and e.target in comes]:
        result.whole.remove(entry)
        result.missing.append(entry)
        result.strange.append(entry.path)


def _was_here(known: Index, entry: Entry) -> bool:
    return bool(known.identities.get(entry.path))


def _is_known(known: Index, entry: Entry, found: Found) -> bool:
    if entry.kind is EntryKind.FOLDER:
        return modes.S_ISDIR(found.stat.st_mode)
    same = known.identities.get(entry.path) == identity_of(found.stat)
    return same and known.manifest.get(entry.path) == entry


def _may_be(copy: WorkingCopy, entry: Entry, found: Found) -> bool:
    if entry.kind is EntryKind.FILE:
        return modes.S_ISREG(found.stat.st_mode) and found.stat.st_size == entry.size
    if entry.kind not in (EntryKind.LINK, EntryKind.SOURCE_LINK) or not modes.S_ISLNK(found.stat.st_mode):
        return False
    with copy.parent(entry.path) as (folder, name):
        return os.readlink(name, dir_fd=folder) == link_text(copy, entry)
