"""Onedata: `onedata://onezone/space/folder`; a space by its name, or by its id where names are not unique.

All goes through one Oneprovider, since only there a file is created exclusively. Nothing in Onedata replaces
a file at once: the old one is moved aside, the new one put in its place, and readers look in both places.
"""

import hashlib
import secrets
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import datetime
from functools import cached_property
from typing import BinaryIO
from urllib.parse import SplitResult, quote, unquote

from scipion_cloud.errors import (
    InvalidInput,
    StorageError,
    StorageExists,
    StorageMissing,
    StorageTransient,
)
from scipion_cloud.storage import onedata_zone as zone
from scipion_cloud.storage.base import Capabilities, Kind, Stat, Storage, check_key, chunks_of, size_of
from scipion_cloud.storage.http import Http, ranged
from scipion_cloud.storage.onedata_api import Node, NotAFolder, Oneprovider
from scipion_cloud.storage.walking import walk_folders

TEMPORARY = ".scipion-cloud/tmp"
_ABILITIES = Capabilities(
    exclusive_create=True,
    rename=True,
    symlinks=True,
    folders=True,
    ranges=True,
    mtime=False,
    byte_names=False,
    max_key=1024,  # three times as long in a URL
    parallel=16,
)


def connect(url: SplitResult, credentials: Mapping[str, str]) -> "OnedataStorage":
    """Open the storage; Onezone is not asked yet. Raises InvalidInput."""
    parts = [unquote(part) for part in url.path.split("/") if part]
    if not url.hostname or not parts:
        raise InvalidInput(errors={"url": "The URL names a Onezone and a space: onedata://onezone/space."})
    if url.username:
        raise InvalidInput(errors={"url": "Leave the user out of the URL: the token is enough."})
    folder = "/".join(parts[1:])
    if folder:
        check_key(folder, _ABILITIES)
    return OnedataStorage(url, parts[0], folder, credentials)


def list_spaces(onezone: str, credentials: Mapping[str, str]) -> list[tuple[str, str, list[str]]]:
    """The spaces that a token opens: id, name, domains of the Oneproviders; sorted by name.

    `onezone` is a URL such as onedata://datahub.egi.eu. Raises StorageDenied, StorageTransient, StorageError.
    """
    scheme, _, host = onezone.rstrip("/").rpartition("://")
    base = f"{'http' if scheme == 'onedata+http' else 'https'}://{host}"
    http = Http(f"Onezone {host}", {})
    try:
        found = zone.spaces(http, base, credentials.get("token", ""))
    finally:
        http.close()
    return [(space.id, space.name, [p.domain for p in space.providers]) for space in found]


