"""Files of users sent to browsers: never from outside the folder asked for, never run as a page of ours."""

import asyncio
import mimetypes
import os
import re
import stat
from collections.abc import AsyncIterator, Iterator
from pathlib import Path, PurePosixPath
from typing import BinaryIO
from urllib.parse import quote

from django.core.handlers.asgi import ASGIRequest
from django.http import HttpRequest, HttpResponse, HttpResponseBase, StreamingHttpResponse
from django.utils.http import http_date

from scipion_cloud.errors import NotFound

_CHUNK = 1 << 20
_SHOWN = {"image/png", "image/jpeg", "image/webp", "text/plain"}  # what a browser may show in place
_RANGE = re.compile(r"bytes=(\d*)-(\d*)\s*", re.ASCII)
_MISSING = "There is no such file."


def safe_open(root: Path, relative: str) -> BinaryIO:
    """Open the regular file `relative` (forward slashes) below `root` for reading.

    Symbolic links are followed as long as they end below `root`. Anything else (`..`, an absolute path, NUL,
    a link that leaves, a folder, a device) raises NotFound. The opened file itself is checked too, so that a
    link which is swapped meanwhile gains nothing.
    """
    parts = PurePosixPath(relative).parts
    if "\0" in relative or not parts or parts[0].startswith("/") or ".." in parts:
        raise NotFound(_MISSING)
    try:
        base = os.path.realpath(root, strict=True)
        target = os.path.realpath(os.path.join(base, *parts), strict=True)  # noqa: PTH118 - names may be any bytes
        if not _is_below(target, base) or not stat.S_ISREG(os.stat(target).st_mode):  # noqa: PTH116
            raise NotFound(_MISSING)
        descriptor = os.open(target, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except (OSError, ValueError) as e:
        raise NotFound(_MISSING) from e
    file = os.fdopen(descriptor, "rb")
    reached = os.readlink(f"/proc/self/fd/{descriptor}")  # noqa: PTH115
    if not _is_below(reached, base) or not stat.S_ISREG(os.fstat(descriptor).st_mode):
        file.close()
        raise NotFound(_MISSING)
    return file


def _is_below(path: str, base: str) -> bool:
    return path.startswith(base.rstrip("/") + "/")


def file_response(
    request: HttpRequest, root: Path, relative: str, *, name: str = "", attachment: bool = True
) -> HttpResponseBase:
    """Answer with a file below `root`, whole or the one byte range asked for.

    `name` is what the browser saves it as (its own name if empty). With `attachment=False` a picture or a
    plain text is shown in place. Raises NotFound as `safe_open` does.
    """
    file = safe_open(root, relative)
    status = os.fstat(file.fileno())
    size, etag = status.st_size, f'"{status.st_mtime_ns:x}-{status.st_size:x}"'
    name = name or PurePosixPath(relative).name
    kind = mimetypes.guess_type(name)[0] or "application/octet-stream"
    if kind not in _SHOWN:
        kind, attachment = "application/octet-stream", True
    headers = {
        "Content-Type": "text/plain; charset=utf-8" if kind == "text/plain" else kind,
        "Content-Disposition": content_disposition(name, attachment=attachment),
        "Content-Security-Policy": "default-src 'none'; sandbox",
        "X-Content-Type-Options": "nosniff",
        "Cache-Control": "private, no-cache",
        "Accept-Ranges": "bytes",
        "ETag": etag,
        "Last-Modified": http_date(status.st_mtime),
    }
    if request.headers.get("If-None-Match") == etag:
        file.close()
        return HttpResponse(status=304, headers=headers)
    wanted = _range_of(request, size, etag)
    if wanted is None:
        file.close()
        return HttpResponse(status=416, headers=headers | {"Content-Range": f"bytes */{size}"})
    start, stop = wanted
    headers["Content-Length"] = str(stop - start)
    partial = "Range" in request.headers and (start, stop) != (0, size)
    if partial:
        headers["Content-Range"] = f"bytes {start}-{stop - 1}/{size}"
    # an asynchronous server would read a synchronous iterator whole into memory, and the reverse
    reader = _AsyncSlice if isinstance(request, ASGIRequest) else _SyncSlice
    return StreamingHttpResponse(reader(file, start, stop), status=206 if partial else 200, headers=headers)


def _range_of(request: HttpRequest, size: int, etag: str) -> tuple[int, int] | None:
    """First byte and the one after the last; the whole file unless one range is asked; None if impossible."""
    whole = (0, size)
    match = _RANGE.fullmatch(request.headers.get("Range", ""))
    if match is None or match[0] == "bytes=-" or request.headers.get("If-Range", etag) != etag:
        return whole
    first, last = match[1], match[2]
    if not first:  # the last so many bytes
        return (max(0, size - int(last)), size) if int(last) and size else None
    start, stop = int(first), min(size, int(last) + 1 if last else size)
    return (start, stop) if start < stop else None


def content_disposition(name: str, *, attachment: bool) -> str:
    """The header by RFC 6266: a plain fallback and, where that loses something, the name by RFC 5987."""
    kind = "attachment" if attachment else "inline"
    plain = re.sub(r"[^ !#-\[\]-~]", "_", name)  # printable ASCII without the quote and the backslash
    extended = f"; filename*=UTF-8''{quote(os.fsencode(name), safe='')}" if plain != name else ""
    return f'{kind}; filename="{plain}"{extended}'


class _Slice:
    """The bytes from `start` up to `stop` of an open file, which closes with the response."""

    def __init__(self, file: BinaryIO, start: int, stop: int) -> None:
        file.seek(start)
        self._file, self._left = file, stop - start

    def read(self) -> bytes:
        """The next piece; empty at the end."""
        chunk = self._file.read(min(_CHUNK, self._left))
        self._left -= len(chunk)
        return chunk

    def close(self) -> None:
        """Django calls this when the response is done or dropped."""
        self._file.close()


class _SyncSlice(_Slice):
    def __iter__(self) -> Iterator[bytes]:
        return iter(self.read, b"")


class _AsyncSlice(_Slice):
    async def __aiter__(self) -> AsyncIterator[bytes]:
        while chunk := await asyncio.to_thread(self.read):
            yield chunk
