"""What is asked of a batch system, and what it answers: frozen values, no I/O."""

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Any, NewType

from scipion_cloud.errors import InvalidInput

JobId = NewType("JobId", int)
"""A job's number, greater than 0 and never used twice: the only form of id that Scipion can keep."""


class JobState(StrEnum):
    """The life of a job; one word each, as `scipion-cloud job status` prints them."""

    QUEUED = "QUEUED"
    RUNNING = "RUNNING"
    DONE = "DONE"  # ended by itself with exit code 0
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"
    UNKNOWN = "UNKNOWN"  # the batch system cannot say; it may well be running

    @property
    def is_final(self) -> bool:
        """True once nothing will change any more. What is unknown is not final."""
        return self in (JobState.DONE, JobState.FAILED, JobState.CANCELLED)


@dataclass(frozen=True)
class JobSpec:
    """One program to run.

    A job sees a short list of the submitter's variables (PATH, HOME and the like) with `env` added, and
    SCIPION_CLOUD_JOB_ID. Text may hold any character that the system can pass to a program.
    Raises InvalidInput when a value can never work.
    """

    argv: tuple[str, ...]
    cwd: Path  # absolute
    name: str = "job"  # for people
    cpus: int = 1  # 0 for an interactive job, which waits for a person and must not wait for a CPU
    tasks: int = 1  # processes of MPI, each with that many CPUs, on one node of the batch system or many
    gpus: int = 0  # on each node
    memory_gb: float = 1.0  # GiB; what the scheduler sets aside, on each node
    hours: float | None = None  # the job is ended after this time
    grace: float = 2.0  # seconds from the request to end (SIGTERM) to SIGKILL; long if it has data to save
    env: Mapping[str, str] = field(default_factory=dict)
    stdout: Path | None = None  # appended to; a file of the batch system's own if unset
    stderr: Path | None = None  # may be the same file as stdout
    owner: str = ""  # a label for people
    resumable: bool = False  # started again when it was lost with its machine: it goes on by itself
    site: str = ""  # where the broker is to send it; here if empty
    parcel: Mapping[str, Any] | None = None  # what the broker needs to know for that (see `broker.parcel`)

    def __post_init__(self) -> None:
        if not self.argv or not self.argv[0]:
            raise InvalidInput("A job needs a program to run; its command is empty.")
        if not self.cwd.is_absolute():
            raise InvalidInput(f"A job's working folder must be an absolute path, not {str(self.cwd)!r}.")
        if self.cpus < 0:
            raise InvalidInput(f"A job needs at least 1 CPU (0 if it is interactive), not {self.cpus}.")
        if self.tasks < 1:
            raise InvalidInput(f"A job has at least 1 task, not {self.tasks}.")
        if self.gpus < 0:
            raise InvalidInput(f"A job cannot ask for {self.gpus} GPUs.")
        if not (math.isfinite(self.memory_gb) and self.memory_gb > 0):
            raise InvalidInput(f"A job's memory must be more than 0 GiB, not {self.memory_gb}.")
        if self.hours is not None and not (math.isfinite(self.hours) and self.hours > 0):
            raise InvalidInput(f"A job's time limit must be more than 0 hours, not {self.hours}.")
        if not (math.isfinite(self.grace) and self.grace >= 0):
            raise InvalidInput(f"A job's grace must be a number of seconds, not {self.grace}.")
        for name in self.env:
            if not name or "=" in name:
                raise InvalidInput(f"{name!r} cannot be the name of an environment variable.")
        paths = [str(p) for p in (self.cwd, self.stdout, self.stderr) if p is not None]
        for text in (*self.argv, *paths, *self.env, *self.env.values()):
            if "\0" in text or not _encodable(text):
                raise InvalidInput(f"{text!r} holds characters that cannot be passed to a program.")


def _encodable(text: str) -> bool:
    try:
        os.fsencode(text)
    except UnicodeEncodeError:
        return False
    return True


@dataclass(frozen=True)
class JobStatus:
    """What is known of a job now."""

    state: JobState
    exit_code: int | None = None  # as the program gave it; -N if signal N killed it
    reason: str = ""  # why it failed, was cancelled or waits; for people
    submitted: datetime | None = None
    started: datetime | None = None
    ended: datetime | None = None


@dataclass(frozen=True)
class JobInfo:
    """A row of the list of jobs."""

    id: JobId
    name: str
    owner: str
    cpus: int
    memory_gb: float  # GiB
    status: JobStatus
    grace: float = 2.0  # seconds, see JobSpec
    tasks: int = 1
    gpus: int = 0
    site: str = ""
    cwd: str = ""  # its working folder


@dataclass(frozen=True)
class JobLogs:
    """The last part of what a job wrote, and the files that hold it all where this machine can see them."""

    stdout: str
    stderr: str
    stdout_path: Path | None
    stderr_path: Path | None
