"""What is in the way in a working copy is moved aside, never deleted."""

import errno
import os
import threading
from datetime import UTC, datetime
from pathlib import Path

from scipion_cloud.sync import paths
from scipion_cloud.sync.copy import WorkingCopy
from scipion_cloud.sync.layout import SERVICE


class Aside:
    """A folder with the time in its name, beside the working copy; made with the first thing moved there."""

    def __init__(self, copy: WorkingCopy) -> None:
        self._copy = copy
        self._lock = threading.Lock()
        near = copy.state
        if near.stat().st_dev != copy.path.stat().st_dev:  # a rename cannot lead there
            near = copy.path / SERVICE
        self.path: Path = near / f"aside-{datetime.now(UTC):%Y%m%dT%H%M%SZ}"

    def take(self, path: bytes) -> None:
        """Move what is at a path of the working copy aside, a folder with all in it. Raises OSError."""
        with self._copy.parent(path) as (folder, name):
            self.put(folder, name, path)

    def put(self, folder: int, name: bytes, path: bytes) -> None:
        """Move `name` of an open folder to where `path` is kept aside. Raises OSError."""
        with self._lock:
            self.path.mkdir(parents=True, exist_ok=True)
            root = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                target, last = paths.folder_for(root, path)
                try:
                    os.rename(name, _free(target, last), src_dir_fd=folder, dst_dir_fd=target)
                finally:
                    os.close(target)
            finally:
                os.close(root)


def _free(folder: int, name: bytes) -> bytes:
    """A name that nothing in an open folder has: this one, or one made from it."""
    for number in range(1000):
        candidate = name if not number else b"%s.%d" % (name[:240], number)
        try:
            os.stat(candidate, dir_fd=folder, follow_symlinks=False)
        except FileNotFoundError:
            return candidate
    raise OSError(errno.EEXIST, "too much has been moved aside under one name")
