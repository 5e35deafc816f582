"""From the network to the disk: a request's body in large writes, beside the event loop."""

import asyncio
import ctypes
import os
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from enum import StrEnum
from typing import ParamSpec, Protocol, TypeVar

from starlette.types import Receive

# Bytes handed to the disk at once; two batches of each upload are in memory. Measured: smaller ones cost more
# changes of thread; ones of megabytes make the kernel look for large pieces of memory, twice the time.
BATCH = 256 * 2**10
FLUSH_S = 1.0  # a slow sender's bytes wait no longer than this for the disk
IDLE_S = 60.0  # a sender that is silent for so long is given up
STALE_S = 5.0  # ... for so long, when another one wants to go on with the same upload

P = ParamSpec("P")
T = TypeVar("T")

_disk = ThreadPoolExecutor(8, thread_name_prefix="upload-disk")


def _keep_freed_memory() -> None:
    """Have the C library reuse what each piece (256 KiB) frees instead of giving it to the kernel.

    That takes a third off the processor time of an upload. Only glibc has the switch.
    """
    trim_threshold, mmap_threshold = -1, -3
    if mallopt := getattr(ctypes.CDLL(None), "mallopt", None):
        mallopt(trim_threshold, 64 * 2**20)
        mallopt(mmap_threshold, 16 * 2**20)


_keep_freed_memory()


async def on_disk(work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Do blocking work on files in another thread than the database's."""
    return await asyncio.get_running_loop().run_in_executor(_disk, lambda: work(*args, **kwargs))


class Ended(StrEnum):
    """Why no more bytes came."""

    WHOLE = "whole"  # the body's end
    GONE = "gone"  # the connection broke; what had come is kept
    SILENT = "silent"  # nothing came for too long, or another sender took over
    TOO_MUCH = "too much"  # the body has more bytes than were announced; the surplus is not kept


class Hasher(Protocol):
    """What hashlib's objects have in common."""

    def update(self, data: memoryview, /) -> None:
        """Take more bytes in."""

    def digest(self) -> bytes:
        """The checksum so far."""


class Stream:
    """One request's body on its way to a part file."""

    _live: dict[uuid.UUID, "Stream"] = {}

    def __init__(self, upload: uuid.UUID, fd: int, room: int, hasher: Hasher | None = None) -> None:
        """`fd` appends; at most `room` bytes are taken."""
        self._upload, self._fd, self._room, self._hasher = upload, fd, room, hasher
        # two buffers in turn, one being filled and one being written: fresh memory for each batch would cost
        # the kernel more time than the copy does
        self._filling, self._spare = (bytearray(min(room, BATCH)) for _ in range(2))
        self._held = 0  # bytes in the buffer that is being filled
        self._writing: asyncio.Future[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._heard = 0.0  # when bytes last came, on the loop's clock
        self._clock: asyncio.Timeout | None = None

    @classmethod
    def end_stale(cls, upload: uuid.UUID) -> bool:
        """End the present sender of an upload if it has been silent for long; True if it ends."""
        stream = cls._live.get(upload)
        now = asyncio.get_running_loop().time()
        if stream is None or stream._clock is None or now - stream._heard < STALE_S:
            return False
        if not stream._clock.expired():
            stream._clock.reschedule(now)
        return True

    async def run(self, receive: Receive) -> Ended:
        """Take the body in; what arrived is in the file however it ended. Raises OSError of the disk."""
        self._live[self._upload] = self
        try:
            return await self._receive(receive)
        finally:
            try:
                await self._flush()
                await self._written()
            finally:
                self._live.pop(self._upload, None)

    async def _receive(self, receive: Receive) -> Ended:
        loop = asyncio.get_running_loop()
        self._heard = loop.time()
        try:
            async with asyncio.timeout(IDLE_S) as self._clock:
                while True:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        return Ended.GONE
                    body = message.get("body", b"")
                    self._heard = loop.time()
                    self._clock.reschedule(self._heard + IDLE_S)
                    if len(body) > self._room:
                        return Ended.TOO_MUCH
                    self._room -= len(body)
                    await self._fill(memoryview(body))
                    if not message.get("more_body", False):
                        return Ended.WHOLE
        except TimeoutError:
            return Ended.SILENT

    async def _fill(self, body: memoryview) -> None:
        while body:
            taken = min(len(body), len(self._filling) - self._held)
            self._filling[self._held : self._held + taken] = body[:taken]
            self._held += taken
            body = body[taken:]
            if self._held == len(self._filling):
                await self._flush()
            elif self._timer is None:
                self._timer = asyncio.get_running_loop().call_later(FLUSH_S, self._hand_over)

    async def _flush(self) -> None:
        """Hand the batch to the disk; wait only if the one before is not written yet."""
        await self._written()
        self._hand_over()

    def _hand_over(self) -> None:
        if self._timer:
            self._timer.cancel()
            self._timer = None
        if self._held and (self._writing is None or (self._writing.done() and not self._writing.exception())):
            loop = asyncio.get_running_loop()
            batch = memoryview(self._filling)[: self._held]
            self._filling, self._spare, self._held = self._spare, self._filling, 0
            self._writing = loop.run_in_executor(_disk, _write, self._fd, batch, self._hasher)

    async def _written(self) -> None:
        if self._writing is not None:
            # if we are cancelled here, the thread goes on: `run` waits for it before the file may be closed
            await asyncio.shield(self._writing)
            self._writing = None


def _write(fd: int, batch: memoryview, hasher: Hasher | None) -> None:
    if hasher:
        hasher.update(batch)
    while batch:
        batch = batch[os.write(fd, batch) :]
