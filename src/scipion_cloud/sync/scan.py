"""What stands in a folder, all the way down, never through a symlink."""

import os
import stat as modes
from collections.abc import Iterator
from typing import NamedTuple

from scipion_cloud.sync.layout import ARRIVING, SERVICE
from scipion_cloud.sync.paths import open_folder
from scipion_cloud.sync.progress import Problem

_SAVED = frozenset((modes.S_IFREG, modes.S_IFDIR, modes.S_IFLNK))


class Found(NamedTuple):
    """A file, folder or symlink: its path below the scanned folder and what lstat told of it."""

    path: bytes
    stat: os.stat_result


def scan(root: int, problems: list[Problem], unknown: set[bytes]) -> Iterator[Found]:
    """All files, folders and symlinks below the open folder `root`, a folder before what is in it.

    Paths may be of any length and made of any bytes. Nothing ends a scan: what cannot be looked at, or
    vanishes meanwhile, is added to `unknown`: nobody can say what is at these paths and below. What a person
    should know is added to `problems`. Sockets, pipes and devices are left out, and so are our own folder and
    what is still on its way from another site.
    """
    folders = [b""]
    while folders:
        folder = folders.pop()
        prefix = folder + b"/" if folder else b""
        try:
            fd = open_folder(root, folder)
        except OSError as e:
            _lose(folder, e, problems, unknown)
            continue
        try:
            with os.scandir(fd) as entries:
                for entry in entries:
                    path = prefix + entry.name.encode("utf-8", "surrogateescape")
                    try:
                        stat = entry.stat(follow_symlinks=False)
                    except OSError as e:
                        _lose(path, e, problems, unknown)
                        continue
                    kind = modes.S_IFMT(stat.st_mode)
                    if kind not in _SAVED:
                        problems.append(Problem(path, "is a socket, a pipe or a device, which is not saved."))
                        continue
                    if kind == modes.S_IFDIR:
                        if path == _OURS or entry.name.startswith(ARRIVING):
                            continue
                        folders.append(path)
                    yield Found(path, stat)
        except OSError as e:
            _lose(folder, e, problems, unknown)
        finally:
            os.close(fd)


_OURS = SERVICE.encode()


def _lose(path: bytes, error: OSError, problems: list[Problem], unknown: set[bytes]) -> None:
    unknown.add(path)
    if isinstance(error, FileNotFoundError):
        text = "vanished while the folder was looked at; its last saved version is kept for now."
        if not path:
            text = "The folder itself vanished while it was looked at."
    else:
        text = f"could not be read ({error.strerror}); its last saved version is kept."
    problems.append(Problem(path, text, unsaved=True))
