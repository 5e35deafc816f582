"""Child processes that never outlive their session."""

import asyncio
import ctypes
import signal
from asyncio.subprocess import Process
from contextlib import suppress

_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None)


def ends_with_us() -> None:
    """Run in a child before its program: the kernel ends it when the session is killed."""
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


async def end(process: Process, patience: float = 3.0) -> None:
    """Ask a process to end, and insist after `patience` seconds."""
    if process.returncode is not None:
        return
    with suppress(ProcessLookupError):
        process.terminate()
    try:
        await asyncio.wait_for(process.wait(), patience)
    except TimeoutError:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()
