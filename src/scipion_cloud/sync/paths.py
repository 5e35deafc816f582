"""Ways to a file below a folder that never lead through a symlink and may be of any length."""

import contextlib
import os
from collections.abc import Iterator

from scipion_cloud.storage import linux

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def open_folder(root: int, path: bytes) -> int:
    """A new descriptor of the folder `path` below the open folder `root` (b"" is that itself).

    Raises OSError; a symlink on the way is ENOTDIR or ELOOP.
    """
    if b"/" in path and (found := linux.open_below(root, path, _FOLDER)) is not None:
        return found
    first, *parts = path.split(b"/")
    fd = os.open(first or b".", _FOLDER, dir_fd=root)
    for part in parts:
        try:
            below = os.open(part, _FOLDER, dir_fd=fd)
        finally:
            os.close(fd)
        fd = below
    return fd


def open_file(root: int, path: bytes, flags: int) -> int:
    """A new descriptor of the file at `path`, which is there. Raises OSError."""
    if b"/" in path and (found := linux.open_below(root, path, flags)) is not None:
        return found
    with parent(root, path) as (folder, name):
        return os.open(name, flags | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)


@contextlib.contextmanager
def parent(root: int, path: bytes) -> Iterator[tuple[int, bytes]]:
    """The open folder that holds `path`, and its name in it: for `os` calls with dir_fd. Raises OSError."""
    folder, _, name = path.rpartition(b"/")
    fd = open_folder(root, folder)
    try:
        yield fd, name
    finally:
        os.close(fd)


def folder_for(root: int, path: bytes) -> tuple[int, bytes]:
    """The folder for a path below the open folder `root`, open, made if need be; the path's last part."""
    above, _, last = path.rpartition(b"/")
    fd = open_folder(root, b"")
    for part in above.split(b"/") if above else ():
        try:
            with contextlib.suppress(FileExistsError):
                os.mkdir(part, 0o700, dir_fd=fd)
            below = open_folder(fd, part)
        finally:
            os.close(fd)
        fd = below
    return fd, last
