"""A small disk of its own, and what it is to be full. Mounting needs root, as in CI."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def small_disk(folder: Path, mib: int) -> Iterator[Path]:
    """A new folder on a disk of `mib` MiB of memory. Raises CalledProcessError without the right to mount."""
    folder.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={mib}m,mode=700", "tmpfs", folder], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


@contextmanager
def full(disk: Path, leave: int = 0) -> Iterator[None]:
    """Only `leave` bytes of a disk are left until the end of the block."""
    ballast = disk / "ballast"
    with ballast.open("wb", buffering=0) as file:
        for piece in (1 << 20, 1 << 12, 1):
            with suppress(OSError):
                while file.write(bytes(piece)) == piece:
                    pass
        file.truncate(max(0, file.tell() - leave))
    try:
        yield
    finally:
        ballast.unlink()
