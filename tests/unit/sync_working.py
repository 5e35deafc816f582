"""A project with a working copy, for tests of saves."""

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from blake3 import blake3

from scipion_cloud.errors import (
    LeaseLost,
    StorageMissing,
)
from scipion_cloud.storage import Storage
from scipion_cloud.sync.copy import WorkingCopy
from scipion_cloud.sync.entry import Entry, EntryKind
from scipion_cloud.sync.layout import kept_key, key_of
from scipion_cloud.sync.manifest import Manifest
from scipion_cloud.sync.repository import Repository
from scipion_cloud.sync.save import Saved, save
from scipion_cloud.testing.memory import MemoryStorage


@dataclass
class Right:
    """A lease that is held until it is lost."""

    epoch: int = 1
    deployment: str = "dep-1"
    host: str = "host"
    user: str = "ana"
    lost: bool = False

    def check(self) -> None:
        if self.lost:
            raise LeaseLost("The project was taken over.")

    def confirm(self) -> None:
        self.check()


class Project:
    """A project with a working copy, in which a person works."""

    def __init__(self, folder: Path, storage: Storage | None = None) -> None:
        self.folder = folder
        self.storage = storage or MemoryStorage()
        self.repository = Repository(self.storage)
        self.fence = Right()
        self.source = folder / "source"
        self.source.mkdir()
        self.copy = self.open()
        self.copy.begin(self.storage.url, None, Manifest())
        self.copy.complete()
        self.work = self.copy.path

    def open(self) -> WorkingCopy:
        return WorkingCopy(self.folder / "work", self.folder / ".work.agent", self.source)

    def reopen(self) -> None:
        """As another process finds it."""
        self.copy.close()
        self.copy = self.open()
        self.repository = Repository(self.storage)

    def save(self, **options: object) -> Saved:
        return save(self.copy, self.repository, self.fence, **options)  # type: ignore[arg-type]

    @property
    def tree(self) -> Manifest:
        """The latest generation, all of whose files are whole in the storage."""
        latest = self.repository.latest()
        assert latest is not None
        tree = self.repository.manifest(latest.number)
        for entry in tree.values():
            if entry.kind is EntryKind.FILE:
                self.content(entry)
        return tree

    def content(self, entry: Entry) -> bytes:
        """The bytes of a file in the storage."""
        for key in (key_of(entry.path, self.storage.capabilities), kept_key(entry.digest)):
            with suppress(StorageMissing):
                data = self.storage.read_bytes(key)
                if blake3(data).digest() == entry.digest and len(data) == entry.size:
                    return data
        raise AssertionError(f"the bytes of {entry.path!r} are lost")

    def write(self, path: str, content: bytes = b"x") -> Path:
        place = self.work / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(content)
        return place


def paths(problems: object) -> set[bytes]:
    return {p.path for p in problems}  # type: ignore[attr-defined]
