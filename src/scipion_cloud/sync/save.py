"""A save: what has changed in a working copy becomes the next generation of its project."""

from collections.abc import Mapping
from dataclasses import dataclass

from scipion_cloud.errors import Conflict, NeedsConfirmation
from scipion_cloud.sync.changes import Changes, changes
from scipion_cloud.sync.copy import WorkingCopy
from scipion_cloud.sync.entry import Entry, EntryKind
from scipion_cloud.sync.fence import Fence
from scipion_cloud.sync.generation import Generation
from scipion_cloud.sync.index import Index, is_moved
from scipion_cloud.sync.manifest import Manifest
from scipion_cloud.sync.progress import Problem, Progress
from scipion_cloud.sync.repository import Repository
from scipion_cloud.sync.saving import Saving
from scipion_cloud.sync.sending import Sending

FEW = 20  # files that may be deleted without a question, unless they are all


@dataclass(frozen=True)
class Saved:
    """What a save has done."""

    generation: Generation | None  # None: nothing had changed
    files: int  # that were sent
    bytes: int  # of these
    problems: tuple[Problem, ...]


def save(
    copy: WorkingCopy,
    repository: Repository,
    fence: Fence,
    *,
    note: str = "",
    allow_deletions: bool = False,
    max_deleted: float = 0.5,
    progress: Progress | None = None,
    threads: int | None = None,
) -> Saved:
    """Save what has changed since the last save or restore.

    A save that would delete more than the share `max_deleted` of the files (and more than 20), or all of
    them, raises NeedsConfirmation unless `allow_deletions`. Raises SyncError if this is not the project's
    working copy, Conflict if the project was changed by somebody else, LeaseLost, StorageError, OSError if
    the disk of `copy.state` is full. Whatever it raises, the last generation stays as it is, and the next
    save goes on where this one ended.
    """
    fence.check()
    copy.check(repository.storage.url)
    base = _catch_up(copy, repository, fence)
    index = copy.index
    seen = changes(copy, index)
    if not (seen.files or seen.identities) and len(seen.entries) == len(index.manifest):
        return Saved(None, 0, 0, tuple(seen.problems))
    if not allow_deletions:
        _guard(index, seen, max_deleted)

    def begin(touched: set[bytes], resume: str | None) -> Saving:
        at = base or _base(repository, index)
        return repository.saving(at, index.manifest, touched, fence, note, resume=resume)

    threads = threads or repository.storage.capabilities.parallel
    sending = Sending(copy, index, seen, fence, begin, progress or Progress())
    sending.files(threads, repository.storage.capabilities.batch)
    sending.part_hard_links()
    _mend_hard_links(sending.entries, index.manifest, seen.problems)
    if not _matters(index.manifest, sending.entries):
        sending.abandon()
        _refresh(copy, index, sending)
        return Saved(None, 0, 0, tuple(seen.problems))
    sending.others(threads)
    generation = _commit(copy, index, sending)
    copy.sent.remove()
    problems = (*seen.problems, *sending.saving.problems)
    return Saved(generation, sending.sent_files, sending.sent_bytes, problems)


def _catch_up(copy: WorkingCopy, repository: Repository, fence: Fence) -> Generation | None:
    """Learn of a save whose success nobody has seen; the generation of the index, if it was read."""
    index = copy.index
    if not copy.has_prepared and index.generation is not None:
        return None  # the storage is asked when there is something to save
    latest = repository.latest()
    if latest is None or latest.number == index.generation:
        copy.unprepare()
        return latest
    if copy.catch_up(latest.number, latest.save):
        return latest
    if latest.deployment == fence.deployment and latest.parent == index.generation:
        manifest = repository.manifest(latest.number)
        known = index.rebased(index.url, latest.number, manifest, saved_here=True)
        copy.prepare(known)
        copy.committed(known, latest.number)
        return latest
    raise _changed_by(latest, index)


def _base(repository: Repository, index: Index) -> Generation | None:
    latest = repository.latest()
    if (latest and latest.number) != index.generation:
        raise _changed_by(latest, index)
    return latest


def _changed_by(latest: Generation | None, index: Index) -> Conflict:
    who = f"generation {latest.number}, by {latest.user} on {latest.host}" if latest else "empty"
    return Conflict(
        f"The project in the storage is {who}; this working copy was made from generation "
        f"{index.generation}. Nothing was saved, and the working copy is left as it is: open the project "
        "anew in another folder, and bring over by hand what you miss there."
    )


def _guard(index: Index, seen: Changes, max_deleted: float) -> None:
    """Ask before a save that would delete much."""
    files = [e.path for e in index.manifest.values() if e.kind is EntryKind.FILE]
    gone = [path for path in files if path not in seen.entries and path not in seen.files]
    if len(gone) <= FEW and len(gone) < len(files):
        return
    moved = is_moved(local.identity for local in seen.files.values())
    gone = [path for path in gone if not moved(index.identities.get(path, b""))]
    if gone and (len(gone) == len(files) or len(gone) > max(FEW, max_deleted * len(files))):
        raise NeedsConfirmation(
            f"This save would delete {len(gone)} of the project's {len(files)} files, among them "
            f"{min(gone).decode(errors='replace')!r}. Nothing was saved. If they are to be deleted, confirm "
            "it; else bring them back into the working copy first."
        )


def _mend_hard_links(
    entries: dict[bytes, Entry], known: Mapping[bytes, Entry], problems: list[Problem]
) -> None:
    """A hard link kept from the last generation, whose file is another one now, becomes a file of its own."""
    for entry in [e for e in entries.values() if e.kind is EntryKind.HARD_LINK]:
        first = entries.get(entry.target)
        if first is not None and first.kind is EntryKind.FILE:
            continue
        file = known.get(entry.target)
        if file is not None and file.kind is EntryKind.FILE and known.get(entry.path) == entry:
            entries[entry.path] = file._replace(path=entry.path)
        else:
            del entries[entry.path]
            problems.append(
                Problem(entry.path, "is another name of a file that could not be saved.", unsaved=True)
            )


def _matters(known: Mapping[bytes, Entry], entries: Mapping[bytes, Entry]) -> bool:
    """Whether there is any difference but in the mtime of folders: programs change that all the time."""
    if len(known) != len(entries):
        return True
    for path, entry in entries.items():
        old = known.get(path)
        if old is not entry and not (
            old is not None
            and entry.kind is EntryKind.FOLDER
            and old._replace(mtime_ns=entry.mtime_ns) == entry
        ):
            return True
    return False


def _refresh(copy: WorkingCopy, index: Index, sending: Sending) -> None:
    """Nothing has changed, but files that had to be looked at need not be looked at again."""
    new = {p: i for p, i in sending.identities.items() if index.manifest.get(p) is sending.entries.get(p)}
    if any(index.identities.get(path) != identity for path, identity in new.items()):
        index.identities.update(new)
        copy.keep(index)


def _commit(copy: WorkingCopy, index: Index, sending: Sending) -> Generation:
    """Make the generation. Its index is there before: whoever finds the generation can take that."""
    saving = sending.saving
    manifest = Manifest(sending.entries.values())
    identities = {}
    for path in manifest:
        if identity := sending.identities.get(path) or index.identities.get(path):
            identities[path] = identity
    sending.forget()
    prepared = Index(index.url, None, manifest, identities, saving.id)
    copy.prepare(prepared)
    generation = saving.commit(manifest)
    copy.committed(prepared, generation.number)
    return generation