class OnedataStorage(Storage):
    """A space, or a folder in one."""

    def __init__(self, url: SplitResult, space: str, root: str, credentials: Mapping[str, str]) -> None:
        path = quote("/".join((space, root)).rstrip("/"))
        self._url = f"{url.scheme}://{url.netloc}/{path}"
        self._onezone = url.netloc
        self._scheme = "http" if url.scheme == "onedata+http" else "https"
        self._space = space
        self._root = root
        self._credentials = dict(credentials)
        self._http = Http(f"Onedata ({url.netloc})", {"X-Auth-Token": credentials.get("token", "")})
        self._there: set[str] = {""}  # folders of the space that are known to be there
        self._replacing = [threading.Lock() for _ in range(64)]  # each for a share of the keys

    @property
    def url(self) -> str:
        return self._url

    @property
    def capabilities(self) -> Capabilities:
        return _ABILITIES

    @cached_property
    def _api(self) -> Oneprovider:
        found = zone.spaces(self._http, f"{self._scheme}://{self._onezone}", self._credentials["token"])
        space = zone.choose_space(found, self._space)
        provider = zone.choose_provider(space, self._credentials.get("provider", ""))
        return Oneprovider(self._http, self._scheme, provider, space)

    def children(self, folder: str = "") -> Iterator[Stat]:
        for node in self._nodes(self._path(folder) if folder else self._root):
            yield _stat(f"{folder}/{node.name}".lstrip("/"), node)

    def walk(self, folder: str = "") -> Iterator[Stat]:
        return walk_folders(self.children, folder)

    def stat(self, key: str) -> Stat:
        return _stat(key, self._node(key))

    def read(self, key: str, start: int = 0, length: int | None = None) -> Iterator[bytes]:
        node = self._node(key)
        if node.kind is Kind.FOLDER:
            raise StorageError(f"{key!r} is a folder.")
        if length == 0:
            return
        try:
            with self._api.content(node.id, start, length) as response:
                if response.status_code != 416:  # beyond its end, also for an empty file
                    yield from ranged(self._http, response, start, length, lambda: self.stat(key).size)
        except StorageMissing as e:
            raise StorageTransient(f"{key!r} was replaced or removed before it was read.") from e

    def write(
        self,
        key: str,
        content: BinaryIO | bytes,
        *,
        mtime: datetime | None = None,  # noqa: ARG002 - Onedata sets it by itself
        new: bool = False,
    ) -> None:
        path = self._path(key)
        self._make(path.rpartition("/")[0])
        size = size_of(content)
        if new:
            with suppress(StorageExists):
                self._api.make(path, "REG", chunks_of(content, size), size)
                return
        with self._uploaded(content) as (temporary, _):
            self._place(temporary, key)

    def create(self, key: str, content: bytes) -> None:
        path = self._path(key)
        self._make(path.rpartition("/")[0])
        self._refuse_existing(key)
        with self._uploaded(content) as (_, temporary_id):
            # a hard link appears whole and only where nothing stands; a move would do neither
            made = self._api.make(path, "LNK", target_file_id=temporary_id)
            if self._found(_aside(self._root, key)) or not self._won(path, made):
                self._api.delete(made)
                raise StorageExists(f"There is a {key!r} already.")
            with suppress(StorageError):
                self._api.delete(temporary_id)

    def move(self, source: str, target: str) -> None:
        old, _ = self._path(source), self._path(target)
        node = self._node(source)
        if node.kind is Kind.FOLDER:
            raise StorageError(f"{source!r} is a folder.")
        if source == target:
            return
        self._make(self._path(target).rpartition("/")[0])
        if node.kind is Kind.LINK:
            self.symlink(target, self._api.readlink(node.id))
        else:
            where = old if self._found(old) else _aside(self._root, source)
            self._place(where, target)
        self.remove(source)

    def remove(self, key: str) -> None:
        for path in (self._path(key), _aside(self._root, key)):
            node = self._found(path)
            if node and node.kind is Kind.FOLDER:  # it would go with all that is in it
                raise StorageError(f"{key!r} is a folder.")
            if node:
                with suppress(StorageMissing):
                    self._api.delete(node.id)

    def make_folder(self, key: str) -> None:
        self._make(self._path(key))

    def remove_folder(self, key: str) -> None:
        path = self._path(key)
        node = self._found(path)
        if node and node.kind is Kind.FOLDER and not any(self._nodes(path)):
            self._there = {""}
            with suppress(StorageMissing):
                self._api.delete(node.id)

    def symlink(self, key: str, target: bytes) -> None:
        path = self._path(key)
        try:
            says = target.decode()
        except UnicodeDecodeError as e:
            raise InvalidInput(f"Onedata holds no symlink to {target!r}: it is not text.") from e
        self._make(path.rpartition("/")[0])
        with self._out_of_the_way(key):
            self._api.make(path, "SYMLNK", target_file_path=says)

    def readlink(self, key: str) -> bytes:
        node = self._node(key)
        if node.kind is not Kind.LINK:
            raise StorageError(f"{key!r} is no symlink.")
        return self._api.readlink(node.id)

    def close(self) -> None:
        self._http.close()

    def _path(self, key: str) -> str:
        """The path below the space."""
        return f"{self._root}/{check_key(key, _ABILITIES)}".lstrip("/")

    def _found(self, path: str) -> Node | None:
        try:
            return self._api.node(self._api.lookup(path))
        except (StorageMissing, NotAFolder):
            return None

    def _node(self, key: str) -> Node:
        """What stands under a key, also while it is being replaced."""
        path, aside = self._path(key), _aside(self._root, key)
        node = self._found(path) or self._found(aside)
        if node is None:
            with self._turn(key):  # several that replace it one after the other would show neither
                node = self._found(path) or self._found(aside)
        if node is None:
            raise StorageMissing(f"There is no {key!r} in {self._url}.")
        return node

    def _nodes(self, path: str) -> Iterator[Node]:
        try:
            yield from self._api.list(self._api.lookup(path))
        except (StorageMissing, NotAFolder):
            return

    def _refuse_existing(self, key: str) -> None:
        if self._found(self._path(key)) or self._found(_aside(self._root, key)):
            raise StorageExists(f"There is a {key!r} already.")

    def _won(self, path: str, made: str) -> bool:
        """Whether no other provider's file of this name counts: the least of provider and id does."""
        folder, _, name = path.rpartition("/")
        alike = [n for n in self._nodes(folder) if n.name == name or n.name.startswith(f"{name}@")]
        return not alike or min(alike, key=lambda n: (n.origin, n.id)).id == made

    @contextmanager
    def _uploaded(self, content: BinaryIO | bytes) -> Iterator[tuple[str, str]]:
        """Path and id of a temporary file with this content; gone afterwards if it is still there."""
        folder = f"{self._root}/{TEMPORARY}".lstrip("/")
        self._make(folder)
        path = f"{folder}/{secrets.token_hex(16)}"
        size = size_of(content)
        moved = False
        try:
            yield path, self._api.make(path, "REG", chunks_of(content, size), size)
            moved = True
        finally:
            if not moved:
                with suppress(StorageError):
                    self._api.delete(self._api.lookup(path))

    def _place(self, source: str, key: str) -> None:
        """Move the file at the path `source` to `key`, in the place of what is there."""
        path = self._path(key)
        with self._out_of_the_way(key):
            self._api.move(source, path)

    def _turn(self, key: str) -> threading.Lock:
        return self._replacing[hash(key) % len(self._replacing)]

    @contextmanager
    def _out_of_the_way(self, key: str) -> Iterator[None]:
        """What stands at `key` is aside meanwhile, and gone afterwards; it comes back if the block fails."""
        path, aside = self._path(key), _aside(self._root, key)
        with self._turn(key):
            node = self._found(path)
            if node is None:
                yield
                return
            if node.kind is Kind.FOLDER:
                raise StorageError(f"{key!r} is a folder.")
            self._make(aside.rpartition("/")[0])
            old = self._found(aside)
            if old:  # left by one who was cut off; the newer one is in its place
                self._api.delete(old.id)
            if node.kind is Kind.LINK:
                self._api.delete(node.id)
            else:
                self._api.move(path, aside)
            try:
                yield
            except BaseException:
                with suppress(StorageError):
                    if node.kind is Kind.FILE and not self._found(path):
                        self._api.move(aside, path)
                raise
            if node.kind is Kind.FILE:
                with suppress(StorageError):
                    self._api.delete(node.id)

    def _make(self, path: str) -> None:
        """Make the folder at `path`, and those above it."""
        if path in self._there:
            return
        try:
            self._api.make(path, "DIR")
        except StorageExists:
            node = self._found(path)
            if node is None or node.kind is not Kind.FOLDER:
                raise StorageError(f"{path!r} is a file, not a folder.") from None
        except StorageMissing:
            self._there.discard(path.rpartition("/")[0])
            self._make(path.rpartition("/")[0])
            with suppress(StorageExists):
                self._api.make(path, "DIR")
        self._there.add(path)


def _aside(root: str, key: str) -> str:
    """Where a file is while another takes its place."""
    return f"{root}/{TEMPORARY}/old-{hashlib.sha256(key.encode()).hexdigest()}".lstrip("/")


def _stat(key: str, node: Node) -> Stat:
    return Stat(key, node.kind, node.size, node.modified)
