"""A job's folder: how the scheduler and the job's supervisor speak to each other. Standard library only.

    job.json        what to run, written before the supervisor starts
    lock            held by the supervisor (flock) as long as it lives; no other proof of life is as sure,
                    but it is one only on the machine itself
    claim.json      written by the supervisor just before it starts the program: nobody else starts it
    outcome.json    written by the supervisor when nothing of the job is left
    cancel          asks a supervisor on another machine to end the job
    stdout.log, stderr.log, supervisor.log

Files appear whole or not at all, and are on the disk when they appear. See `claim` for those of a folder
that several machines share.
"""

import contextlib
import ctypes
import fcntl
import json
import os
from pathlib import Path
from typing import Any

OUTCOME = "outcome.json"
ROOM = 4096  # bytes set aside for the outcome


class JobFolder:
    """The folder of one job, `<spool>/<id>`."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def write(self, name: str, content: dict[str, Any], sync: bool = True) -> None:
        """Write a file. Raises OSError, with nothing changed, on a full disk.

        Without `sync` it is on the disk only after `sync_file_system`.
        """
        temporary = self._reserve(name, json.dumps(content).encode(), sync)
        temporary.replace(self.path / name)
        if sync:
            self._sync()

    def create(self, name: str, content: dict[str, Any]) -> bool:
        """Write a file that must not exist yet; False if it does. Whole, and once, on any file system."""
        temporary = self._reserve(f"{name}.{os.urandom(8).hex()}", json.dumps(content).encode())
        try:
            with contextlib.suppress(FileExistsError):
                os.link(temporary, self.path / name)
            made = temporary.stat().st_nlink == 2  # NFS can say that it exists, and mean the one just made
        finally:
            temporary.unlink()
        self._sync()
        return made

    def reserve_outcome(self, name: str = OUTCOME) -> None:
        """Set room for the outcome aside, so that a disk that is full later cannot lose it."""
        self._reserve(name, b" " * ROOM)

    def write_outcome(self, content: dict[str, Any], name: str = OUTCOME) -> None:
        """Write the outcome into the room set aside."""
        text = json.dumps(content).encode()
        if len(text) > ROOM:
            text = json.dumps({**content, "reason": content["reason"][: ROOM // 16]}).encode()
        temporary = self.path / (name + ".new")
        fd = os.open(temporary, os.O_WRONLY)
        try:
            os.pwrite(fd, text.ljust(ROOM), 0)
            os.fsync(fd)
        finally:
            os.close(fd)
        temporary.replace(self.path / name)
        self._sync()

    def read(self, name: str) -> dict[str, Any] | None:
        """The content of a file; None if it is not there or not ours."""
        try:
            content: dict[str, Any] = json.loads((self.path / name).read_bytes())
        except (FileNotFoundError, ValueError):
            return None
        return content

    def has(self, name: str) -> bool:
        """True if the file is there."""
        return (self.path / name).exists()

    def lock(self) -> int:
        """Take the lock for a supervisor about to start; returns the descriptor that holds it."""
        fd = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        fcntl.flock(fd, fcntl.LOCK_EX)
        return fd

    def is_supervised(self) -> bool:
        """True while a supervisor lives."""
        try:
            fd = os.open(self.path / "lock", os.O_RDONLY)
        except FileNotFoundError:
            return False
        try:
            fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(fd)
        return False

    def _reserve(self, name: str, content: bytes, sync: bool = True) -> Path:
        temporary = self.path / (name + ".new")
        with temporary.open("wb") as f:
            f.write(content)
            f.flush()
            if sync:
                os.fsync(f.fileno())
        return temporary

    def _sync(self) -> None:
        fd = os.open(self.path, os.O_RDONLY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)


def sync_file_system(folder: Path) -> None:
    """All that was written to this folder's file system is on the disk when this returns."""
    fd = os.open(folder, os.O_RDONLY)
    try:
        if ctypes.CDLL(None, use_errno=True).syncfs(fd):
            raise OSError(ctypes.get_errno(), f"{folder} cannot be synchronised")
    finally:
        os.close(fd)
