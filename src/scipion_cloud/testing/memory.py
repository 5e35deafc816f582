"""A storage in memory: the model that real ones are compared with, quick enough for Hypothesis."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from threading import RLock, get_ident
from typing import BinaryIO

from scipion_cloud.errors import StorageError, StorageExists, StorageMissing
from scipion_cloud.storage.base import CHUNK, Capabilities, Kind, Stat, Storage, check_key, chunks_of, size_of

ABLE = Capabilities(
    exclusive_create=True,
    rename=True,
    symlinks=True,
    folders=True,
    ranges=True,
    mtime=True,
    byte_names=True,
    batch=3,
)


@dataclass(frozen=True, slots=True)
class Node:
    """What stands under a key; a symlink's content is its target."""

    kind: Kind
    content: bytes
    modified: datetime


Snapshot = Mapping[str, Node]  # by key


class MemoryStorage(Storage):
    """A storage in memory, able of what it is told to be able of; its time is that of `clock`."""

    def __init__(
        self,
        able: Capabilities = ABLE,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
        nodes: Snapshot | None = None,
    ) -> None:
        self._able = able
        self._clock = clock
        self._nodes = dict(nodes or {})
        self._lock = RLock()
        self._makers: dict[str, int] = {}  # key -> thread, where creation is not exclusive

    def snapshot(self) -> Snapshot:
        """All that it holds now; later changes do not show in it. The contents are not copied."""
        with self._lock:
            return dict(self._nodes)

    def restore(self, nodes: Snapshot) -> None:
        """Hold what a snapshot holds, and nothing else."""
        with self._lock:
            self._nodes = dict(nodes)

    @property
    def url(self) -> str:
        return "memory:///"

    @property
    def capabilities(self) -> Capabilities:
        return self._able

    def children(self, folder: str = "") -> Iterator[Stat]:
        prefix = f"{check_key(folder, self._able)}/" if folder else ""
        found: dict[str, Stat] = {}
        for key, node in self.snapshot().items():
            if key.startswith(prefix):
                name, _, below = key.removeprefix(prefix).partition("/")
                child = prefix + name
                if not below:
                    found[child] = _stat(child, node)
                elif child not in found:
                    found[child] = Stat(child, Kind.FOLDER, 0, node.modified)
        yield from found.values()

    def walk(self, folder: str = "") -> Iterator[Stat]:
        prefix = f"{check_key(folder, self._able)}/" if folder else ""
        for key, node in self.snapshot().items():
            if key.startswith(prefix) and node.kind is not Kind.FOLDER:
                yield _stat(key, node)

    def stat(self, key: str) -> Stat:
        return _stat(key, self._node(key))

    def read(self, key: str, start: int = 0, length: int | None = None) -> Iterator[bytes]:
        node = self._node(key)
        if node.kind is not Kind.FILE:
            raise StorageError(f"{key!r} is a {node.kind}.")
        end = len(node.content) if length is None else min(len(node.content), start + length)
        for place in range(start, end, CHUNK):
            yield node.content[place : min(end, place + CHUNK)]

    def write(
        self,
        key: str,
        content: BinaryIO | bytes,
        *,
        mtime: datetime | None = None,
        new: bool = False,  # noqa: ARG002 - nothing is written in place here
    ) -> None:
        check_key(key, self._able)
        data = b"".join(chunks_of(content, size_of(content)))
        self._put(key, Kind.FILE, data, mtime if self._able.mtime else None)

    def create(self, key: str, content: bytes) -> None:
        check_key(key, self._able)
        with self._lock:
            me = get_ident()
            # else as on a slow server: what others make is not seen yet
            if key in self._nodes and self._makers.get(key, me) == me:
                raise StorageExists(f"{key!r} is there already.")
            self._put(key, Kind.FILE, content)
            if not self._able.exclusive_create:
                self._makers[key] = me

    def move(self, source: str, target: str) -> None:
        check_key(target, self._able)
        with self._lock:
            node = self._node(source)
            if node.kind is Kind.FOLDER:
                raise StorageError(f"{source!r} is a folder.")
            self._put(target, node.kind, node.content, node.modified)
            if source != target:
                del self._nodes[source]

    def remove(self, key: str) -> None:
        check_key(key, self._able)
        with self._lock:
            node = self._nodes.get(key)
            if node is not None and node.kind is Kind.FOLDER:
                raise StorageError(f"{key!r} is a folder.")
            self._nodes.pop(key, None)

    def make_folder(self, key: str) -> None:
        check_key(key, self._able)
        if self._able.folders:
            with self._lock:
                self._make_folders(key)

    def remove_folder(self, key: str) -> None:
        check_key(key, self._able)
        with self._lock:
            node = self._nodes.get(key)
            full = any(other.startswith(f"{key}/") for other in self._nodes)
            if node is not None and node.kind is Kind.FOLDER and not full:
                del self._nodes[key]

    def symlink(self, key: str, target: bytes) -> None:
        self._need_symlinks()
        check_key(key, self._able)
        self._put(key, Kind.LINK, target)

    def readlink(self, key: str) -> bytes:
        self._need_symlinks()
        node = self._node(key)
        if node.kind is not Kind.LINK:
            raise StorageError(f"{key!r} is no symlink.")
        return node.content

    def _need_symlinks(self) -> None:
        if not self._able.symlinks:
            raise NotImplementedError("This storage has no symlinks.")

    def _node(self, key: str) -> Node:
        check_key(key, self._able)
        with self._lock:
            node = self._nodes.get(key)
        if node is None:
            raise StorageMissing(f"{key!r} is not there.")
        return node

    def _put(self, key: str, kind: Kind, content: bytes, modified: datetime | None = None) -> None:
        with self._lock:
            old = self._nodes.get(key)
            if old is not None and old.kind is Kind.FOLDER:
                raise StorageError(f"{key!r} is a folder.")
            if self._able.folders and "/" in key:
                self._make_folders(key.rpartition("/")[0])
            self._nodes[key] = Node(kind, content, modified or self._clock())
            self._makers.pop(key, None)

    def _make_folders(self, key: str) -> None:
        """A folder and those above it."""
        parts = key.split("/")
        folders = ["/".join(parts[: n + 1]) for n in range(len(parts))]
        for folder in folders:
            node = self._nodes.get(folder)
            if node is not None and node.kind is not Kind.FOLDER:
                raise StorageError(f"{folder!r} cannot be a folder: there is a {node.kind} of this name.")
        for folder in folders:
            if folder not in self._nodes:
                self._nodes[folder] = Node(Kind.FOLDER, b"", self._clock())


def _stat(key: str, node: Node) -> Stat:
    return Stat(key, node.kind, len(node.content) if node.kind is Kind.FILE else 0, node.modified)
