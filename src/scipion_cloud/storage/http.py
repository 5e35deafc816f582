"""What the storages that speak HTTP have in common: one pool of connections, and errors of our own."""

import os
import ssl
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache

import httpcore
import httpx

from scipion_cloud.errors import (
    StorageDenied,
    StorageError,
    StorageFull,
    StorageMissing,
    StorageTransient,
)

SILENCE = 30.0  # s without a byte until a server counts as gone
LONGEST_PAUSE = 5.0  # s; what a server may make us wait before the error is told
ANSWER_LIMIT = 1024 * 1024  # bytes of an answer that is no file and no list
# it reads 64 KiB at a time, which costs Python more than twice the time of this
httpcore.HTTP11Connection.READ_NUM_BYTES = 1024 * 1024
_BUSY = {408, 423, 425, 429}
_NOT_BUSY = {501, 505, 507, 508}  # 5xx that trying again does not mend


class Http:
    """Requests to the servers of one storage; for many threads at once.

    `name` is how messages call the server. Answers are taken as they are: no redirect is followed, since the
    credentials would go with it, and nothing is unpacked.
    """

    def __init__(self, name: str, headers: Mapping[str, str], auth: httpx.Auth | None = None) -> None:
        self.name = name
        self._client = httpx.Client(
            headers={"User-Agent": "scipion-cloud", "Accept-Encoding": "identity", **headers},
            auth=auth,
            verify=_tls(os.environ.get("SSL_CERT_FILE")),
            timeout=httpx.Timeout(SILENCE, pool=None),
            limits=httpx.Limits(max_connections=128, max_keepalive_connections=64),
        )

    def close(self) -> None:
        """Close all connections."""
        self._client.close()

    def send(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str] | None = None,
        content: bytes | Iterator[bytes] | None = None,
    ) -> httpx.Response:
        """The answer with its body, whatever its status. Raises StorageTransient, StorageError."""
        with self.stream(method, url, headers, content) as response:
            body = b"".join(self.body(response, ANSWER_LIMIT))
        return httpx.Response(response.status_code, headers=response.headers, content=body)

    @contextmanager
    def stream(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str] | None = None,
        content: bytes | Iterator[bytes] | None = None,
    ) -> Iterator[httpx.Response]:
        """The answer, whatever its status, to be read with `body`. Raises StorageTransient, StorageError."""
        request = self._client.build_request(method, url, headers=headers, content=content)
        with self._told():
            response = self._client.send(request, stream=True)
        try:
            yield response
        finally:
            response.close()

    def body(self, response: httpx.Response, limit: int | None = None) -> Iterator[bytes]:
        """The bytes of an answer as they come. Raises StorageTransient if it ends early."""
        if response.headers.get("Content-Encoding", "identity") != "identity":
            raise StorageError(f"{self.name} packs what it sends, though it is asked not to.")
        taken = 0
        with self._told():
            for chunk in response.iter_raw():
                taken += len(chunk)
                if limit is not None and taken > limit:
                    raise StorageError(f"{self.name} answers with more than {limit} bytes; that is refused.")
                yield chunk

    def refuse(self, response: httpx.Response, what: str, says: str = "") -> StorageError:
        """The error that an answer amounts to; `what` was asked for, `says` is the server's own word."""
        status = response.status_code
        text = f"{self.name} refuses to {what}: {says or f'HTTP {status} {response.reason_phrase}'}"
        if status in (401, 403):
            return StorageDenied(f"{text}. Check the credentials and what they allow.")
        if status in (404, 410):
            return StorageMissing(f"{text}.")
        if status == 507:
            return StorageFull(f"{text}. Its disk or a quota is full: make room there.")
        if status in _BUSY or (status >= 500 and status not in _NOT_BUSY):
            _pause(response.headers.get("Retry-After", ""))
            return StorageTransient(f"{text}.")
        return StorageError(f"{text}.")

    @contextmanager
    def _told(self) -> Iterator[None]:
        """The client's errors in our words."""
        try:
            yield
        except httpx.TimeoutException as e:
            raise StorageTransient(f"{self.name} has been silent for {SILENCE:.0f} s.") from e
        except (httpx.TransportError, httpx.StreamError) as e:
            if isinstance(_root(e), ssl.SSLCertVerificationError):
                raise StorageError(f"{self.name} cannot show that it is who it says: {_root(e)}.") from e
            raise StorageTransient(f"The connection to {self.name} failed: {e or type(e).__name__}.") from e


@cache
def _tls(_authorities: str | None) -> ssl.SSLContext:
    """Whom we trust, read once for all connections, and again if the variable SSL_CERT_FILE changes."""
    return httpx.create_ssl_context()


def _root(error: BaseException) -> BaseException:
    while error.__cause__ or error.__context__:
        error = error.__cause__ or error.__context__ or error
    return error


def _pause(retry_after: str) -> None:
    if retry_after.isdecimal():  # else a date, or nothing
        time.sleep(min(float(retry_after), LONGEST_PAUSE))


def range_header(start: int, length: int | None) -> dict[str, str]:
    """The header that asks for a part of a file; none for the whole of it."""
    if start == 0 and length is None:
        return {}
    return {"Range": f"bytes={start}-{'' if length is None else start + length - 1}"}


def ranged(
    http: Http, response: httpx.Response, start: int, length: int | None, whole: Callable[[], int]
) -> Iterator[bytes]:
    """The bytes that were asked for with `range_header`, from an answer 200 or 206.

    A server that ignores the range is read past the beginning. `whole` tells the size of the file where the
    answer does not, so that an answer that is cut short is noticed. Raises StorageTransient.
    """
    skip = start
    if response.status_code == 206:
        unit = response.headers.get("Content-Range", "").replace(" ", "")
        if not unit.startswith(f"bytes{start}-"):
            raise StorageError(f"{http.name} sends another part of a file than it was asked for.")
        skip = 0
    told = "Content-Length" in response.headers or "Transfer-Encoding" in response.headers
    left = length
    taken = 0
    for chunk in http.body(response):
        taken += len(chunk)
        part = chunk[skip:]
        skip -= len(chunk) - len(part)
        if left is not None:
            part = part[:left]
            left -= len(part)
        if part:
            yield part
        if left == 0:
            return
    if not told:
        promised = whole() - (start if response.status_code == 206 else 0)
        if taken < (promised if left is None else min(promised, taken + left)):
            raise StorageTransient(f"{http.name} stopped in the middle of a file.")
