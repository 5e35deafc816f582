"""Projects that the systems before this one left, or Scipion alone: what lies there, and taking it up.

An import makes the first generation of what lies in the storage, in place: no file is moved or changed. The
old systems' own files (locks, lists of links) stay where they are and are left out of the generation. Their
locks have a use there: an old system that is started once more finds one and keeps away.
"""

import os
import posixpath
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from scipion_cloud.errors import Conflict, Locked, StorageMissing
from scipion_cloud.storage import Kind, Stat, Storage
from scipion_cloud.sync.fence import Fence
from scipion_cloud.sync.generation import Generation
from scipion_cloud.sync.layout import SERVICE
from scipion_cloud.sync.legacy_links import OldLink, Roots, parse_dump, parse_linklist
from scipion_cloud.sync.legacy_lock import (
    K8S_LINKS,
    K8S_LOCKS,
    WLC_FOLDER,
    WLC_LINKS,
    OldLock,
    System,
    read_locks,
)
from scipion_cloud.sync.legacy_tree import Tree, digests, listing, put_misnamed
from scipion_cloud.sync.progress import Problem, Progress
from scipion_cloud.sync.repository import Repository

DATABASE = "project.sqlite"  # makes a folder a Scipion project
_THEIRS = {*K8S_LOCKS, *K8S_LINKS}


@dataclass(frozen=True)
class Legacy:
    """What lies in a storage that has no generation of ours."""

    system: System | None  # who left it; None for Scipion alone, or anybody
    is_project: bool  # whether it is a Scipion project
    locks: tuple[OldLock, ...]
    links: tuple[OldLink, ...]  # as they were on the old machine
    problems: tuple[Problem, ...]  # lines of the list of links that nobody can read

    @property
    def live(self) -> OldLock | None:
        """A lock whose deployment may still be working."""
        return next((lock for lock in self.locks if lock.live), None)

    def describe(self) -> str:
        """What it is, for people, in a few sentences."""
        what = "A Scipion project" if self.is_project else "Files, but no Scipion project,"
        by = f" of {self.system}" if self.system else ""
        said = f"{what}{by} {'lies' if self.is_project else 'lie'} in this storage"
        links = f", with {len(self.links)} symlinks in a list" if self.links else ""
        lost = f" ({len(self.problems)} lines of it cannot be read)" if self.problems else ""
        return " ".join([f"{said}{links}{lost}.", *(lock.describe() for lock in self.locks)])


def inspect(storage: Storage) -> Legacy | None:
    """What lies in a storage that is no project of ours yet; None if nothing does, or it is one of ours.

    Reads the top of the storage and the old systems' own files. Raises StorageError.
    """
    tops = {stat.key: stat for stat in storage.children() if stat.key != SERVICE}
    if not tops or Repository(storage).latest() is not None:
        return None
    links: list[OldLink] = []
    problems: list[Problem] = []
    lists: list[Stat] = []
    system = System.WLC if WLC_FOLDER in tops else None
    for key, parse in ((WLC_LINKS, parse_linklist), *((key, parse_dump) for key in K8S_LINKS)):
        if (stat := _file(storage, key)) is None:
            continue
        found, unread = parse(storage.read_bytes(key))
        links += found
        problems += unread
        lists.append(stat)
        system = system or System.K8S
    locks = read_locks(storage, [*lists, *(tops[key] for key in (DATABASE,) if key in tops)])
    return Legacy(
        system=locks[0].system if locks else system,
        is_project=DATABASE in tops,
        locks=tuple(locks),
        links=tuple(links),
        problems=tuple(problems),
    )


def import_legacy(
    storage: Storage,
    fence: Fence,
    *,
    stale_too: bool = False,
    sources: Sequence[str] = (),
    progress: Progress | None = None,
    tell: Callable[[Problem], None] = lambda _: None,
    threads: int = 8,
) -> Generation:
    """Make the first generation of what lies in a storage; every file is read once for its digest.

    `stale_too` passes over an old system's lock whose deployment must be gone; one that may be working is
    always refused. `sources` are folders of the old machine that held read-only data: absolute links below
    them become links into the source. `tell` gets what could not be taken up as it was.

    Raises Locked, Conflict if there is nothing to import, SyncError if files change meanwhile, LeaseLost and
    StorageError.
    """
    found = inspect(storage)
    if found is None:
        raise Conflict(
            "There is nothing to import: the storage is empty, or holds a project of ours already."
        )
    _refuse_locked(found, stale_too=stale_too)
    progress = progress or Progress()
    files = [stat for stat in listing(storage) if not _is_theirs(stat)]
    progress.expect(sum(s.kind is Kind.FILE for s in files), sum(s.size for s in files))
    tree = Tree()
    for entry in digests(storage, files, fence, progress, threads):
        tree.add_file(entry)
    for stat in files:
        if stat.kind is Kind.FOLDER:
            tree.add_folder(os.fsencode(stat.key), stat.modified)
    for problem in (*found.problems, *_add_links(storage, found, files, tree, sources)):
        tell(problem)
    manifest = tree.manifest()
    saving = Repository(storage).saving(None, {}, tree.misnamed(storage), fence, _note(found))
    put_misnamed(storage, saving, manifest, tree.misnamed(storage))
    return saving.commit(manifest)


def _refuse_locked(found: Legacy, *, stale_too: bool) -> None:
    for lock in found.locks:
        if lock.live or not stale_too:
            raise Locked(lock.describe())


def _add_links(
    storage: Storage, found: Legacy, files: Sequence[Stat], tree: Tree, sources: Sequence[str]
) -> list[Problem]:
    """The links of the storage itself and those in the lists; what is in a list goes before."""
    here = [s for s in files if s.kind is Kind.LINK]
    own = [OldLink(os.fsencode(s.key), storage.readlink(s.key)) for s in here]
    tops = {os.fsencode(s.key).split(b"/", 1)[0] for s in files}
    inside = {*tree.entries, *(link.path for link in own)}
    said = [lock.values for lock in found.locks]
    project = [
        os.fsencode(posixpath.join(values["MOUNT"], values["DIR"].lstrip("/")))
        for values in said
        if values.get("MOUNT", "").startswith("/") and values.get("DIR")
    ]
    roots = Roots(found.links, tops, inside, project, [os.fsencode(path) for path in sources])
    problems = []
    placed: dict[bytes, bytes] = {link.path: link.target for link in own}
    for link in found.links:
        path = roots.place(link)
        if path is None:
            problems.append(Problem(b"", f"The old link {link.path!r} is outside of the project; left out."))
        else:
            placed[path] = link.target
    for path, target in sorted(placed.items()):  # a link to a folder before what was seen through it
        problem = tree.add_link(*roots.entry(path, target))
        if problem is not None:
            problems.append(problem)
    return problems


def _is_theirs(stat: Stat) -> bool:
    return stat.key in _THEIRS or stat.key.split("/", 1)[0] == WLC_FOLDER


def _file(storage: Storage, key: str) -> Stat | None:
    try:
        stat = storage.stat(key)
    except StorageMissing:
        return None
    return stat if stat.kind is Kind.FILE else None


def _note(found: Legacy) -> str:
    return f"Imported from {found.system}" if found.system else "Imported"
