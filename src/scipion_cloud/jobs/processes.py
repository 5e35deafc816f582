"""Find and end a job's processes through /proc. Standard library only: the supervisor must start quickly.

A process belongs to a job when it descends from the job's supervisor or carries the job's token in its
environment. The supervisor of another job may well descend from this one's (a job that submits jobs): it
carries another token and is left alone with all below it. What can escape: a process that dropped its
environment and its parents, when the supervisor has been killed as well.
"""

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

TOKEN = "SCIPION_CLOUD_JOB_TOKEN"  # noqa: S105 - the name of a mark, not a secret

Found = dict[int, int]
"""Processes as pid -> start time (clock ticks since boot): together they are never used twice."""


def boot_id() -> str:
    """A text that is new after each boot of the machine."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def _stat(pid: int) -> tuple[int, int] | None:
    """(parent, start time) of a live process; None for zombies and what is gone."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
    except OSError:
        return None
    # the main thread may have ended while others go on: then the process looks like a zombie and is none
    if fields[0] in (b"Z", b"X") and int(fields[17]) <= 1:
        return None
    return int(fields[1]), int(fields[19])


def started(pid: int) -> int | None:
    """When a live process started, in clock ticks since boot; None if it is gone."""
    stat = _stat(pid)
    return stat[1] if stat else None


def _token(pid: int) -> str | None:
    """The job's token in a process's environment, if it can be read and is there."""
    try:
        variables = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return None
    mark = TOKEN.encode() + b"="
    return next((v[len(mark) :].decode(errors="replace") for v in variables if v.startswith(mark)), None)


def members(token: str, supervisor: int = 0) -> Found:
    """The live processes of a job: bearers of its token and all below its supervisor, not the supervisor."""
    pids = [int(entry.name) for entry in os.scandir("/proc") if entry.name.isdigit()]
    table = {pid: stat for pid in pids if (stat := _stat(pid))}
    children: dict[int, list[int]] = {}
    for pid, (parent, _) in table.items():
        children.setdefault(parent, []).append(pid)
    tokens = {pid: _token(pid) for pid in table}
    found = {pid for pid, mark in tokens.items() if mark == token}
    below = list(children.get(supervisor, ())) if supervisor else []
    while below:
        pid = below.pop()
        if tokens[pid] in (None, token):
            found.add(pid)
            below += children.get(pid, ())
    found -= {supervisor, os.getpid()}
    return {pid: table[pid][1] for pid in found}


def send(pid: int, start: int, sig: int) -> bool:
    """Signal a process if it is still the same one; False if it is gone."""
    try:
        fd = os.pidfd_open(pid)
    except OSError:
        return False
    try:
        if started(pid) != start:
            return False
        signal.pidfd_send_signal(fd, sig)
    except OSError:
        return False
    finally:
        os.close(fd)
    return True


def end_all(find: Callable[[], Found], grace: float, limit: float) -> Found:
    """End everything that `find` finds: SIGTERM, `grace` seconds, then SIGKILL for up to `limit` seconds.

    Returns what could not be ended.
    """
    asked: set[tuple[int, int]] = set()
    begin = time.monotonic()
    while True:
        # twice: a parent that ends during one look can hide its children from it
        left = find() or find()
        if not left:
            return {}
        passed = time.monotonic() - begin
        if passed > grace + limit:
            return left
        for pid, start in left.items():
            if passed >= grace:
                send(pid, start, signal.SIGKILL)
            elif (pid, start) not in asked:
                asked.add((pid, start))
                send(pid, start, signal.SIGTERM)
                send(pid, start, signal.SIGCONT)
        time.sleep(min(0.01 + passed / 10, 0.1))
