"""A disk of our own for measurements: ext4 in a file, so that other programs' files are no part of it."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_MKFS = ["mkfs.ext4", "-q", "-m", "0", "-i", "4096", "-E", "nodiscard,lazy_itable_init=0,lazy_journal_init=0"]


@contextmanager
def disk(folder: Path | None, gigabytes: float) -> Iterator[Path]:
    """The root of an empty ext4 of this size if we may mount one; else a folder, and a word about that."""
    with tempfile.TemporaryDirectory(prefix="scb-", dir=folder) as name:
        image, root = Path(name) / "image", Path(name) / "disk"
        root.mkdir()
        if not _mounted(image, root, int(gigabytes * 1e9)):
            print("No ext4 could be mounted: what follows was measured in a folder.", file=sys.stderr)
            yield root
            return
        try:
            yield root
        finally:
            subprocess.run(["umount", "--lazy", root], check=True)


def _mounted(image: Path, root: Path, size: int) -> bool:
    if os.geteuid() != 0:
        return False
    with image.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, size)
    mount = ["mount", "-o", "loop,nodiscard,noatime", str(image), str(root)]
    for command in ([*_MKFS, str(image)], mount):
        if subprocess.run(command, capture_output=True, check=False).returncode:
            image.unlink(missing_ok=True)
            return False
    return True


def settle(root: Path) -> None:
    """Bring what was written to the disk, so that it is no burden for whoever is measured next."""
    subprocess.run(["sync", "-f", root], check=True)
