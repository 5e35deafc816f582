"""Resumable uploads: the tus 1.0 protocol, with creation, creation-with-upload, termination and checksum.

How much of a file has arrived is the size of its part file, so that an upload goes on at the right byte after
a broken connection, a reload or a killed server. See https://tus.io/protocols/resumable-upload.
"""

import asyncio
import base64
import binascii
import errno
import hashlib
import logging
from collections.abc import Awaitable, Callable

from django.db import DatabaseError
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from scipion_cloud.config import get_config
from scipion_cloud.errors import Conflict, InvalidInput, NotFound
from scipion_cloud.portal.troubles import trouble_of
from scipion_cloud.portal.uploads import landing
from scipion_cloud.portal.uploads.access import Access, Forbidden, access
from scipion_cloud.portal.uploads.folder import NoSpace
from scipion_cloud.portal.uploads.landing import Writing
from scipion_cloud.portal.uploads.lock import Busy
from scipion_cloud.portal.uploads.names import decode_name, human
from scipion_cloud.portal.uploads.stream import Ended, Stream
from scipion_cloud.records.models import Upload

VERSION = "1.0.0"
EXTENSIONS = "creation,creation-with-upload,termination,checksum"
_CHECKSUMS = {"sha1": hashlib.sha1, "sha256": hashlib.sha256, "md5": hashlib.md5}
_BODY = "application/offset+octet-stream"
_DRAIN = 256 * 2**20  # bytes of a refused body that are read and dropped, so that the sender hears the reason
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)

log = logging.getLogger(__name__)
Handler = Callable[[Request, Access], Awaitable[Response]]


