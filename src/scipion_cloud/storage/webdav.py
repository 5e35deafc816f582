"""WebDAV (RFC 4918): `davs://server/folder`, or `dav://` without TLS."""

import hashlib
import secrets
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import datetime
from functools import cached_property
from typing import BinaryIO
from urllib.parse import SplitResult, unquote

import httpx

from scipion_cloud.errors import (
    InvalidInput,
    StorageError,
    StorageExists,
    StorageMissing,
    StorageTransient,
)
from scipion_cloud.storage.base import Capabilities, Kind, Stat, Storage, check_key
from scipion_cloud.storage.http import Http, ranged
from scipion_cloud.storage.walking import walk_folders
from scipion_cloud.storage.webdav_lock import locked
from scipion_cloud.storage.webdav_paths import decoded_path, encoded_path, same_path
from scipion_cloud.storage.webdav_server import WebDavServer
from scipion_cloud.storage.webdav_xml import Entry

TEMPORARY = ".scipion-cloud/tmp"
_ABILITIES = Capabilities(
    exclusive_create=True,
    rename=True,
    symlinks=False,
    folders=True,
    ranges=True,
    mtime=False,
    byte_names=False,
    max_key=1024,  # three times as long in a URL, and servers allow 8 KiB
    parallel=16,
)
_READABLE = replace(_ABILITIES, byte_names=True)  # what others have put there
_WITHOUT_LOCKS = replace(_ABILITIES, exclusive_create=False)
_GAP = 0.1  # s; while some servers replace a file it is not there
_LOOKS = 3  # that may meet such a gap, one after the other


def connect(url: SplitResult, credentials: Mapping[str, str]) -> "WebDavStorage":
    """Open the storage; the server is not asked yet. Raises InvalidInput."""
    if not url.hostname:
        raise InvalidInput(errors={"url": "The URL names no server: davs://server/folder is right."})
    user, token = credentials.get("user") or unquote(url.username or ""), credentials.get("token")
    if token and credentials.get("password"):
        raise InvalidInput("Give a token, or a user and a password, not both.")
    if credentials.get("password") and not user:
        raise InvalidInput(errors={"user": "A password needs a user."})
    headers, auth = {}, None
    if token:
        headers["Authorization"] = f"Bearer {token}"
    elif user:
        auth = httpx.BasicAuth(user, credentials.get("password", ""))
    server = url.netloc.rpartition("@")[2]
    return WebDavStorage(url, Http(f"The WebDAV server {server}", headers, auth))


