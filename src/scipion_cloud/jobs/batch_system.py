"""What a batch system has to be able to do for us: one small class each (see `slurm`, `sge`).

Everything else - ids, keys, logs, why a job failed - is `BatchBackend`'s, the same for all of them.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from scipion_cloud.errors import JobError
from scipion_cloud.jobs.claim import BATCH, RESTARTS
from scipion_cloud.jobs.limits import Limits
from scipion_cloud.jobs.spec import JobState

PREFIX = "sc-"
"""What the names of all our jobs begin with."""
INDEX = "SCIPION_CLOUD_INDEX"

__all__ = ["BATCH", "INDEX", "PREFIX", "RESTARTS", "Ask", "BatchSystem", "NoAnswer", "Node", "Seen"]


class NoAnswer(JobError):
    """The batch system cannot be reached now. What was asked may have happened or not; try again later."""


@dataclass(frozen=True)
class Ask:
    """What one job, or an array of `count` equal ones, asks for.

    The script is a plain one for sh, and finds in its environment INDEX (its number in the array, 0 without
    one), BATCH (the id that `Seen` gives it) and RESTARTS (how often this very job was started again). What
    it prints is of no interest.
    """

    name: str  # PREFIX and hexadecimal digits; the same for the same key
    script: Path  # absolute; run on the first node of the job
    folder: Path  # absolute; for what the batch system itself writes
    cpus: int = 1  # for each task; 0 for an interactive job
    tasks: int = 1  # processes of MPI, on one node or many
    gpus: int = 0  # on each node
    memory_gb: float = 1.0  # GiB on each node
    hours: float | None = None  # our own limit comes a little earlier
    resumable: bool = False  # may be started again on another node when its own is lost
    count: int = 1  # more than 1: an array


@dataclass(frozen=True)
class Seen:
    """One job (or one of an array) as the batch system shows it."""

    id: str  # the batch system's own
    name: str
    index: int  # in its array; 0 without one
    state: JobState
    reason: str = ""  # why it waits or how it ended, in words for people
    nodes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Node:
    """A machine of the batch system."""

    name: str
    state: str  # one word for people: idle, busy, full, down, drained, off, starting, stopping
    cpus: int
    cpus_used: int
    memory_gb: float  # GiB
    gpus: int = 0
    reason: str = ""


class BatchSystem(ABC):
    """A batch system as its commands. A frozen, picklable value.

    Every method may raise JobError, and NoAnswer when it is not known what became of the request; none takes
    longer than a minute.
    """

    @abstractmethod
    def submit(self, ask: Ask) -> str:
        """Queue a job or an array; returns the batch system's id of the whole.

        Raises JobError with the batch system's own words if it refuses.
        """

    @abstractmethod
    def jobs(self) -> list[Seen]:
        """All jobs of ours that the batch system knows, ended ones as long as it remembers; one command."""

    @abstractmethod
    def drop(self, ids: Sequence[str]) -> None:
        """End these jobs if they still wait; those that run or are gone are left alone."""

    @abstractmethod
    def kill(self, ids: Sequence[str]) -> None:
        """End these jobs at once, whatever they do. Those that are gone are left alone."""

    @abstractmethod
    def limits(self) -> Limits:
        """The most that one node can give to one job."""

    @abstractmethod
    def nodes(self) -> tuple[Node, ...]:
        """All machines."""
