"""Two trees, byte for byte."""

import os
import stat as modes
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from blake3 import blake3

from scipion_cloud.sync.layout import SERVICE


class Node(NamedTuple):
    """What is to be found again of one name."""

    kind: int
    mode: int
    content: bytes  # of a file its digest, of a symlink what it says
    mtime_ns: int  # of a file
    twins: tuple[bytes, ...]  # all names of the same file


def tree(folder: Path) -> dict[bytes, Node]:
    """All that is in a folder, but for what is ours."""
    root = os.fsencode(folder)
    found: dict[bytes, os.stat_result] = dict(_walk(root, b""))
    names: dict[tuple[int, int], list[bytes]] = defaultdict(list)
    for path, stat in found.items():
        if modes.S_ISREG(stat.st_mode):
            names[stat.st_dev, stat.st_ino].append(path)
    return {path: _node(root + b"/" + path, stat, names) for path, stat in found.items()}


def difference(
    a: dict[bytes, Node], b: dict[bytes, Node], *, apart: frozenset[bytes] = frozenset()
) -> list[str]:
    """What is not the same in two trees, but for names in `apart`."""
    wrong = []
    for path in sorted(a.keys() | b.keys()):
        one, other = a.get(path), b.get(path)
        if path in apart:
            continue
        if one != other:
            wrong.append(f"{path!r}: {one} is not {other}")
    return wrong


def _walk(root: bytes, below: bytes) -> Iterator[tuple[bytes, os.stat_result]]:
    with os.scandir(root + b"/" + below) as entries:
        for entry in entries:
            if not below and entry.name == SERVICE.encode():
                continue
            path = below + entry.name
            yield path, entry.stat(follow_symlinks=False)
            if entry.is_dir(follow_symlinks=False):
                yield from _walk(root, path + b"/")


def _node(full: bytes, stat: os.stat_result, names: dict[tuple[int, int], list[bytes]]) -> Node:
    kind, mode = modes.S_IFMT(stat.st_mode), modes.S_IMODE(stat.st_mode)
    if modes.S_ISLNK(stat.st_mode):
        return Node(kind, 0, os.fsencode(Path(os.fsdecode(full)).readlink()), 0, ())
    if not modes.S_ISREG(stat.st_mode):
        return Node(kind, mode, b"", 0, ())
    digest = blake3(Path(os.fsdecode(full)).read_bytes()).digest()
    return Node(kind, mode, digest, stat.st_mtime_ns, tuple(sorted(names[stat.st_dev, stat.st_ino])))
