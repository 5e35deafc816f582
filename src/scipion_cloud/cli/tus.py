"""Sending one file by the tus 1.0 protocol: it goes on where it stopped, whatever broke."""

import os
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import httpx

from scipion_cloud.cli.client import Client, ServerError, refusal, unreachable
from scipion_cloud.errors import InvalidInput

_CHUNK = 1 << 20
_FIRST_WAIT, _LONGEST_WAIT = 0.5, 30.0  # s between attempts
_PATIENCE = 40  # attempts without a single byte of progress, about 15 minutes
_UNREACHED, _OFFSET_MOVED = 0, 409
_AGAIN = {_UNREACHED, _OFFSET_MOVED, 408, 423, 425, 429, 500, 502, 503, 504}  # trying again may help
_HEADERS = {"Tus-Resumable": "1.0.0"}

Report = Callable[[int], None]


class Stopped(Exception):
    """The upload was told to stop."""


@dataclass(frozen=True)
class Job:
    """A file here and its upload there."""

    file: Path
    path: str  # in the project's data folder
    size: int  # bytes, as announced
    address: str  # /projects/.../tus/...
    offset: int  # bytes that had arrived when the files were announced


class Sender:
    """Sends files through one client, from several threads; `stop` ends them all."""

    def __init__(self, client: Client, stop: threading.Event) -> None:
        self._client, self._stop = client, stop

    def send(self, job: Job, report: Report) -> None:
        """Send what is missing of a file; `report` is told how many bytes have arrived.

        Waits and goes on when the network or the server is gone. Raises InvalidInput if the file changes
        meanwhile, ServerError when the server refuses it or stays away too long, Stopped.
        """
        before = _stat(job)
        with job.file.open("rb") as stream:
            self._send(job, stream, report)
        if _stat(job) != before:
            raise InvalidInput(
                f"{job.file} changed while it was sent; delete it there, and send it again when whole."
            )

    def _send(self, job: Job, stream: BinaryIO, report: Report) -> None:
        offset, failures = job.offset, 0
        while True:
            try:
                if failures:
                    before, offset = offset, self._arrived(job)
                    failures = 1 if offset > before else failures
                    report(offset)
                self._patch(job, stream, offset, report)
                return
            except ServerError as e:
                if e.status not in _AGAIN or failures == _PATIENCE:
                    raise
                if self._stop.wait(min(_FIRST_WAIT * 2**failures, _LONGEST_WAIT)):
                    raise Stopped from e
                failures += 1

    def _arrived(self, job: Job) -> int:
        """How many bytes the server has."""
        try:
            answer = self._client.http.head(job.address, headers=_HEADERS)
        except httpx.TransportError as e:
            raise unreachable(self._client.server, e) from e
        if not answer.is_success:
            raise refusal(self._client.server, answer)
        return int(answer.headers["Upload-Offset"])

    def _patch(self, job: Job, stream: BinaryIO, offset: int, report: Report) -> None:
        """Send all the rest in one request."""
        headers = {
            **_HEADERS,
            "Upload-Offset": str(offset),
            "Content-Type": "application/offset+octet-stream",
            "Content-Length": str(job.size - offset),
        }
        stream.seek(offset)
        try:
            content = self._rest(job, stream, offset, report)
            answer = self._client.http.patch(job.address, headers=headers, content=content)
        except httpx.TransportError as e:
            raise unreachable(self._client.server, e) from e
        if not answer.is_success:
            raise refusal(self._client.server, answer)
        if answer.headers.get("Upload-Offset") != str(job.size):
            raise ServerError(f"{job.path} arrived in part only.")

    def _rest(self, job: Job, stream: BinaryIO, offset: int, report: Report) -> Iterator[bytes]:
        while offset < job.size:
            if self._stop.is_set():
                raise Stopped
            chunk = stream.read(min(_CHUNK, job.size - offset))
            if not chunk:
                raise InvalidInput(
                    f"{job.file} became shorter while it was sent; send it again when it is whole."
                )
            yield chunk
            offset += len(chunk)
            report(offset)


def _stat(job: Job) -> tuple[int, int]:
    try:
        status = os.stat(job.file)  # noqa: PTH116 - the name may hold any bytes
    except OSError as e:
        raise InvalidInput(f"{job.file} cannot be read any more: {e.strerror}.") from e
    if status.st_size != job.size:
        raise InvalidInput(
            f"{job.file} has {status.st_size} bytes now and had {job.size}: wait until it is whole."
        )
    return status.st_size, status.st_mtime_ns
