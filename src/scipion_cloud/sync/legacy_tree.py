"""The tree of a project that lies in a storage without a manifest."""

import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

from blake3 import blake3

from scipion_cloud.errors import StorageMissing, SyncError
from scipion_cloud.storage import Kind, Stat, Storage
from scipion_cloud.sync.entry import Entry, EntryKind, parent_of
from scipion_cloud.sync.fence import Fence
from scipion_cloud.sync.layout import SERVICE, key_of
from scipion_cloud.sync.manifest import Manifest
from scipion_cloud.sync.progress import Problem, Progress
from scipion_cloud.sync.saving import Saving

BATCH = 1000  # files that wait for a thread at a time
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def listing(storage: Storage) -> list[Stat]:
    """All files and links, and folders where a storage has such, but for our own folder."""
    if not storage.capabilities.folders:  # one listing instead of one for each folder
        return [stat for stat in storage.walk() if not stat.key.startswith(f"{SERVICE}/")]
    found: list[Stat] = []
    todo = [""]
    while todo:
        for stat in storage.children(todo.pop()):
            if stat.key != SERVICE:
                found.append(stat)
                if stat.kind is Kind.FOLDER:
                    todo.append(stat.key)
    return found


def digests(
    storage: Storage, files: Sequence[Stat], fence: Fence, progress: Progress, threads: int
) -> Iterator[Entry]:
    """The entries of the files among `files`, each read once. Raises SyncError if one changes meanwhile."""

    def entry(stat: Stat) -> Entry:
        hasher = blake3()
        size = 0
        try:
            for chunk in storage.read(stat.key):
                hasher.update(chunk)
                size += len(chunk)
                progress.add(size=len(chunk))
        except StorageMissing:
            raise _changed(stat) from None
        if size != stat.size:
            raise _changed(stat)
        progress.add(files=1)
        mtime_ns = _ns(stat.modified)
        return Entry(os.fsencode(stat.key), EntryKind.FILE, 0o644, mtime_ns, size, hasher.digest())

    todo = [stat for stat in files if stat.kind is Kind.FILE]
    with ThreadPoolExecutor(threads) as pool:
        for start in range(0, len(todo), BATCH):
            fence.check()
            yield from pool.map(entry, todo[start : start + BATCH])
    after = {stat.key: stat for stat in listing(storage)}
    for stat in todo:
        if after.get(stat.key) != stat:
            raise _changed(stat)


def put_misnamed(
    storage: Storage, saving: Saving, manifest: Mapping[bytes, Entry], paths: Sequence[bytes]
) -> None:
    """Put files once more whose names the storage holds by chance, not by promise: where they are found."""
    for path in paths:
        with tempfile.TemporaryFile() as copy:
            storage.download(os.fsdecode(path), copy.fileno())
            saving.put(manifest[path], copy)


class Tree:
    """Entries that become a manifest; the folders of what is added are added with it."""

    def __init__(self) -> None:
        self.entries: dict[bytes, Entry] = {}

    def add_file(self, entry: Entry) -> None:
        """Add a file that lies in the storage."""
        self._add_folders(entry.path)
        self.entries[entry.path] = entry

    def add_folder(self, path: bytes, modified: datetime) -> None:
        """Add a folder that is in the storage."""
        self._add_folders(path)
        self.entries[path] = Entry(path, EntryKind.FOLDER, 0o755, _ns(modified))

    def add_link(self, entry: Entry, problem: Problem | None = None) -> Problem | None:
        """Add a link unless the storage has something there; what a person has to know about it.

        What lies below another link was only seen through it, and is there under its own name.
        """
        there = self.entries.get(entry.path)
        if there is not None:
            what = "a folder" if there.kind is EntryKind.FOLDER else "a file"
            text = f"was a symlink to {entry.target!r} once, but is {what} in the storage: that was kept."
            return Problem(entry.path, text)
        folder = parent_of(entry.path)
        while folder:
            above = self.entries.get(folder)
            if above is not None and above.kind is not EntryKind.FOLDER:
                if above.kind is EntryKind.FILE:
                    return Problem(entry.path, "was a symlink in a folder that is a file now; left out.")
                return None
            folder = parent_of(folder)
        self._add_folders(entry.path)
        self.entries[entry.path] = entry
        return problem

    def misnamed(self, storage: Storage) -> list[bytes]:
        """The files that do not lie where they would be put."""
        files = (entry.path for entry in self.entries.values() if entry.kind is EntryKind.FILE)
        return [path for path in files if key_of(path, storage.capabilities) != os.fsdecode(path)]

    def manifest(self) -> Manifest:
        """All of it. Raises SyncError."""
        return Manifest(self.entries.values())

    def _add_folders(self, path: bytes) -> None:
        while (path := parent_of(path)) and path not in self.entries:
            self.entries[path] = Entry(path, EntryKind.FOLDER, 0o755)


def _changed(stat: Stat) -> SyncError:
    return SyncError(
        f"{stat.key!r} changed while it was read: somebody still writes in this storage. End that, and "
        "import it again; nothing was changed."
    )


def _ns(when: datetime) -> int:
    return (when - _EPOCH) // timedelta(microseconds=1) * 1000
