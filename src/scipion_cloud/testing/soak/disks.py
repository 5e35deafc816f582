"""Disks that are full, and calls that the system refuses."""

import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from scipion_cloud.errors import SetupError
from scipion_cloud.testing import disks
from scipion_cloud.testing.soak.machine import Machine

SIZE = 96  # MiB
CALLS = {  # by what an agent does with them
    "writing": "write,pwrite64,copy_file_range,ftruncate,fsync,fdatasync,syncfs",
    "naming": "rename,renameat,renameat2,link,linkat,unlink,unlinkat,mkdir,mkdirat",
    "opening": "open,openat",
    "looking": "getdents64,stat,lstat,newfstatat,statx,readlinkat",
    "reading": "read,pread64,preadv",
}


class Disk:
    """A disk on which things can be put, in `folder`; root gets one of its own."""

    def __init__(self, folder: Path, own: bool) -> None:
        self.folder = folder
        self._own = own

    @contextmanager
    def full(self, machine: Machine, leave: int = 0) -> Iterator[None]:
        """Only `leave` bytes are left, until the end of the block; for others than root: for this agent.

        It is started within, if it does not run.
        """
        if not self._own:
            if machine.has_ended:
                machine.start()
            with refusing(machine, "ENOSPC", CALLS["writing"].removesuffix(",fsync,fdatasync,syncfs"), "1+"):
                yield
            return
        with disks.full(self.folder, leave):
            if machine.has_ended:
                machine.start()
            yield


@contextmanager
def small_disk(folder: Path) -> Iterator[Disk]:
    """A disk of its own where we may mount one."""
    if os.geteuid() == 0:
        with disks.small_disk(folder, SIZE):
            yield Disk(folder, own=True)
    else:
        folder.mkdir(parents=True)
        yield Disk(folder, own=False)


@contextmanager
def refusing(machine: Machine, error: str, calls: str, when: str) -> Iterator[None]:
    """Let calls of a running agent fail within the block: those that strace counts as `when`.

    Raises SetupError.
    """
    inject = ["-e", f"trace={calls}", "-e", f"inject={calls}:error={error}:when={when}"]
    command = ["strace", "-f", "-qq", "-o", "/dev/null", "-p", str(machine.pid), *inject]
    try:
        tracer = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    except FileNotFoundError as e:
        raise SetupError("strace is missing. Run: apt-get install -y strace") from e
    try:
        yield
    finally:
        tracer.send_signal(signal.SIGINT)  # it lets go of the agent
        tracer.wait()
