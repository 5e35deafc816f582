"""Who runs the job of a folder that several machines share. Standard library only.

There is no lock that all of them see. Instead one claim decides, made so that only one can succeed:

    claim.json               whose the job is: the batch system's id and how often that was started again,
                             process, machine, time
    outcome-<claim>.json     how it ended; a file for each claim, so that one that has lost its own can never
                             pass for another
    ../news/<id>.<what>      tells the queue where to look, so that it need not look everywhere; a help only

Whoever has no claim starts nothing, and who has lost it ends its program. A claim is lost to a later start
of the same batch job, and to the queue itself, when it takes back a job that waits (`withdraw`), gives up one
that is lost (`revoke`), or sends it again (`release`).
"""

import contextlib
import os
import socket
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from scipion_cloud.jobs import processes
from scipion_cloud.jobs.folder import JobFolder

CLAIM, CANCEL_FILE = "claim.json", "cancel"
BATCH, RESTARTS = "SCIPION_CLOUD_BATCH", "SCIPION_CLOUD_RESTARTS"


@dataclass(frozen=True)
class Claim:
    """Who runs a job; nobody may if `batch` is empty."""

    batch: str  # the batch system's id
    restarts: int = 0  # how often it has been started again
    reason: str = ""  # why nobody may run it
    host: str = ""
    pid: int = 0
    start: int = 0  # of the process, in clock ticks since boot
    boot: str = ""
    time: float = 0.0  # seconds since 1970

    @classmethod
    def own(cls) -> "Claim":
        """This process's, in a job of a batch system."""
        pid = os.getpid()
        return cls(
            os.environ[BATCH],
            int(os.environ.get(RESTARTS) or 0),
            host=socket.gethostname(),
            pid=pid,
            start=processes.started(pid) or 0,
            boot=processes.boot_id(),
            time=time.time(),
        )

    @classmethod
    def of(cls, folder: JobFolder) -> "Claim | None":
        """The one that holds in a folder."""
        content = folder.read(CLAIM)
        return cls(**content) if content else None

    def take(self, folder: JobFolder) -> bool:
        """Make it, or take it over from an earlier start of the same batch job. False if it is another's."""
        if folder.create(CLAIM, asdict(self)):
            return True
        holder = self.of(folder)
        if holder is None or holder.batch != self.batch or holder.restarts >= self.restarts:
            return False
        folder.write(CLAIM, asdict(self))
        return True

    def holds(self, folder: JobFolder) -> bool:
        """True as long as nobody has taken it away; also when that cannot be seen now."""
        try:
            holder = self.of(folder)
            return holder == self if holder else (folder.path / CLAIM).exists()
        except OSError:
            return True

    @property
    def outcome(self) -> str:
        """The name of this claim's outcome."""
        return f"outcome-{self._name}.json"

    @property
    def _name(self) -> str:
        return f"{self.batch.replace('/', '_')}-{self.restarts}"


def withdraw(folder: JobFolder, reason: str) -> bool:
    """Make sure that a job which nobody has claimed never starts. False if somebody has."""
    return folder.create(CLAIM, asdict(Claim("", reason=reason, time=time.time())))


def revoke(folder: JobFolder, reason: str) -> None:
    """Take a job away from whoever has it: should that live or come back, it ends its program."""
    if not withdraw(folder, reason):
        folder.write(CLAIM, asdict(Claim("", reason=reason, time=time.time())))


def release(folder: JobFolder, held: Claim) -> None:
    """Let another batch job claim this job; whoever had it ends its program, should it still live."""
    (folder.path / CLAIM).rename(folder.path / f"claim-{held._name}.json")


def news(folder: JobFolder) -> Path:
    """Where supervisors tell that there is something to see."""
    return folder.path.parent / "news"


def tell(folder: JobFolder, what: str) -> None:
    """Leave word that something has happened. Nothing depends on it: it makes the queue look sooner."""
    with contextlib.suppress(OSError):
        (news(folder) / f"{folder.path.name}.{what}").touch()
