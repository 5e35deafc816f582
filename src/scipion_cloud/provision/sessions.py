"""Process sessions: each of our children leads one, so that all that it started can be found and ended."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path


def members(session: int) -> Iterator[int]:
    """Process ids in a session, zombies left out."""
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            # pid, the name in parentheses (it may hold anything), state, parent, group, session
            fields = (entry / "stat").read_text(errors="replace").rpartition(")")[2].split()
        except OSError:  # it ended while we looked
            continue
        if int(fields[3]) == session and fields[0] not in "ZX":
            yield int(entry.name)


def kill(session: int, *, marker: str | None = None) -> int:
    """SIGKILL the members of a session, and return how many there were.

    With `marker`, only processes that were started with this NAME=value in their environment: process ids are
    used again, and a session noted before a crash may by now be a stranger's.
    """
    killed = 0
    for pid in members(session):
        try:
            if marker is None or marker.encode() in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"):
                os.kill(pid, signal.SIGKILL)
                killed += 1
        except OSError:  # ended, or another user's
            continue
    return killed
