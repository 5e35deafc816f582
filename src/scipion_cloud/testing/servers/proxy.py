"""A TCP proxy with a switch for every way in which a network fails.

with fault_proxy("127.0.0.1", server.port) as proxy:
    storage = open_storage(f"s3+http://127.0.0.1:{proxy.port}/bucket", credentials)
    proxy.stall()  # ... and what does the storage do now?
    proxy.heal()
"""

import asyncio
import contextlib
import socket
import struct
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

CHUNK = 64 * 1024  # bytes
UNDER_WAY = 64  # chunks in each direction of a connection while they are delayed
T = TypeVar("T")


class Proxy:
    """Passes bytes on between clients and one server. All methods may be called from any thread."""

    def __init__(self, host: str, port: int, loop: asyncio.AbstractEventLoop) -> None:
        self.port = 0  # at which clients connect, on 127.0.0.1
        self.accepted = 0  # connections so far, those that were refused too
        self.passed = 0  # bytes so far, both ways
        self._target = host, port
        self._loop = loop
        self._tasks: set[asyncio.Task[None]] = set()
        self._sockets: set[asyncio.StreamWriter] = set()
        self._server: asyncio.Server | None = None
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._refusing = False
        self._latency = 0.0
        self._rate: float | None = None
        self._cut_at: int | None = None

    # --- faults

    def cut(self) -> int:
        """Reset all connections; how many. New ones are taken."""
        return self._do(self._reset_all)

    def stall(self) -> None:
        """Pass nothing on any more. Connections stay, new ones are taken, and nobody ever answers."""
        self._do(self._flowing.clear)

    def refuse(self) -> None:
        """Reset new connections at once. Those that are there stay."""
        self._refusing = True

    def slow(self, latency: float = 0.0, rate: float | None = None) -> None:
        """Delay all bytes by `latency` s each way; pass `rate` bytes/s at most, each way of a connection."""
        self._latency, self._rate = latency, rate

    def cut_after(self, count: int) -> None:
        """Reset all connections when `count` more bytes have been passed on, and not one more; once."""
        self._cut_at = self.passed + count

    def heal(self) -> None:
        """Be a good network again. What a stall held back is passed on."""
        self._refusing, self._latency, self._rate, self._cut_at = False, 0.0, None, None
        self._do(self._flowing.set)

    # --- the loop's side

    def _do(self, act: Callable[[], T]) -> T:
        async def there() -> T:
            return act()

        return self._await(there())

    def _await(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(60)

    async def _listen(self) -> None:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def _close(self) -> None:
        if self._server:
            self._server.close()
        self._reset_all()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _reset_all(self) -> int:
        count = len(self._sockets) // 2
        for writer in self._sockets:
            _reset(writer)
        self._sockets.clear()
        return count

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self._sockets.add(writer)
        try:
            if not self._refusing:
                await self._serve(reader, writer)
                await _end(writer)
        except OSError:
            pass  # one side is gone; the other is told by the reset
        finally:
            self._tasks.discard(task)
            self._sockets.discard(writer)
            _reset(writer)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        answers, requests = await asyncio.open_connection(*self._target)
        self._sockets.add(requests)
        ways = [self._pass(reader, requests), self._pass(answers, writer)]
        tasks = [asyncio.create_task(way) for way in ways]
        try:
            await asyncio.gather(*tasks)
            await _end(requests)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            self._sockets.discard(requests)
            _reset(requests)

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Pass one direction on until its end, and then the end."""
        queue: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(UNDER_WAY)
        filling = asyncio.create_task(self._fill(reader, queue))
        try:
            while True:
                came, chunk = await queue.get()
                await asyncio.sleep(max(0.0, came + self._latency - time.monotonic()))
                await self._flowing.wait()
                if not chunk:
                    break
                if self._rate:
                    await asyncio.sleep(len(chunk) / self._rate)
                await self._put(writer, chunk)
            with contextlib.suppress(OSError):
                writer.write_eof()
            await filling
        finally:
            filling.cancel()

    async def _fill(self, reader: asyncio.StreamReader, queue: asyncio.Queue[tuple[float, bytes]]) -> None:
        while True:
            size = CHUNK if self._rate is None else max(1, min(CHUNK, int(self._rate / 20)))
            chunk = await reader.read(size)
            await queue.put((time.monotonic(), chunk))
            if not chunk:
                return

    async def _put(self, writer: asyncio.StreamWriter, chunk: bytes) -> None:
        cut = self._cut_at is not None and self.passed + len(chunk) >= self._cut_at
        if self._cut_at is not None and cut:
            chunk = chunk[: self._cut_at - self.passed]
            self._cut_at = None
        self.passed += len(chunk)
        writer.write(chunk)
        await writer.drain()
        if cut:
            self._reset_all()


async def _end(writer: asyncio.StreamWriter) -> None:
    """Close after all that was written has gone out: a reset would throw it away."""
    writer.close()
    await writer.wait_closed()


def _reset(writer: asyncio.StreamWriter) -> None:
    """Close so that the other end is told of an error, and not of an end."""
    sock = writer.get_extra_info("socket")
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


@contextmanager
def fault_proxy(host: str, port: int) -> Iterator[Proxy]:
    """A proxy in front of a server, on a port of its own of 127.0.0.1, until the end of the block."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="fault-proxy", daemon=True)
    thread.start()
    proxy = Proxy(host, port, loop)
    try:
        proxy._await(proxy._listen())
        yield proxy
    finally:
        proxy._await(proxy._close())
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
