"""The REST API of a Oneprovider, in either dialect, for one space."""

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, NoReturn
from urllib.parse import quote, urlencode

import httpx

from scipion_cloud.errors import (
    StorageDenied,
    StorageError,
    StorageExists,
    StorageFull,
    StorageMissing,
    StorageTransient,
)
from scipion_cloud.storage.base import Kind
from scipion_cloud.storage.http import Http, range_header
from scipion_cloud.storage.onedata_zone import Provider, Space

PAGE = 1000  # entries of one answer; 10,000 are the most
KINDS = {"REG": Kind.FILE, "LNK": Kind.FILE, "DIR": Kind.FOLDER, "SYMLNK": Kind.LINK}
_ATTRIBUTES = {
    "fileId": "file_id",
    "name": "name",
    "type": "type",
    "size": "size",
    "mtime": "mtime",
    "originProviderId": "provider_id",
}
_POSIX: dict[str, type[StorageError]] = {
    "enoent": StorageMissing,
    "eexist": StorageExists,
    "eacces": StorageDenied,
    "eperm": StorageDenied,
    "erofs": StorageDenied,
    "enospc": StorageFull,
    "edquot": StorageFull,
    "eagain": StorageTransient,
    "ebusy": StorageTransient,
    "etimedout": StorageTransient,
}


@dataclass(frozen=True, slots=True)
class Node:
    """A file, folder or symlink."""

    id: str
    name: str
    kind: Kind
    size: int  # bytes; 0 unless it is a file
    modified: datetime  # UTC, to the second
    origin: str  # id of the provider that made it


class NotAFolder(StorageError):
    """There is a file where a path needs a folder."""