class WebDavStorage(Storage):
    """A folder of a WebDAV server."""

    def __init__(self, url: SplitResult, http: Http) -> None:
        self._url = f"{url.scheme}://{url.netloc}/{encoded_path(_root(url))}".rstrip("/")
        scheme = "https" if url.scheme == "davs" else "http"
        self._server = WebDavServer(http, f"{scheme}://{url.netloc.rpartition('@')[2]}")
        self._root = _root(url)  # without slashes at its ends
        self._http = http
        self._guards: set[str] = set()  # files to be locked that are known to be there

    @property
    def url(self) -> str:
        return self._url

    @cached_property
    def _locks(self) -> bool:
        return self._server.has_locks(self._root)

    @cached_property
    def _exact(self) -> bool:
        """Whether the server moves a file to just the name it is told; wsgidav cuts it at '?' and ';'."""
        with self._uploaded(b"") as temporary:
            moved = f"{temporary}-?;"
            self._server.move(temporary, moved, overwrite=False)
            try:
                self._server.find(moved)
            except StorageMissing:
                self._server.delete(f"{temporary}-")
                return False
            self._server.delete(moved)
            return True

    @property
    def capabilities(self) -> Capabilities:
        return _ABILITIES if self._locks else _WITHOUT_LOCKS

    def children(self, folder: str = "") -> Iterator[Stat]:
        path = self._path(folder) if folder else self._root
        try:
            entries = self._server.find(path, inside=True)
        except StorageMissing:
            return
        for entry in entries:
            found = decoded_path(entry.href, path)
            if same_path(found, path):
                continue
            parent, _, name = found.rpartition("/")
            if same_path(parent, path):
                yield _stat(f"{folder}/{name}".lstrip("/"), entry)
            elif not found.startswith(f"{path}/"):  # deeper ones will be listed in their own folders
                raise StorageError(f"{self._http.name} lists other folders than it is asked for.")

    def walk(self, folder: str = "") -> Iterator[Stat]:
        return walk_folders(self.children, folder)

    def stat(self, key: str) -> Stat:
        entries = self._server.find(self._path(key))
        if not entries:
            raise StorageMissing(f"There is no {key!r} on {self._http.name}.")
        return _stat(key, entries[0])

    def read(self, key: str, start: int = 0, length: int | None = None) -> Iterator[bytes]:
        if length == 0:
            self._file(key)
            return
        for _ in range(_LOOKS):
            try:
                yield from self._read(key, start, length)
            except StorageMissing:
                time.sleep(_GAP)
            else:
                return
        yield from self._read(key, start, length)

    def write(
        self, key: str, content: BinaryIO | bytes, *, mtime: datetime | None = None, new: bool = False
    ) -> None:
        path = self._new_path(key)
        self._server.make(path.rpartition("/")[0])
        if new:
            self._server.put(path, content, mtime)
            return
        with self._uploaded(content, mtime) as temporary:
            self._place(temporary, key)

    def create(self, key: str, content: bytes) -> None:
        path = self._new_path(key)
        self._server.make(path.rpartition("/")[0])
        self._refuse_existing(key)
        with self._uploaded(content) as temporary, self._guarded(key, self._refuse_existing) as still_ours:
            self._refuse_existing(key)
            still_ours()
            if not self._server.move(temporary, path, overwrite=False):
                raise StorageExists(f"There is a {key!r} already.")

    def move(self, source: str, target: str) -> None:
        path = self._new_path(target)
        self._file(source)
        if source != target:
            self._server.make(path.rpartition("/")[0])
            self._place(self._path(source), target)

    def remove(self, key: str) -> None:
        with suppress(StorageMissing):
            self._file(key)  # else a folder goes with all that is in it
            self._server.delete(self._path(key))

    def make_folder(self, key: str) -> None:
        self._server.make(self._new_path(key))

    def remove_folder(self, key: str) -> None:
        path = self._path(key)
        with suppress(StorageMissing):
            if self.stat(key).kind is Kind.FOLDER and not any(self.children(key)):
                self._server.delete(path, folder=True)

    def close(self) -> None:
        self._http.close()

    def _path(self, key: str) -> str:
        """The path on the server, without a slash at its beginning."""
        return f"{self._root}/{check_key(key, _READABLE)}".lstrip("/")

    def _new_path(self, key: str) -> str:
        check_key(key, _ABILITIES)
        if ("?" in key or ";" in key) and not self._exact:
            raise InvalidInput(f"{self._http.name} would move {key!r} to another name, for its '?' or ';'.")
        return self._path(key)

    def _file(self, key: str) -> Stat:
        stat = self.stat(key)
        if stat.kind is not Kind.FILE:
            raise StorageError(f"{key!r} is a folder.")
        return stat

    def _refuse_existing(self, key: str) -> None:
        with suppress(StorageMissing):
            self.stat(key)
            raise StorageExists(f"There is a {key!r} already.")

    def _read(self, key: str, start: int, length: int | None) -> Iterator[bytes]:
        with self._server.get(self._path(key), start, length) as response:
            if response.status_code != 416:  # beyond its end, also for an empty file
                yield from ranged(self._http, response, start, length, lambda: self.stat(key).size)

    @contextmanager
    def _uploaded(self, content: BinaryIO | bytes, mtime: datetime | None = None) -> Iterator[str]:
        """The path of a temporary file with this content; gone afterwards if it is still there."""
        folder = f"{self._root}/{TEMPORARY}".lstrip("/")
        self._server.make(folder)
        path = f"{folder}/{secrets.token_hex(16)}"
        moved = False
        try:
            self._server.put(path, content, mtime)
            yield path
            moved = True
        finally:
            if not moved:
                with suppress(StorageError):
                    self._server.delete(path)

    @contextmanager
    def _guarded(
        self, key: str, waiting: Callable[[str], None] = lambda _: None
    ) -> Iterator[Callable[[], None]]:
        """Nobody else creates or replaces `key` meanwhile, where the server has locks."""
        if not self._locks:
            yield lambda: None
            return
        # a few files that stay: servers stumble where one locks what another is just removing
        share = hashlib.sha256(key.encode()).hexdigest()[0]
        guard = f"{self._root}/{TEMPORARY}/lock-{share}".lstrip("/")
        if guard not in self._guards:
            self._server.make(guard.rpartition("/")[0])
            with suppress(StorageTransient):  # locked: then it is there
                self._server.put(guard, b"")
            self._guards.add(guard)
        with locked(self._http, self._server.url(guard), lambda: waiting(key)) as still_ours:
            yield still_ours

    def _place(self, source: str, key: str) -> None:
        """Move the file at the path `source` to `key`, in the place of a file that is there."""
        path = self._path(key)
        if self._server.move(source, path, overwrite=False):
            return
        with self._guarded(key) as still_ours:
            self._file(key)  # a folder would go with all that is in it
            still_ours()
            self._server.move(source, path, overwrite=True)


def _root(url: SplitResult) -> str:
    return decoded_path(url.path, "")


def _stat(key: str, entry: Entry) -> Stat:
    return Stat(key, Kind.FOLDER if entry.folder else Kind.FILE, entry.size, entry.modified)
