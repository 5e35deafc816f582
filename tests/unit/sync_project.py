"""A small project to be saved and restored in tests."""

import os
from collections.abc import Mapping
from pathlib import Path

from blake3 import blake3

from scipion_cloud.errors import LeaseLost
from scipion_cloud.storage import Storage
from scipion_cloud.sync.entry import Entry, EntryKind, parent_of
from scipion_cloud.sync.generation import Generation
from scipion_cloud.sync.manifest import Manifest, diff
from scipion_cloud.sync.repository import Repository
from scipion_cloud.sync.saving import Saving
from scipion_cloud.testing.faulty import Call, FaultyStorage


class Held:
    """A lease; `lost` makes it one that was."""

    deployment, host, user = "d1", "microscope", "ada"

    def __init__(self, epoch: int = 1) -> None:
        self.epoch = epoch
        self.lost = False

    def check(self) -> None:
        if self.lost:
            raise LeaseLost("The lease is lost.")

    confirm = check


def file(path: bytes, content: bytes, **more: int) -> Entry:
    """A file's entry."""
    return Entry(path, EntryKind.FILE, 0o644, 10**18, len(content), blake3(content).digest())._replace(**more)


def folder(path: bytes) -> Entry:
    """A folder's entry."""
    return Entry(path, EntryKind.FOLDER, 0o755, 10**18)


def link(path: bytes, target: bytes) -> Entry:
    """A symlink's entry."""
    return Entry(path, EntryKind.LINK, 0o777, 10**18, target=target)


def tree(files: Mapping[bytes, bytes], *more: Entry) -> Manifest:
    """A manifest of files by path, with the folders that they need, and other entries."""
    entries = [*(file(path, content) for path, content in files.items()), *more]
    folders = set()
    for entry in entries:
        above = parent_of(entry.path)
        while above:
            folders.add(above)
            above = parent_of(above)
    known = {e.path for e in entries}
    return Manifest([*(folder(path) for path in sorted(folders - known)), *entries])


def begin(
    repository: Repository,
    manifest: Manifest,
    files: Mapping[bytes, bytes],
    fence: Held | None = None,
    resume: str | None = None,
) -> Saving:
    """All of a save but its commit."""
    base = repository.latest()
    old = repository.manifest(base.number) if base else Manifest()
    plan = diff(old, manifest)
    touched = [e.path for e in (*plan.put, *plan.remove)]
    saving = repository.saving(base, old, touched, fence or Held(), resume=resume)
    for entry in plan.remove:
        saving.remove(entry)
    for entry in plan.put:
        if not (saving.resumed and saving.holds(entry)):
            saving.put(entry, files.get(entry.path))
    return saving


def save(
    repository: Repository, files: Mapping[bytes, bytes], *more: Entry, fence: Held | None = None
) -> Generation:
    """Save a tree."""
    manifest = tree(files, *more)
    return begin(repository, manifest, files, fence).commit(manifest)


def fetched(repository: Repository, entry: Entry) -> bytes:
    """The bytes of a file."""
    fd = os.memfd_create("fetched")
    try:
        repository.fetch(entry, fd)
        return os.pread(fd, entry.size + 1, 0)
    finally:
        os.close(fd)


def contents(repository: Repository, number: int) -> dict[bytes, bytes]:
    """The files of a generation."""
    manifest = repository.manifest(number)
    return {p: fetched(repository, e) for p, e in manifest.items() if e.kind is EntryKind.FILE}


def shown(storage: Storage) -> dict[str, bytes]:
    """The files that a person finds."""
    found = (s.key for s in storage.walk() if not s.key.startswith(".scipion-cloud/"))
    return {key: storage.read_bytes(key) for key in found if storage.stat(key).kind == "file"}


def calls(storage: FaultyStorage, *methods: str) -> list[Call]:
    """The calls of these methods to the project's own files."""
    return [c for c in storage.calls if c.method in methods and not c.key.startswith(".scipion-cloud")]


def on_disk(root: Path) -> dict[str, bytes]:
    """The files in a folder, but ours."""
    found = (p for p in root.rglob("*") if p.is_file() and not p.is_symlink())
    return {str(p.relative_to(root)): p.read_bytes() for p in found if ".scipion-cloud" not in p.parts}
