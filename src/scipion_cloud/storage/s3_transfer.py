"""Objects of a bucket, up and down; with the errors of obstore."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from typing import TYPE_CHECKING

import obstore
from obstore.exceptions import GenericError

from scipion_cloud.errors import StorageTransient
from scipion_cloud.storage.base import CHUNK
from scipion_cloud.storage.s3_budget import Budget
from scipion_cloud.storage.s3_client import Clients
from scipion_cloud.storage.s3_errors import status_of

if TYPE_CHECKING:  # obstore has them for type checkers only
    from obstore import GetResult, PutMode

MIB = 2**20
PART = 8 * MIB  # bytes of a part of an upload or a download
PARTS = 4  # of one upload or download at a time
MAX_PARTS = 10_000  # of one upload, says S3
UNDER_WAY = 64 * MIB  # bytes of uploads in memory at a time
SMALL = 256 * 1024  # bytes; uploads up to this are not counted


class Transfers:
    """Up- and downloads of one bucket; for many threads."""

    def __init__(self, clients: Clients, pool: ThreadPoolExecutor) -> None:
        self._clients = clients
        self._pool = pool
        self._uploads = Budget(UNDER_WAY)

    def put(self, path: str, body: bytes, mode: PutMode = "overwrite") -> None:
        """Upload in one request, all or nothing; with the mode "create" only if nothing is there."""
        if len(body) <= SMALL:
            obstore.put(self._clients.quick, path, body, mode=mode, use_multipart=False)
        else:
            with self._uploads.share(len(body)):
                obstore.put(self._clients.uploads, path, body, mode=mode, use_multipart=False)

    def put_parts(self, path: str, chunks: Iterable[bytes], size: int) -> None:
        """Upload `size` bytes in parts; all or nothing. What `chunks` raises comes through."""
        part = max(PART, -(-size // MAX_PARTS))
        at_a_time = max(1, min(PARTS, UNDER_WAY // part))
        with self._uploads.share(part * at_a_time):
            obstore.put(
                self._clients.uploads,
                path,
                chunks,
                use_multipart=True,
                chunk_size=part,
                max_concurrency=at_a_time,
            )

    def get(self, path: str, start: int = 0, length: int | None = None) -> GetResult | None:
        """Begin to download a range, `length` is not 0; None if the object ends before `start`."""
        try:
            if length is not None:
                return obstore.get(self._clients.quick, path, options={"range": (start, start + length)})
            if start:
                return obstore.get(self._clients.quick, path, options={"range": {"offset": start}})
            return obstore.get(self._clients.quick, path)
        except GenericError as e:
            if status_of(str(e)) == 416:
                return None
            raise

    def whole(self, result: GetResult) -> bytes:
        """All bytes of a small download that has begun. Raises StorageTransient if they end too early."""
        content = bytes(result.bytes())
        if missing := result.range[1] - result.range[0] - len(content):
            raise StorageTransient(f"The S3 server hung up {missing} bytes too early.")
        return content

    def chunks(self, result: GetResult, size: int = CHUNK) -> Iterator[bytes]:
        """The bytes of a download that has begun, about `size` at a time.

        Raises StorageTransient if they end too early.
        """
        left = result.range[1] - result.range[0]
        for chunk in result.stream(min_chunk_size=size):
            left -= len(chunk)
            yield chunk
        if left:
            raise StorageTransient(f"The S3 server hung up {left} bytes too early.")

    def download(self, path: str, fd: int, start: int, length: int | None) -> int:
        """Write a range of an object to the same place of a local file, in parts at the same time.

        How many bytes these were. Raises StorageTransient if the object changes meanwhile.
        """
        first = self.get(path, start, PART if length is None else min(length, PART))
        if first is None:
            return 0
        end = first.meta["size"] if length is None else min(first.meta["size"], start + length)
        places = deque(range(start + PART, end, PART))

        def work() -> int:
            done = 0
            while places:
                try:
                    place = places.popleft()
                except IndexError:  # another was quicker
                    break
                done += self._save(self._more(first, place, min(PART, end - place)), fd)
            return done

        helpers = [self._pool.submit(work) for _ in range(min(PARTS - 1, len(places)))]
        try:
            done = self._save(first, fd) + work()
            return done + sum(helper.result() for helper in helpers)
        finally:  # nobody writes to the file any more when this returns
            places.clear()
            for helper in helpers:
                helper.cancel()
            wait(helpers)

    def copy_through(self, source: str, target: str) -> None:
        """Copy an object by way of this machine."""
        whole = obstore.get(self._clients.quick, source)
        size = whole.meta["size"]

        def part(place: int) -> bytes:
            return b"".join(self.chunks(self._more(whole, place, min(MIB, size - place)), MIB))

        # in another thread: while obstore asks for content, its functions cannot be called
        self.put_parts(target, (self._pool.submit(part, n).result() for n in range(0, size, MIB)), size)

    def _more(self, begun: GetResult, start: int, length: int) -> GetResult:
        """Another part of an object of which a part is there. Raises StorageTransient if it was replaced."""
        result = self.get(begun.meta["path"], start, length)
        if result is None or result.meta["e_tag"] != begun.meta["e_tag"]:
            raise StorageTransient("The object was replaced while it was read.")
        return result

    def _save(self, result: GetResult, fd: int) -> int:
        start = place = result.range[0]
        for chunk in self.chunks(result, MIB):
            view = memoryview(chunk)
            while view:
                written = os.pwrite(fd, view, place)
                place += written
                view = view[written:]
        return place - start
