"""What windows are on the screen, through xprop."""

import asyncio
import re
from collections.abc import AsyncGenerator
from contextlib import aclosing

from scipion_cloud.desktops.processes import end, ends_with_us

SCIPION_WINDOW = (
    "!toplevel"  # Tk's name for the first window of an application whose root is hidden, as Scipion's
)
RETRY = 0.05  # seconds


async def scipion_appears(environ: dict[str, str]) -> None:
    """Returns once Scipion's main window is on the screen."""
    while True:
        async with aclosing(_window_lists(environ)) as lists:
            async for windows in lists:
                for window in windows:
                    if await _name(window, environ) == SCIPION_WINDOW:
                        return
        await asyncio.sleep(RETRY)


async def _window_lists(environ: dict[str, str]) -> AsyncGenerator[list[str], None]:
    """Yields the ids of all windows now and after every change; ends if there is no window manager yet."""
    spy = await asyncio.create_subprocess_exec(
        *("xprop", "-root", "-spy", "_NET_CLIENT_LIST"),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
        env=environ,
        preexec_fn=ends_with_us,
    )
    assert spy.stdout is not None  # noqa: S101 - asked for above
    try:
        # not line by line: xprop writes a line's end only with the next line
        while piece := (await spy.stdout.read(65536)).decode(errors="replace"):
            if "no such atom" in piece:
                return
            yield re.findall(r"0x[0-9a-f]+", piece)
    finally:
        await end(spy)


async def _name(window: str, environ: dict[str, str]) -> str:
    """The name that an application gave to a window of its, empty if it is gone."""
    asked = await asyncio.create_subprocess_exec(
        *("xprop", "-id", window, "-notype", "WM_CLASS"),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
        env=environ,
    )
    try:
        out, _ = await asked.communicate()
    finally:
        await end(asked)
    names = re.findall(r'"([^"]*)"', out.decode(errors="replace"))
    return names[0] if names else ""
