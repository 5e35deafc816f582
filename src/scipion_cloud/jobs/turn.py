"""Take turns between processes: a file lock that the kernel drops with its holder."""

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from scipion_cloud.errors import JobError


@contextmanager
def turn(folder: Path, name: str, wait: float = 15.0) -> Iterator[None]:
    """Hold the lock `name` in a folder. Raises JobError when another holds it for `wait` seconds."""
    fd = os.open(folder / name, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        deadline = time.monotonic() + wait
        while True:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise JobError(
                        f"Another process has held {folder / name} for {wait:g} s. If it hangs, end it."
                    ) from None
                time.sleep(0.003)
        yield
    finally:
        os.close(fd)
