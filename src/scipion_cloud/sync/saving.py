"""One save: what it replaces is kept, the new comes under its own name, and the generation last."""

import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import BinaryIO

from scipion_cloud.errors import StorageError, StorageMissing, SyncError
from scipion_cloud.storage import Kind, NewFile, Storage
from scipion_cloud.sync.entry import Entry, EntryKind, parent_of
from scipion_cloud.sync.fence import Fence
from scipion_cloud.sync.generation import Generation
from scipion_cloud.sync.intent import Intent, deepest_first
from scipion_cloud.sync.layout import NAMES, kept_key, key_of
from scipion_cloud.sync.ledger import Ledger
from scipion_cloud.sync.manifest import Manifest, same_content
from scipion_cloud.sync.progress import Problem
from scipion_cloud.sync.shown import shown_link

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Saving:
    """A save that is under way. `put` and `remove` may be called from many threads.

    Only paths that were announced may be touched. Whatever fails: the same call again is right, and a save
    that is given up is rolled back by `abandon`, or by whoever opens the project next.
    """

    def __init__(
        self,
        ledger: Ledger,
        base: Generation | None,
        manifest: Mapping[bytes, Entry],
        intent: Intent,
        fence: Fence,
        note: str,
        roll_back: Callable[[bool], None],
        put_right: Callable[[Manifest, list[bytes]], None],
        unsure: frozenset[bytes] = frozenset(),
    ) -> None:
        self.base = base
        self.problems: list[Problem] = []  # what was wrong in the storage before
        self._ledger = ledger
        self._storage: Storage = ledger.storage
        self._can = ledger.storage.capabilities
        self._old = manifest
        self._intent = intent
        self._fence = fence
        self._note = note
        self._roll_back = roll_back
        self._put_right = put_right
        self._unsure = unsure  # new files that may be there: this save was begun, and killed, before
        self._put: dict[bytes, bytes] = {}  # digests of what has been put last; b"" if that was cut off
        self._taken: set[bytes] = set()  # paths from which what the base has is taken away, or kept
        self._folders: set[bytes] = set()  # to be made
        self._gone: set[bytes] = set()  # folders to be removed
        self._roomy: set[bytes] = {b""}  # folders in which things can be put
        self._room = threading.Lock()
        self._committing = False

    @property
    def id(self) -> str:
        """By this a later process of the same working copy may go on with the save."""
        return self._intent.save

    @property
    def resumed(self) -> bool:
        """Whether it goes on where a process that was killed had ended; see `holds`."""
        return bool(self._unsure)

    def holds(self, entry: Entry) -> bool:
        """Whether the killed process had put a new file; only its size is compared.

        For files that the local journal remembers as put before a `checkpoint`; such need no `put`.
        """
        if entry.path not in self._unsure or entry.kind is not EntryKind.FILE:
            return False
        try:
            found = self._storage.stat(self._key(entry.path))
        except StorageMissing:
            return False
        return found.kind is Kind.FILE and found.size == entry.size

    def put(self, entry: Entry, content: BinaryIO | bytes | None = None) -> None:
        """Put a file with its bytes, a folder, a link. If only a file's mode changes, no bytes are needed."""
        self._fence.check()
        old = self._old.get(entry.path)
        if entry.kind is EntryKind.FOLDER:
            self._put_folder(entry.path, old)
        elif entry.kind is EntryKind.FILE:
            if not same_content(old, entry):
                if content is None:
                    raise SyncError(f"The bytes of {entry.path!r} are not there to be saved.")
                self._put_file(entry, old, content)
        else:
            self._put_link(entry, old)

    def put_files(self, files: Sequence[tuple[Entry, bytes]]) -> None:
        """Put small files; those that are new all at once."""
        self._fence.check()
        new: list[NewFile] = []
        for entry, content in files:
            if entry.path in self._old or entry.path in self._unsure:
                self.put(entry, content)
                continue
            self._put[entry.path] = b""
            self._make_room(entry.path)
            new.append(NewFile(self._key(entry.path), content, _time(entry.mtime_ns)))
        self._fence.check()
        self._storage.write_new(new)
        self._put.update((entry.path, entry.digest) for entry, _ in files)

    def remove(self, entry: Entry) -> None:
        """Remove what the base has under a path; the bytes of a file are kept."""
        self._fence.check()
        old = self._old.get(entry.path)
        if old is not None:
            self._displace(old)

    def checkpoint(self) -> None:
        """On return all that was put before survives a power cut."""
        self._storage.flush()

    def commit(self, manifest: Manifest) -> Generation:
        """Make the generation; from its return on nothing of it can be lost. Raises LeaseLost, StorageError.

        Where `manifest` has a file as it was in the base, although another one was put, that is undone.
        After StorageError nobody knows whether it was made: `Repository.recover` finds out.
        """
        self._fence.confirm()
        self._undo(manifest)
        self._tidy(manifest)
        self._storage.flush()
        self._fence.confirm()
        self._committing = True
        made = self._ledger.append(
            Generation(
                number=self._intent.number,
                parent=self.base.number if self.base else None,
                epoch=self._fence.epoch,
                created=datetime.now(UTC),
                deployment=self._fence.deployment,
                host=self._fence.host,
                user=self._fence.user,
                note=self._note,
                files=manifest.files,
                bytes=manifest.size,
                save=self.id,
            ),
            manifest,
        )
        self._storage.flush()
        with suppress(StorageError):  # `recover` sees that the save has ended well
            self._storage.remove(self._intent.key)
        return made

    def abandon(self) -> None:
        """Roll back. Raises what `put` raises; `Repository.recover` does what is left undone."""
        self._fence.check()
        self._roll_back(self._committing)

    def _key(self, path: bytes) -> str:
        return key_of(path, self._can)

    def _undo(self, manifest: Manifest) -> None:
        wrong = [path for path in self._unsure if path not in manifest]
        for path, digest in self._put.items():
            entry = manifest.get(path)
            if entry is None or entry.kind is not EntryKind.FILE or entry.digest != digest:
                if entry is not None and entry != self._old.get(path):
                    raise SyncError(f"{path!r} was not put as it is to be saved. Save again.")
                wrong.append(path)
        if wrong:
            self._put_right(manifest, wrong)

    def _put_file(self, entry: Entry, old: Entry | None, content: BinaryIO | bytes) -> None:
        self._put[entry.path] = b""
        if old is None:
            self._make_room(entry.path)
            fresh = entry.path not in self._unsure
        else:
            self._displace(old, replaced=True)
            fresh = False
            if old.kind is EntryKind.FOLDER:
                self._empty(entry.path)
        self._fence.check()  # again: who was paused on the way here may be too late
        self._storage.write(self._key(entry.path), content, mtime=_time(entry.mtime_ns), new=fresh)
        self._put[entry.path] = entry.digest

    def _put_folder(self, path: bytes, old: Entry | None) -> None:
        if old is None or old.kind is not EntryKind.FOLDER:
            self._make_room(path + b"/")
        with self._room:
            self._folders.add(path)

    def _put_link(self, entry: Entry, old: Entry | None) -> None:
        text = shown_link(entry, self._can)
        if old is None:
            self._make_room(entry.path)
        elif text is None or shown_link(old, self._can) is None:
            self._displace(old)
            if old.kind is EntryKind.FOLDER:
                self._empty(entry.path)
        if text is not None:
            self._storage.symlink(self._key(entry.path), text)

    def _displace(self, old: Entry, replaced: bool = False) -> None:
        """Take away what the base has under a path; a file that is `replaced` may also stay until it is."""
        if old.kind is EntryKind.FOLDER:
            with self._room:
                self._gone.add(old.path)
        elif old.path not in self._taken:
            if old.kind is EntryKind.FILE:
                self._keep(old, replaced)
            elif shown_link(old, self._can) is not None:
                self._storage.remove(self._key(old.path))
            self._taken.add(old.path)

    def _keep(self, old: Entry, replaced: bool) -> None:
        """Have the bytes of a file among what is kept.

        What is kept is never replaced: what stands under the file's own name may be something else, if a
        writer that had lost its lease, or a person, was here.
        """
        own, kept = self._key(old.path), kept_key(old.digest)
        is_kept = self._is_kept(old)
        self._fence.check()
        if is_kept:
            if not replaced:
                self._storage.remove(own)
            return
        try:
            self._storage.move(own, kept)
        except StorageMissing:
            if not self._is_kept(old):
                text = "was not in the storage any more; its last version is lost."
                self.problems.append(Problem(old.path, text))

    def _is_kept(self, old: Entry) -> bool:
        try:
            return self._storage.stat(kept_key(old.digest)).size == old.size
        except StorageMissing:
            return False

    def _make_room(self, path: bytes) -> None:
        """Where the base has a file or link, a new path may need a folder."""
        folder = parent_of(path)
        if folder in self._roomy:
            return
        with self._room:
            way: list[bytes] = []
            while folder not in self._roomy and folder not in self._old:
                way.append(folder)
                folder = parent_of(folder)
            for at in reversed([*way, folder]):
                old = self._old.get(at)
                if old is not None and old.kind is not EntryKind.FOLDER:
                    self._displace(old)
                elif at in self._unsure:
                    self._drop_file(at)
            self._roomy.update(way, [folder])

    def _drop_file(self, path: bytes) -> None:
        """Remove a file of the killed process where a folder is to be."""
        with suppress(StorageMissing):
            if self._storage.stat(self._key(path)).kind is not Kind.FOLDER:
                self._storage.remove(self._key(path))

    def _empty(self, path: bytes) -> None:
        """Remove a folder of the base, with all that the base has in it, to make room for a file."""
        inside = [old for p, old in self._old.items() if p.startswith(path + b"/")]
        with self._room:
            for old in inside:
                if old.kind is not EntryKind.FOLDER:
                    self._displace(old)
            for folder in deepest_first([path, *(o.path for o in inside if o.kind is EntryKind.FOLDER)]):
                self._remove_folder(folder)

    def _tidy(self, manifest: Manifest) -> None:
        """Make folders that nothing else has made, and remove those that are left empty."""
        for path in deepest_first(path for path in self._gone if not _is_folder(manifest, path)):
            self._remove_folder(path)
        used = {parent_of(e.path) for e in manifest.values() if self._makes_folders(e)}
        for path in sorted(self._folders - used):
            if _is_folder(manifest, path) and not self._key(path).startswith(NAMES):
                self._storage.make_folder(self._key(path))

    def _makes_folders(self, entry: Entry) -> bool:
        """Whether the storage has made the folder of an entry with it."""
        if entry.kind in (EntryKind.FILE, EntryKind.FOLDER):
            return not self._key(entry.path).startswith(NAMES)
        return shown_link(entry, self._can) is not None

    def _remove_folder(self, path: bytes) -> None:
        if not self._key(path).startswith(NAMES):
            self._storage.remove_folder(self._key(path))


def _is_folder(manifest: Mapping[bytes, Entry], path: bytes) -> bool:
    entry = manifest.get(path)
    return entry is not None and entry.kind is EntryKind.FOLDER


def _time(mtime_ns: int) -> datetime | None:
    try:
        return _EPOCH + timedelta(microseconds=mtime_ns // 1000)
    except OverflowError:  # beyond the years that Python has; the manifest knows the time
        return None
