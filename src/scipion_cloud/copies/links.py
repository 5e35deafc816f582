"""The symlinks of an archive: made when all else is there, and only where they stay in the project."""

import os
from collections.abc import Mapping

from scipion_cloud.copies.report import Report
from scipion_cloud.sync import paths
from scipion_cloud.sync.entry import parent_of

LEADS_OUT = "leads out of the project; it was left out."
_TAKEN = "has the name of something else in the archive; it was left out."


def place_links(root: int, project: bytes, links: Mapping[bytes, tuple[bytes, int]], report: Report) -> None:
    """Make the links that are in the folder `project` below the open folder `root`.

    `links` tells for each path what it says and its time, ns since the epoch. An absolute link to a place in
    the project, where that was before it was packed, becomes relative. Those that lead out are left out, also
    when they do so only with the help of other links.
    """
    top = paths.open_folder(root, project)
    try:
        home = os.path.realpath(b"/proc/self/fd/%d" % top)
        made = []
        for path, (text, mtime_ns) in links.items():
            below = _below(path, project)
            if below is None:
                continue
            inner = _inside(top, project.rpartition(b"/")[2], below, text)
            if inner is None:
                report.problem(path, LEADS_OUT)
            elif _make(top, below, inner, mtime_ns):
                made.append(below)
            else:
                report.problem(path, _TAKEN)
        for below in made:
            real = os.path.realpath(home + b"/" + below)
            if real != home and not real.startswith(home + b"/"):
                with paths.parent(top, below) as (folder, name):
                    os.unlink(name, dir_fd=folder)
                report.problem(below, LEADS_OUT)
    finally:
        os.close(top)


def _below(path: bytes, folder: bytes) -> bytes | None:
    if not folder:
        return path
    return path[len(folder) + 1 :] if path.startswith(folder + b"/") else None


def _inside(top: int, name: bytes, path: bytes, text: bytes) -> bytes | None:
    """What the link at `path` is to say; None if it leads out. `name` is the project's old folder."""
    if not text or b"\0" in text:
        return None
    if not text.startswith(b"/"):
        whole = os.path.normpath(parent_of(path) + b"/" + text if parent_of(path) else text)
        return None if whole == b".." or whole.startswith(b"../") else text
    parts = os.path.normpath(text).split(b"/")
    for place, part in enumerate(parts):
        rest = b"/".join(parts[place + 1 :])
        if part == name and name and rest and _is_there(top, rest):
            return os.path.relpath(b"/" + rest, b"/" + parent_of(path))
    return None


def _is_there(top: int, path: bytes) -> bool:
    try:
        with paths.parent(top, path) as (folder, name):
            os.stat(name, dir_fd=folder, follow_symlinks=False)
    except OSError:
        return False
    return True


def _make(top: int, path: bytes, text: bytes, mtime_ns: int) -> bool:
    try:
        folder, name = paths.folder_for(top, path)
    except OSError:  # a link is on the way there: nothing is put through it
        return False
    try:
        os.symlink(text, name, dir_fd=folder)
        os.utime(name, ns=(mtime_ns, mtime_ns), dir_fd=folder, follow_symlinks=False)
    except OSError:
        return False
    finally:
        os.close(folder)
    return True
