"""The relay between a WebSocket and a Unix socket, with a plain echo in the place of the VNC server."""

import asyncio
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from starlette.websockets import WebSocketState

from scipion_cloud.desktops.relay import CHUNK, CloseCode, relay

HELLO = b"RFB 003.008\n" + b"\x01\x01"
KEY = b"\x04\x01\x00\x00\x00\x00\x00a"


class Browser:
    """The side of a WebSocket that the relay sees."""

    application_state = WebSocketState.CONNECTED

    def __init__(self) -> None:
        self.sends: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self.got = b""
        self.closed: tuple[int, str] | None = None
        self.takes = asyncio.Event()
        self.takes.set()

    def say(self, data: bytes) -> None:
        self.sends.put_nowait({"type": "websocket.receive", "bytes": data})

    def leave(self) -> None:
        self.sends.put_nowait({"type": "websocket.disconnect", "code": 1001})

    async def receive(self) -> dict[str, Any]:
        return await self.sends.get()

    async def send_bytes(self, data: bytes) -> None:
        await self.takes.wait()
        self.got += data

    async def close(self, code: int, reason: str) -> None:
        self.closed = code, reason


async def nothing_against_it() -> str | None:
    return None


Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def run(folder: Path, serve: Serve, play: Callable[[Browser], Awaitable[None]], **options: Any) -> Browser:
    """Relay between a server and a browser that plays its part; the browser, afterwards."""

    async def both() -> Browser:
        served: list[asyncio.Task[None]] = []

        async def noted(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            served.append(asyncio.current_task())  # type: ignore[arg-type]
            await serve(reader, writer)

        here = os.open(folder, os.O_RDONLY)
        server = await asyncio.start_unix_server(noted, f"/proc/self/fd/{here}/vnc.sock", limit=CHUNK)
        os.close(here)
        browser = Browser()
        options.setdefault("refusal", nothing_against_it)
        options.setdefault("view_only", False)
        task = asyncio.create_task(relay(browser, folder / "vnc.sock", **options))  # type: ignore[arg-type]
        try:
            await play(browser)
            await asyncio.wait_for(task, 5)
        finally:
            server.close()
            await asyncio.gather(*served)
            await asyncio.sleep(0)
        return browser

    return asyncio.run(both())


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()
    writer.close()


async def until(condition: Callable[[], bool]) -> None:
    for _ in range(6000):
        if condition():
            return
        await asyncio.sleep(0.01)
    raise TimeoutError


@pytest.mark.parametrize("view_only", [True, False])
def test_bytes_go_both_ways_below_a_path_that_sockets_cannot_have(tmp_path: Path, view_only: bool) -> None:
    folder = tmp_path / ("long " * 30)
    folder.mkdir()
    wanted = HELLO if view_only else HELLO + KEY

    async def play(browser: Browser) -> None:
        browser.say(HELLO)
        browser.say(KEY[:3])
        browser.say(KEY[3:])
        await until(lambda: browser.got == wanted)
        await asyncio.sleep(0.05)
        browser.leave()

    browser = run(folder, echo, play, view_only=view_only)
    assert browser.got == wanted
    assert browser.closed is None


def test_withdrawn_rights_end_the_connection_with_the_reason(tmp_path: Path) -> None:
    answers = iter([None, None, "You are no longer a member."])

    async def refusal() -> str | None:
        return next(answers)

    async def play(browser: Browser) -> None:
        browser.say(HELLO)

    browser = run(tmp_path, echo, play, refusal=refusal, check_every=0.02)
    assert browser.closed == (CloseCode.REFUSED, "You are no longer a member.")


def test_a_rights_check_that_fails_ends_the_connection(tmp_path: Path) -> None:
    async def refusal() -> str | None:
        raise OSError("the database is away")

    async def play(browser: Browser) -> None:
        browser.say(HELLO)

    with pytest.raises(OSError, match="away"):
        run(tmp_path, echo, play, refusal=refusal, check_every=0.02)


def test_nonsense_ends_the_connection(tmp_path: Path) -> None:
    async def play(browser: Browser) -> None:
        browser.say(b"not RFB at all")

    browser = run(tmp_path, echo, play)
    assert browser.closed is not None
    assert browser.closed[0] == CloseCode.PROTOCOL


def test_the_end_of_the_server_is_told(tmp_path: Path) -> None:
    async def short(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(14)
        writer.close()

    async def play(browser: Browser) -> None:
        browser.say(HELLO)

    assert run(tmp_path, short, play).closed == (CloseCode.ENDED, "The desktop has ended.")


def test_no_server_at_all(tmp_path: Path) -> None:
    async def connect() -> Browser:
        browser = Browser()
        await relay(browser, tmp_path / "vnc.sock", view_only=False, refusal=nothing_against_it)  # type: ignore[arg-type]
        return browser

    assert asyncio.run(connect()).closed == (CloseCode.ENDED, "The desktop is not running.")


def test_a_slow_browser_holds_the_server_back(tmp_path: Path) -> None:
    produced = 0

    async def flood(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal produced
        try:
            while True:
                writer.write(bytes(65536))
                await writer.drain()
                produced += 65536
        except OSError:
            writer.close()

    async def play(browser: Browser) -> None:
        browser.takes.clear()
        await asyncio.sleep(0.5)
        stuck = produced
        await asyncio.sleep(0.3)
        assert produced == stuck  # nobody buffers without end
        assert stuck < 4 * 1024 * 1024
        browser.takes.set()
        await until(lambda: len(browser.got) > 4 * 1024 * 1024)
        browser.leave()

    run(tmp_path, flood, play)