class Oneprovider:
    """Requests about one space. Paths begin below it; their parts are text, and "" is the space itself.

    Every method raises the error that the answer amounts to.
    """

    def __init__(self, http: Http, scheme: str, provider: Provider, space: Space) -> None:
        self._http = http
        self._base = f"{scheme}://{provider.domain}"
        self._api = f"{self._base}/api/v3/oneprovider"
        self._camel_case = provider.camel_case
        self._space = space

    def lookup(self, path: str) -> str:
        """The id of what stands at a path."""
        whole = f"{self._space.full_name}/{path}".rstrip("/")
        answer = self._send("POST", f"{self._api}/lookup-file-id/{_encoded(whole)}", f"find {path!r}")
        return str(_json(answer)["fileId"])

    def node(self, file_id: str) -> Node:
        """What has this id."""
        headers, body = self._wanted()
        # the older dialect answers {} if it is asked for two attributes; asked for none it tells all
        return self._node(_json(self._send("GET", self._data(file_id), "tell about a file", headers, body)))

    def list(self, folder_id: str) -> Iterator[Node]:
        """What stands in a folder, page by page."""
        token: str | None = ""
        headers, body = self._wanted()
        while token is not None:
            query: list[tuple[str, str]] = [("limit", str(PAGE))]
            if token:
                query.append(("token", token))
            if not self._camel_case:
                query += [("attribute", name) for name in _ATTRIBUTES.values()]
            url = f"{self._data(folder_id)}/children?{urlencode(query)}"
            page = _json(self._send("GET", url, "list a folder", headers, body))
            yield from map(self._node, page["children"])
            token = None if page["isLast"] else str(page["nextPageToken"])

    @contextmanager
    def content(self, file_id: str, start: int, length: int | None) -> Iterator[httpx.Response]:
        """The answer with the bytes of a file, or of a part of it: 200, 206 or 416."""
        url = f"{self._data(file_id)}/content"
        with self._http.stream("GET", url, range_header(start, length)) as response:
            if response.status_code not in (200, 206, 416):
                body = b"".join(self._http.body(response, 1024 * 1024))
                self._refuse(
                    httpx.Response(response.status_code, headers=response.headers, content=body),
                    "read a file",
                )
            yield response

    def make(
        self,
        path: str,
        kind: str,
        content: bytes | Iterator[bytes] | None = None,
        size: int = 0,
        **parameters: str,
    ) -> str:
        """Make a REG, DIR, LNK or SYMLNK where nothing stands, and its content with it; the new id."""
        query = urlencode({"type": kind, **parameters}, errors="surrogateescape")
        url = f"{self._data(self._space.id)}/path/{_encoded(path)}?{query}"
        headers = {"Content-Type": "application/octet-stream", "Content-Length": str(size)}
        answer = self._send("PUT", url, f"make {path!r}", headers, content)
        return str(_json(answer)["fileId"])

    def readlink(self, file_id: str) -> bytes:
        """What a symlink says."""
        return self._send("GET", f"{self._data(file_id)}/symlink_value", "read a symlink").content

    def delete(self, file_id: str) -> None:
        """Delete what has this id; a folder with all that is in it."""
        self._send("DELETE", self._data(file_id), "delete a file")

    def move(self, source: str, target: str) -> None:
        """Give a file another path, at which nothing may stand: servers fail in the middle if there does."""
        url = f"{self._base}/cdmi/{_encoded(f'{self._space.full_name}/{target}')}"
        headers = {"X-CDMI-Specification-Version": "1.1.1", "Content-Type": "application/cdmi-object"}
        body = json.dumps({"move": f"{self._space.full_name}/{source}"}).encode()
        self._send("PUT", url, f"move {source!r} to {target!r}", headers, body)

    def _data(self, file_id: str) -> str:
        return f"{self._api}/data/{quote(file_id, safe='')}"

    def _wanted(self) -> tuple[dict[str, str], bytes | None]:
        if not self._camel_case:
            return {}, None
        return {"Content-Type": "application/json"}, json.dumps({"attributes": list(_ATTRIBUTES)}).encode()

    def _node(self, told: Mapping[str, Any]) -> Node:
        names = {new: new if self._camel_case else old for new, old in _ATTRIBUTES.items()}
        try:
            kind = KINDS[told[names["type"]]]
            return Node(
                str(told[names["fileId"]]),
                str(told[names["name"]]),
                kind,
                int(told[names["size"]] or 0) if kind is Kind.FILE else 0,
                datetime.fromtimestamp(told[names["mtime"]], UTC),
                str(told[names["originProviderId"]]),
            )
        except (KeyError, TypeError, ValueError) as e:
            raise StorageError(
                f"{self._http.name} tells about a file in words that are not known: {e}."
            ) from e

    def _send(
        self,
        method: str,
        url: str,
        what: str,
        headers: Mapping[str, str] | None = None,
        content: bytes | Iterator[bytes] | None = None,
    ) -> httpx.Response:
        response = self._http.send(method, url, headers, content)
        if not response.is_success:
            self._refuse(response, what)
        return response

    def _refuse(self, response: httpx.Response, what: str) -> NoReturn:
        """Raise what an answer amounts to; errors of files come as HTTP 400 with the name of an errno."""
        try:
            told = response.json()["error"]
            description = str(told.get("description") or told["id"])
            errno = str((told.get("details") or {}).get("errno", "")) if told["id"] == "posix" else ""
        except (ValueError, KeyError, TypeError, AttributeError):
            description = errno = ""
        if errno == "enotdir":
            raise NotAFolder(
                f"{self._http.name} refuses to {what}: there is a file in the place of a folder."
            )
        if errno in _POSIX:
            raise _POSIX[errno](f"{self._http.name} refuses to {what}: {description}")
        raise self._http.refuse(response, what, description)


def _encoded(path: str) -> str:
    return quote(os.fsencode(path), safe="/")


def _json(response: httpx.Response) -> dict[str, Any]:
    try:
        told = response.json()
    except ValueError as e:
        raise StorageTransient(f"An answer of Onedata is not whole: {e}.") from e
    if not isinstance(told, dict):
        raise StorageError("An answer of Onedata is not of the kind that is documented.")
    return told
