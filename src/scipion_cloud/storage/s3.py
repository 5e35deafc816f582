"""S3: a bucket, or a folder in one, through obstore.

Uploads of more than a part are multipart uploads. What is left of one that was cut off is not seen but takes
room: a bucket should have the rule AbortIncompleteMultipartUpload. There is no rename: `move` copies on the
server, or through us what servers do not copy. Times are the server's, and not kept: a copy is as young as a
new file.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, BinaryIO
from urllib.parse import SplitResult, quote, unquote

import obstore
from obstore.exceptions import GenericError

from scipion_cloud.errors import InvalidInput, StorageMissing
from scipion_cloud.storage.base import CHUNK, Capabilities, Kind, Stat, Storage, check_key, chunks_of, size_of
from scipion_cloud.storage.s3_client import Bucket, clients_of
from scipion_cloud.storage.s3_errors import code_of, translated
from scipion_cloud.storage.s3_transfer import MIB, PART, Transfers

if TYPE_CHECKING:  # obstore has them for type checkers only
    from obstore import ObjectMeta
    from obstore.store import S3Credential

COPIES = 5 * 1024 * MIB  # bytes; servers copy no more at once
TOO_LARGE = {"InvalidRequest", "EntityTooLarge"}  # what they say then
MAX_KEY = 1024  # bytes, says S3
MAX_FOLDER = 512  # bytes; the rest is for what is in it
PAGE = 1000  # objects of a listing
HELPERS = 16  # threads for parts of downloads and for doubtful names
NO_TIME = datetime(1970, 1, 1, tzinfo=UTC)  # of folders, which are not there but for their files


def connect(url: SplitResult, credentials: Mapping[str, str]) -> Storage:
    """The storage at s3+https://host[:port]/bucket/folder, or at AWS: s3://bucket/folder.

    `credentials`: access_key, secret_key, and if need be session_token and region. An authority of one's own
    for the server's certificate is trusted by SSL_CERT_FILE. Does not ask the server. Raises InvalidInput.
    """
    if "@" in url.netloc:
        raise InvalidInput(errors={"url": "Leave the user out of the URL; the keys are given apart from it."})
    region = credentials.get("region", "us-east-1")
    if url.scheme == "s3":
        endpoint, path = f"https://s3.{region}.amazonaws.com", f"{url.netloc}/{url.path.strip('/')}"
    else:
        endpoint, path = f"{url.scheme.removeprefix('s3+')}://{url.netloc}", url.path.strip("/")
    name, folder = (unquote(part) for part in path.partition("/")[::2])
    if not url.hostname or not name:
        example = "s3+https://s3.example.org/bucket/folder, or s3://bucket/folder at AWS"
        raise InvalidInput(errors={"url": f"The URL has to name a server and a bucket: {example}."})
    if len(folder.encode()) > MAX_FOLDER:
        raise InvalidInput(errors={"url": f"The folder's path is too long; {MAX_FOLDER} bytes at most."})
    credential: S3Credential = {
        "access_key_id": credentials["access_key"],
        "secret_access_key": credentials["secret_key"],
        "token": credentials.get("session_token"),
        "expires_at": None,
    }
    shown = f"{url.scheme}://{url.netloc}" + ("" if url.scheme == "s3" else f"/{quote(name)}")
    return S3(Bucket(endpoint, name, region, credential), folder.rstrip("/"), shown)


class S3(Storage):
    """A folder of a bucket ("": all of it); `shown` is the URL of the bucket."""

    def __init__(self, bucket: Bucket, folder: str, shown: str) -> None:
        self._prefix = f"{check_key(folder)}/" if folder else ""
        self._url = f"{shown}/{quote(folder)}" if folder else shown
        self._able = Capabilities(
            exclusive_create=True,
            rename=False,
            symlinks=False,
            folders=False,
            ranges=True,
            mtime=False,
            byte_names=False,
            max_key=MAX_KEY - len(self._prefix.encode()),
            parallel=16,  # each waits for the server most of the time
        )
        self._clients = clients_of(bucket)
        self._client = self._clients.quick
        self._pool = ThreadPoolExecutor(HELPERS, thread_name_prefix="s3")
        self._transfers = Transfers(self._clients, self._pool)

    def __repr__(self) -> str:
        return f"<S3 {self._url}>"

    @property
    def url(self) -> str:
        return self._url

    @property
    def capabilities(self) -> Capabilities:
        return self._able

    def children(self, folder: str = "") -> Iterator[Stat]:
        place = self._folder(folder)
        with self._translated("listing", folder):
            found = obstore.list_with_delimiter(self._client, place)
        for path in found["common_prefixes"]:
            if len(path) > len(self._prefix):
                yield Stat(path[len(self._prefix) :], Kind.FOLDER, 0, NO_TIME)
        for meta in found["objects"]:
            if meta["path"] != place:  # an object "folder/": see `walk`
                yield self._stat(meta)

    def walk(self, folder: str = "") -> Iterator[Stat]:
        place = self._folder(folder)
        pages = obstore.list(self._client, place, chunk_size=PAGE)
        while True:
            with self._translated("listing", folder):
                page = next(pages, None)
                if page is None:
                    return
                # Some programs make folders by empty objects "folder/", which obstore shows as "folder": what
                # is empty is a file only if it is there under this name.
                empty = [meta["path"] for meta in page if not meta["size"] and meta["path"] != place]
                files = set(self._pool.map(self._if_there, empty))
            for meta in page:
                if meta["size"] or meta["path"] in files:
                    yield self._stat(meta)

    def stat(self, key: str) -> Stat:
        path = self._path(key)
        with self._translated("looking for", key):
            try:
                return self._stat(obstore.head(self._client, path))
            except FileNotFoundError:
                below = next(obstore.list(self._client, path, chunk_size=PAGE), [])
                if all(meta["path"] == path for meta in below):
                    raise
        return Stat(key, Kind.FOLDER, 0, NO_TIME)

    def read(self, key: str, start: int = 0, length: int | None = None) -> Iterator[bytes]:
        path = self._path(key)
        with self._translated("reading", key):
            if length == 0:
                obstore.head(self._client, path)
            elif result := self._transfers.get(path, start, length):
                if result.range[1] - result.range[0] <= CHUNK:
                    yield self._transfers.whole(result)
                else:
                    yield from self._transfers.chunks(result, CHUNK)

    def download(self, key: str, fd: int, start: int = 0, length: int | None = None) -> int:
        path = self._path(key)
        with self._translated("reading", key):
            if length == 0:
                obstore.head(self._client, path)
                return 0
            return self._transfers.download(path, fd, start, length)

    def write(
        self,
        key: str,
        content: BinaryIO | bytes,
        *,
        mtime: datetime | None = None,  # noqa: ARG002 - nothing keeps it
        new: bool = False,  # noqa: ARG002 - every upload is all or nothing
    ) -> None:
        path, size = self._path(key), size_of(content)
        with self._translated("writing", key):
            if size > PART:
                self._transfers.put_parts(path, chunks_of(content, size, MIB), size)
            else:
                self._transfers.put(path, b"".join(chunks_of(content, size, PART)))

    def create(self, key: str, content: bytes) -> None:
        path = self._path(key)
        with self._translated("creating", key):
            self._transfers.put(path, content, "create")

    def move(self, source: str, target: str) -> None:
        old, new = self._path(source), self._path(target)
        with self._translated("moving", source):
            if old == new:
                obstore.head(self._client, old)
                return
            try:
                obstore.copy(self._clients.copies, old, new)
            except GenericError as e:
                if code_of(str(e)) not in TOO_LARGE or obstore.head(self._client, old)["size"] <= COPIES:
                    raise
                self._transfers.copy_through(old, new)
            obstore.delete(self._client, old)

    def remove(self, key: str) -> None:
        path = self._path(key)
        with suppress(StorageMissing), self._translated("deleting", key):
            obstore.delete(self._client, path)

    def make_folder(self, key: str) -> None:
        self._path(key)

    def remove_folder(self, key: str) -> None:
        self._path(key)

    def close(self) -> None:
        self._pool.shutdown()

    def _path(self, key: str) -> str:
        """Where a key is in the bucket. Raises InvalidInput."""
        return self._prefix + check_key(key, self._able)

    def _folder(self, folder: str) -> str:
        """Where a folder is in the bucket ("": the bucket itself). Raises InvalidInput."""
        return self._path(folder) if folder else self._prefix.rstrip("/")

    def _stat(self, meta: ObjectMeta) -> Stat:
        key = meta["path"][len(self._prefix) :]
        return Stat(key, Kind.FILE, meta["size"], meta["last_modified"].astimezone(UTC))

    def _if_there(self, path: str) -> str | None:
        """The path itself, if an object is there."""
        try:
            obstore.head(self._client, path)
        except FileNotFoundError:
            return None
        return path

    def _translated(self, doing: str, key: str) -> AbstractContextManager[None]:
        return translated(f"{doing} {key!r} in {self._url}")
