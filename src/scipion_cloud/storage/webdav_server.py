"""A WebDAV server's requests about paths: what they mean, and what their answers amount to."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import BinaryIO

import httpx

from scipion_cloud.errors import StorageError, StorageTransient
from scipion_cloud.storage.base import chunks_of, size_of
from scipion_cloud.storage.http import Http, range_header
from scipion_cloud.storage.webdav_paths import encoded_path
from scipion_cloud.storage.webdav_xml import PROPFIND, Entry, Multistatus

LIST_LIMIT = 256 * 1024 * 1024  # bytes of one folder's list: some 400,000 files


class WebDavServer:
    """Requests to one server. Paths are text without slashes at their ends; "" is its root.

    Every method raises the error that the answer amounts to.
    """

    def __init__(self, http: Http, address: str) -> None:
        self.http = http
        self._address = address  # https://host
        self._there: set[str] = set()  # folders that are known to be there

    def url(self, path: str) -> str:
        """The URL of a path."""
        return f"{self._address}/{encoded_path(path)}"

    def has_locks(self, path: str) -> bool:
        """Whether LOCK is there for a folder, which may not be made yet."""
        response = self.http.send("OPTIONS", self.url(path))
        while response.status_code == 404 and path:
            path = path.rpartition("/")[0]
            response = self.http.send("OPTIONS", self.url(path))
        if not response.is_success:
            raise self.http.refuse(response, "say what it can do")
        return "2" in response.headers.get("DAV", "").replace(" ", "").split(",")

    def find(self, path: str, *, inside: bool = False) -> list[Entry]:
        """What stands at a path, and directly in it if `inside`: then it is asked for as a folder."""
        headers = {"Depth": "1" if inside else "0", "Content-Type": "application/xml"}
        url = self.url(path) + ("/" if inside and path else "")
        with self.http.stream("PROPFIND", url, headers, PROPFIND) as response:
            if response.is_redirect and not url.endswith("/"):  # some want a slash after a folder
                with self.http.stream("PROPFIND", f"{url}/", headers, PROPFIND) as again:
                    return self._entries(again, path)
            return self._entries(response, path)

    @contextmanager
    def get(self, path: str, start: int, length: int | None) -> Iterator[httpx.Response]:
        """The answer with the bytes of a file, or of a part of it: 200, 206, or 416 beyond its end."""
        with self.http.stream("GET", self.url(path), range_header(start, length)) as response:
            if response.status_code not in (200, 206, 416):
                raise self.http.refuse(response, f"read {path!r}")
            yield response

    def put(self, path: str, content: BinaryIO | bytes, mtime: datetime | None = None) -> None:
        """Put a file in its place; it is torn if this is cut off."""
        size = size_of(content)
        headers = {"Content-Length": str(size)}
        if mtime:
            headers["X-OC-Mtime"] = str(int(mtime.timestamp()))  # Nextcloud's; others ignore it
        response = self.http.send("PUT", self.url(path), headers, chunks_of(content, size))
        if not response.is_success:
            raise self._failure(response, f"take {path!r}")

    def move(self, source: str, target: str, *, overwrite: bool) -> bool:
        """Move a file; False if something stands at `target` that must not be overwritten."""
        headers = {"Destination": self.url(target), "Overwrite": "T" if overwrite else "F"}
        response = self.http.send("MOVE", self.url(source), headers)
        if response.status_code == 412 and not overwrite:
            return False
        if not response.is_success or response.status_code == 207:
            raise self._failure(response, f"move a file to {target!r}")
        return True

    def delete(self, path: str, *, folder: bool = False) -> None:
        """Delete a file, or a folder with all that is in it; what is missing is fine."""
        if folder:
            self._there.clear()
        response = self.http.send("DELETE", self.url(path) + ("/" if folder else ""))
        if response.status_code != 404 and (not response.is_success or response.status_code == 207):
            raise self._failure(response, f"remove {path!r}")

    def make(self, path: str) -> None:
        """Make a folder and those above it; what is known to be there is not asked for again."""
        if path in self._there or not path:
            return
        response = self.http.send("MKCOL", f"{self.url(path)}/")
        if response.status_code in (404, 409):
            self.make(path.rpartition("/")[0])
            response = self.http.send("MKCOL", f"{self.url(path)}/")
        if not response.is_success:  # it is there, or somebody else was making it at the same time
            try:
                entry = self.find(path, inside=False)[0]
            except (StorageError, IndexError):
                raise self._failure(response, f"make the folder {path!r}") from None
            if not entry.folder:
                raise StorageError(f"{path!r} on {self.http.name} is a file, not a folder.")
        self._there.add(path)

    def _entries(self, response: httpx.Response, path: str) -> list[Entry]:
        if response.status_code != 207:
            raise self.http.refuse(response, f"tell about {path!r}")
        return Multistatus().read(self.http.body(response, LIST_LIMIT))

    def _failure(self, response: httpx.Response, what: str) -> StorageError:
        self._there.clear()
        if response.status_code == 409:  # there was a folder when we asked
            return StorageTransient(f"{self.http.name} refuses to {what}: a folder was taken away meanwhile.")
        return self.http.refuse(response, what)
