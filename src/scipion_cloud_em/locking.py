"""One writer of a project at a time, among our own processes."""

import fcntl
from contextlib import contextmanager
from pathlib import Path

LOCK_NAME = ".scipion-cloud.lock"


@contextmanager
def project_lock(project: Path):
    """Hold the lock of the project in folder `project`; waits for its turn. A dead process holds no lock."""
    with (project / LOCK_NAME).open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
