"""One controller for each home."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from scipion_cloud.errors import SetupError


@contextmanager
def only_one(home: Path) -> Iterator[None]:
    """Hold this home's controller lock; the kernel frees it however the process ends.

    Raises SetupError if another controller holds it.
    """
    home.mkdir(parents=True, exist_ok=True, mode=0o700)
    with (home / "controller.lock").open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as e:
            file.seek(0)
            holder = file.read().strip() or "unknown"
            raise SetupError(
                f"Another controller (process {holder}) works on {home}. "
                "Stop it first, or choose another home with SCIPION_CLOUD_HOME."
            ) from e
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield
