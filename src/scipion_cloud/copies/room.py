"""Room on a disk, watched while it is filled: other people's projects live there too."""

import os
import threading
from pathlib import Path

from scipion_cloud.errors import NoRoom

KEPT = 20  # one part in so many of the disk stays free
_STEP = 32 * 1024 * 1024  # bytes between two looks
_STEP_FILES = 1000


class Room:
    """The room that may be used on the disk of a folder. Safe to use from many threads."""

    def __init__(self, folder: Path) -> None:
        self._fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self._lock = threading.Lock()
        self._bytes = self._files = 0

    def __enter__(self) -> "Room":
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._fd)

    @property
    def left(self) -> int:
        """Bytes that may still be written."""
        disk = os.fstatvfs(self._fd)
        return (disk.f_bavail - disk.f_blocks // KEPT) * disk.f_frsize

    @property
    def size(self) -> int:
        """Bytes of the whole disk."""
        disk = os.fstatvfs(self._fd)
        return disk.f_blocks * disk.f_frsize

    def require(self, size: int) -> None:
        """Raise NoRoom unless so many bytes fit."""
        if size > (left := self.left):
            raise NoRoom(
                f"{size / 1e9:.2f} GB are needed on this disk, and {max(left, 0) / 1e9:.2f} GB may be "
                f"used (one part in {KEPT} stays free). Free some space or ask your operator, and try again."
            )

    def take(self, size: int, files: int = 0) -> None:
        """Say that so much is about to be written. Raises NoRoom once the disk is nearly full."""
        with self._lock:
            self._bytes += size
            self._files += files
            if self._bytes < _STEP and self._files < _STEP_FILES:
                return
            self._bytes = self._files = 0
        if self.left < size:
            raise NoRoom(
                f"This machine's disk is nearly full (one part in {KEPT} stays free), and there is more to "
                "come. Nothing was kept. Free some space or ask your operator, then try again."
            )
        disk = os.fstatvfs(self._fd)
        if disk.f_files and disk.f_favail < disk.f_files // KEPT:
            raise NoRoom(
                "This machine's disk holds nearly as many files as it can, and there are more to come. "
                "Nothing was kept."
            )
