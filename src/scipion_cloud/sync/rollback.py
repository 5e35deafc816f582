"""Putting right what an unfinished save left: the storage shows the last whole generation again."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import suppress

from scipion_cloud.errors import StorageFull, StorageMissing
from scipion_cloud.storage import Kind, Stat, Storage
from scipion_cloud.sync.entry import Entry, EntryKind, parents_of
from scipion_cloud.sync.fetch import copy, holds
from scipion_cloud.sync.intent import deepest_first
from scipion_cloud.sync.layout import NAMES, kept_key, key_of, stray_key
from scipion_cloud.sync.shown import shown_link

THREADS = 8
LARGE = 64 * 1024 * 1024  # bytes
TRIES = 3  # a storage may lie once: then the right bytes would be taken for wrong ones


def conform(
    storage: Storage,
    manifest: Mapping[bytes, Entry],
    touched: Iterable[bytes],
    needed: Callable[[frozenset[bytes]], frozenset[bytes]],
    check: Callable[[], None],
    leave: frozenset[bytes] = frozenset(),
) -> None:
    """Make what stands under `touched` paths what `manifest` says; the same again does no harm.

    Before a save replaces a file it keeps it. So a file whose bytes are not kept was not touched; else what
    stands there may be anything. `needed` tells which digests older generations need from what is kept, and
    `check` raises if the right to change things has ended. New files in `leave` stay where they are.
    """
    Rollback(storage, manifest, needed, check).run(frozenset(touched), leave)


class Rollback:
    """One run of `conform`."""

    def __init__(
        self,
        storage: Storage,
        manifest: Mapping[bytes, Entry],
        needed: Callable[[frozenset[bytes]], frozenset[bytes]],
        check: Callable[[], None],
    ) -> None:
        self._storage = storage
        self._manifest = manifest
        self._needed = needed
        self._check = check

    def run(self, touched: frozenset[bytes], leave: frozenset[bytes]) -> None:
        """Put all right. First what must not be there goes: it may be what has filled the storage."""
        with ThreadPoolExecutor(THREADS) as pool:
            there = dict(zip(touched, pool.map(self._look, touched), strict=True))
            strays = [
                found.key
                for path, found in there.items()
                if found
                and found.kind is not Kind.FOLDER
                and path not in leave
                and not self._shown_as_file(path)
            ]
            _all(pool.map(self._remove, strays))
            for path in deepest_first(p for p, found in there.items() if found and found.kind is Kind.FOLDER):
                if not self._is_folder(path):
                    self._check()
                    self._storage.remove_folder(self._key(path))
            if self._storage.capabilities.folders:
                in_the_way = [
                    p for p, f in there.items() if f and f.kind is Kind.FOLDER and self._shown_as_file(p)
                ]
                self._make_way(in_the_way, touched, pool)
            for path in sorted(p for p in touched if self._is_folder(p)):
                self._check()
                if not self._key(path).startswith(NAMES):
                    self._storage.make_folder(self._key(path))
            files = [
                entry
                for path in touched
                if (entry := self._manifest.get(path)) and entry.kind is EntryKind.FILE
            ]
            missing = [entry for entry in pool.map(self._wrong, files) if entry]
            self._bring_back(missing, pool)
            _all(pool.map(self._link, touched))
        self._storage.flush()

    def _make_way(self, folders: Iterable[bytes], touched: Iterable[bytes], pool: Executor) -> None:
        """Set aside what stands where a file or a folder is to be, and no save that we know of has put there.

        A writer that had lost its lease may have, or a person.
        """
        for path in folders:
            self._set_aside(self._key(path))
        above = {parent for path in touched for parent in parents_of(path) if self._is_folder(parent)}
        for found in pool.map(self._look, above):
            if found and found.kind is not Kind.FOLDER:
                self._check()
                self._storage.move(found.key, stray_key())

    def _set_aside(self, folder: str) -> None:
        for found in list(self._storage.children(folder)):
            if found.kind is Kind.FOLDER:
                self._set_aside(found.key)
            else:
                self._check()
                self._storage.move(found.key, stray_key())
        self._check()
        self._storage.remove_folder(folder)

    def _key(self, path: bytes) -> str:
        return key_of(path, self._storage.capabilities)

    def _is_folder(self, path: bytes) -> bool:
        entry = self._manifest.get(path)
        return entry is not None and entry.kind is EntryKind.FOLDER

    def _shown_as_file(self, path: bytes) -> bool:
        """Whether a file or link is to stand under the path's key."""
        entry = self._manifest.get(path)
        if entry is None:
            return False
        return entry.kind is EntryKind.FILE or shown_link(entry, self._storage.capabilities) is not None

    def _look(self, path: bytes) -> Stat | None:
        try:
            return self._storage.stat(self._key(path))
        except StorageMissing:
            return None

    def _remove(self, key: str) -> None:
        self._check()
        self._storage.remove(key)

    def _wrong(self, entry: Entry) -> Entry | None:
        """The file itself if it is kept and does not stand whole under its own name."""
        storage, key = self._storage, self._key(entry.path)
        try:
            kept = storage.stat(kept_key(entry.digest))
        except StorageMissing:
            return None
        if kept.size != entry.size or holds(storage, key, entry):
            return None
        self._remove(key)
        return entry

    def _bring_back(self, missing: list[Entry], pool: ThreadPoolExecutor) -> None:
        if not missing:
            return
        digests = frozenset(entry.digest for entry in missing)
        names = Counter(e.digest for e in self._manifest.values() if e.digest in digests)
        shared = self._needed(digests) | {digest for digest, count in names.items() if count > 1}
        _all(pool.map(lambda entry: self._back(entry, entry.digest in shared), missing))

    def _back(self, entry: Entry, shared: bool) -> None:
        """Give a file its own name again.

        A request of the writer that has died may still be under way and replace it: only what is too large to
        be copied is moved. Without room for a copy it stays among what is kept.
        """
        self._check()
        kept, own = kept_key(entry.digest), self._key(entry.path)
        if not shared and self._storage.capabilities.rename and entry.size > LARGE:
            self._storage.move(kept, own)
            return
        with suppress(StorageFull):
            for _ in range(TRIES):
                copy(self._storage, kept, own)
                if holds(self._storage, own, entry):
                    return
            self._storage.remove(own)  # what stands there must be right: a save will keep it

    def _link(self, path: bytes) -> None:
        entry = self._manifest.get(path)
        text = entry and shown_link(entry, self._storage.capabilities)
        if text is not None:
            self._check()
            self._storage.symlink(self._key(path), text)


def _all(results: Iterable[object]) -> None:
    for _ in results:
        pass