class Refused(Exception):
    """Ends a request with this status and words for the user."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


async def files(request: Request) -> Response:
    """`/projects/{project_id}/tus`: what the server can do, and new uploads."""
    return await _answer(request, {"POST": _create})


async def one_file(request: Request) -> Response:
    """`/projects/{project_id}/tus/{upload_id}`: where an upload stands, more of its bytes, its end."""
    return await _answer(request, {"HEAD": _offset, "PATCH": _append, "DELETE": _end})


async def _answer(request: Request, handlers: dict[str, Handler]) -> Response:
    if request.method == "OPTIONS":
        return _response(204, **_abilities())
    method = request.method
    if method == "POST":  # for senders to which nothing else is open
        method = request.headers.get("x-http-method-override", method).upper()
    if request.headers.get("tus-resumable") != VERSION:
        return _response(412, f"This server speaks tus {VERSION}; send Tus-Resumable.", **_abilities())
    try:
        if method not in handlers:
            raise Refused(405, f"{method} is not possible here.")
        return await handlers[method](request, await access(request))
    except Refused as e:
        status, message = e.status, str(e)
    except NotFound as e:
        status, message = 404, str(e)
    except Forbidden as e:
        status, message = 403, str(e)
    except Conflict as e:
        status, message = 409, str(e)
    except Busy as e:
        status, message = 423, str(e)
    except InvalidInput as e:
        status, message = 400, str(e)
    except NoSpace as e:
        status, message = 507, str(e)
    except (DatabaseError, OSError) as e:
        trouble = trouble_of(e)
        if trouble is None:
            raise
        log.error("%s: %s", request.url.path, e)
        status, message = trouble
    response = _response(status, message)
    if _unread(request) > _DRAIN:
        response.headers["Connection"] = "close"
    return response


def _abilities() -> dict[str, str]:
    return {
        "Tus-Version": VERSION,
        "Tus-Extension": EXTENSIONS,
        "Tus-Max-Size": str(_max_size()),
        "Tus-Checksum-Algorithm": ",".join(_CHECKSUMS),
    }


async def _create(request: Request, who: Access) -> Response:
    if "upload-length" not in request.headers:
        raise Refused(400, "The size of the file must be known at the start: send the header Upload-Length.")
    size = _number(request, "upload-length")
    if size > _max_size():
        raise Refused(413, f"The file has {human(size)}; the largest that is taken has {human(_max_size())}.")
    upload = await landing.announce_one(who, _path(request.headers.get("upload-metadata", "")), size)
    if request.headers.get("content-type") == _BODY:
        await _take(request, upload, 0)
    offset = await landing.settle(upload)
    location = f"/projects/{who.project.pk}/tus/{upload.pk}"
    return _response(201, location=location, upload_offset=str(offset))


async def _offset(request: Request, who: Access) -> Response:
    upload = await landing.find(who, request.path_params["upload_id"])
    offset = str(await landing.settle(upload))
    return _response(200, upload_offset=offset, upload_length=str(upload.size), cache_control="no-store")


async def _append(request: Request, who: Access) -> Response:
    if request.headers.get("content-type") != _BODY:
        raise Refused(415, f"The bytes of a file come with the header Content-Type: {_BODY}.")
    upload = await landing.find(who, request.path_params["upload_id"])
    offset = await _take(request, upload, _number(request, "upload-offset"))
    return _response(204, upload_offset=str(offset))


async def _end(request: Request, who: Access) -> Response:
    await landing.end(await landing.find(who, request.path_params["upload_id"]))
    return _response(204)


async def _take(request: Request, upload: Upload, offset: int) -> int:
    """Append the body at `offset`; the new offset. The file gets its name when it is whole."""
    checksum = _checksum(request)
    writing = await _open(upload)
    try:
        if writing.offset != offset:
            raise Refused(409, f"{writing.offset} bytes have arrived, not {offset}; go on from there.")
        if int(request.headers.get("content-length", 0)) > upload.size - offset:
            raise Refused(413, f"More bytes come than were announced; {upload.size - offset} are missing.")
        ended = await _stream(request, writing, checksum)
        arrived = writing.arrived()
        if arrived == upload.size and ended in (Ended.WHOLE, Ended.GONE):
            await access(request)  # the sender may have lost the right to it meanwhile
            await writing.finish()
    finally:
        writing.close()
    if ended == Ended.TOO_MUCH:
        raise Refused(413, f"More bytes came than were announced; {arrived} of {upload.size} are kept.")
    if ended == Ended.SILENT:
        raise Refused(408, f"Nothing came for a while; {arrived} of {upload.size} bytes are kept.")
    return arrived


async def _stream(request: Request, writing: Writing, checksum: tuple[str, bytes] | None) -> Ended:
    if writing.fd is None:
        return Ended.WHOLE
    hasher = hashlib.new(checksum[0], usedforsecurity=False) if checksum else None
    size = writing.upload.size
    try:
        ended = await Stream(writing.upload.pk, writing.fd, size - writing.offset, hasher).run(
            request.receive
        )
    except OSError as e:
        if e.errno not in _FULL:
            log.exception("Upload %s could not be written", writing.upload.pk)
            raise Refused(
                500, f"The server's disk failed ({e.strerror}); what has arrived is kept. Try again."
            ) from e
        arrived = writing.arrived()
        raise Refused(
            507,
            f"The server's disk is full. {human(arrived)} of {human(size)} have arrived and are kept; "
            f"room for {human(size - arrived)} is missing. Delete data that is no longer needed, then go on.",
        ) from e
    if hasher and checksum and ended != Ended.GONE and hasher.digest() != checksum[1]:
        writing.cut()
        raise Refused(460, "The checksum is another one: the bytes changed on their way. Send them again.")
    return ended


async def _open(upload: Upload) -> Writing:
    """The upload, for this request alone. A sender that has died without a word makes way."""
    for _ in range(20):
        try:
            return await landing.open_writing(upload)
        except Busy:
            if not Stream.end_stale(upload.pk):
                raise
            await asyncio.sleep(0.1)
    return await landing.open_writing(upload)


def _path(metadata: str) -> str:
    """The name in an Upload-Metadata header: `relativePath` where the browser knows one, else `filename`."""
    values = {}
    for pair in filter(None, (p.strip() for p in metadata.split(","))):
        key, _, value = pair.partition(" ")
        try:
            values[key] = base64.b64decode(value, validate=True)
        except binascii.Error as e:
            raise Refused(400, f"Upload-Metadata: the value of '{key}' is not base64.") from e
    relative = decode_name(values.get("relativePath", b""))
    name = decode_name(values.get("filename", b""))
    return name if relative in ("", "null") else relative


def _checksum(request: Request) -> tuple[str, bytes] | None:
    header = request.headers.get("upload-checksum")
    if not header:
        return None
    algorithm, _, value = header.partition(" ")
    if algorithm not in _CHECKSUMS:
        raise Refused(400, f"Upload-Checksum: '{algorithm}' is not known; use {', '.join(_CHECKSUMS)}.")
    try:
        return algorithm, base64.b64decode(value, validate=True)
    except binascii.Error as e:
        raise Refused(400, "Upload-Checksum: the value is not base64.") from e


def _number(request: Request, header: str) -> int:
    value = request.headers.get(header, "")
    if not (value.isascii() and value.isdigit() and len(value) < 19):
        raise Refused(400, f"The header {header} must be a number of bytes, not '{value}'.")
    return int(value)


def _max_size() -> int:
    return int(get_config().upload_max_gb * 2**30)


def _unread(request: Request) -> int:
    """Bytes that the sender may still have on the way; unknown counts as too many."""
    if "transfer-encoding" in request.headers:
        return _DRAIN + 1
    return int(request.headers.get("content-length", 0))


def _response(status: int, message: str = "", **headers: str) -> Response:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    named["Tus-Resumable"] = VERSION
    return Response(message or None, status, named, media_type="text/plain" if message else None)


routes = [
    Route("/projects/{project_id:uuid}/tus", files, methods=["OPTIONS", "POST"]),
    Route(
        "/projects/{project_id:uuid}/tus/{upload_id:uuid}",
        one_file,
        methods=["OPTIONS", "HEAD", "POST", "PATCH", "DELETE"],
    ),
]
