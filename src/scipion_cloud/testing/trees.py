"""Trees as projects have them: many small files, some large ones, and links, for tests and benchmarks.

The same spec gives the same tree, bytes and times included. What is in the files cannot be compressed, and no
two files of a tree are the same.
"""

import os
import random
from dataclasses import dataclass, replace
from pathlib import Path

POOL = 1 << 20  # bytes of noise that all files are cut from
OLD = 1_750_000_000  # s since 1970; the files are of the weeks before
WEEKS = 4 * 7 * 86_400  # s
PER_RUN = 1000  # small files, about
MEDIAN, SPREAD = 9.0, 1.5  # of the logarithm of the small files' sizes: 8 KB in the middle, 25 KB on average
SMALLEST, LARGEST = 64, 1_000_000  # bytes
FOLDERS = ("extra", "logs", "Links", "")


@dataclass(frozen=True)
class TreeSpec:
    """What a tree has."""

    small: int = 30_000
    big: int = 60
    links: int = 8_000  # symlinks to files of the tree
    big_size: tuple[int, int] = (20_000_000, 100_000_000)  # bytes, from and to
    seed: int = 1

    def scaled(self, factor: float) -> "TreeSpec":
        """The same with so much of everything; the sizes of the files stay."""
        small, big, links = (
            max(1, round(n * factor)) if n else 0 for n in (self.small, self.big, self.links)
        )
        return replace(self, small=small, big=big, links=links)


@dataclass(frozen=True)
class Tree:
    """What was made."""

    root: Path
    small: tuple[str, ...]  # paths below the root
    big: tuple[str, ...]
    links: tuple[str, ...]
    bytes: int  # of all files


def make_tree(root: Path, spec: TreeSpec, *, most: int = LARGEST) -> Tree:
    """Fill the new folder `root`: runs of protocols with their files, movies, links between runs.

    No small file has more than `most` bytes.
    """
    maker = _Maker(root, spec.seed)
    runs = [f"Runs/{n:06}_Prot{n % 7}" for n in range(1, 2 + spec.small // PER_RUN)]
    root.mkdir(parents=True)
    for run in runs:
        for folder in FOLDERS:
            (root / run / folder).mkdir(parents=True, exist_ok=True)
    draw = maker.random
    small, big, links = [], [], []
    for n in range(spec.small):
        size = int(min(max(draw.lognormvariate(MEDIAN, SPREAD), SMALLEST), most))
        small.append(f"{runs[n % len(runs)]}/{FOLDERS[n % 3]}/mic_{n:06}.xmd")
        maker.file(small[-1], size)
    for n in range(spec.big):
        big.append(f"{runs[0]}/extra/movie_{n:04}.mrcs")
        maker.file(big[-1], draw.randint(*spec.big_size))
    files = small or big
    for n in range(spec.links):
        links.append(f"{runs[-1 - n % len(runs)]}/Links/link_{n:06}")
        target = Path("../../..") / files[n % len(files)]
        (root / links[-1]).symlink_to(target)
    return Tree(root, tuple(small), tuple(big), tuple(links), maker.bytes)


def rewrite(tree: Tree, share: float, seed: int) -> list[str]:
    """Write other bytes of the same number into a share of the small files; which these are."""
    maker = _Maker(tree.root, seed)
    chosen = maker.random.sample(tree.small, max(1, round(share * len(tree.small))))
    for name in chosen:
        maker.file(name, (tree.root / name).stat().st_size, OLD + seed)
    return chosen


def append(tree: Tree, size: int, seed: int) -> str:
    """Write so many bytes behind the first big file, or the first small one where there is none; its path."""
    maker = _Maker(tree.root, seed)
    name = (tree.big or tree.small)[0]
    with (tree.root / name).open("ab") as file:
        maker.noise(file.fileno(), size)
    os.utime(tree.root / name, (OLD + seed, OLD + seed))
    return name


class _Maker:
    """Makes files of noise."""

    def __init__(self, root: Path, seed: int) -> None:
        self.root = root
        self.random = random.Random(seed)  # noqa: S311 - what can be repeated is wanted
        self.bytes = 0
        self._pool = memoryview(self.random.randbytes(POOL))
        self._mark = seed.to_bytes(8, "big", signed=True)
        self._count = 0

    def file(self, name: str, size: int, mtime: int | None = None) -> None:
        """Make a file, or put other bytes into it."""
        fd = os.open(self.root / name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        try:
            self.noise(fd, size)
            time = OLD - self.random.randrange(WEEKS) if mtime is None else mtime
            os.utime(fd, (time, time))
        finally:
            os.close(fd)
        self.bytes += size

    def noise(self, fd: int, size: int) -> None:
        """Write bytes that nothing else in the tree has: each piece begins with a number of its own."""
        while size:
            self._count += 1
            start = self.random.randrange(POOL // 2)
            mark = (self._mark + self._count.to_bytes(8, "big"))[: min(size, 16)]
            piece = self._pool[start : start + min(size - len(mark), POOL // 2)]
            size -= os.writev(fd, [mark, piece])
