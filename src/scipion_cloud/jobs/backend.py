"""The contract that every batch system fulfils; `scipion_cloud.testing.job_backend` tests it."""

import builtins
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence

from scipion_cloud.jobs.spec import JobId, JobInfo, JobLogs, JobSpec, JobStatus


class JobBackend(ABC):
    """A batch system.

    A backend is a picklable value without state of its own: equal ones in any thread or process see the
    same jobs, and jobs belong to none of them. Every method may raise JobError when the batch system cannot
    answer.
    """

    @abstractmethod
    def submit(self, spec: JobSpec, key: str) -> JobId:
        """Queue a job, once: the same key (any text) gives the same job for ever, from any process.

        On return the job is safe; after an exception or a crash, submitting again with the key is right.
        Raises QueueFull, or JobRefused when the job asks for more than the batch system has.
        """

    def submit_all(self, jobs: Sequence[tuple[JobSpec, str]]) -> "builtins.list[JobId]":
        """`submit` for many, each (specification, key): the ids in their order.

        After an exception or a crash some may have been queued; doing all of it again is right.
        """
        return [self.submit(spec, key) for spec, key in jobs]

    @abstractmethod
    def status(self, ids: Iterable[JobId]) -> dict[JobId, JobStatus]:
        """The status of all these jobs at once; UNKNOWN for an id of which nothing is known."""

    @abstractmethod
    def cancel(self, ids: Iterable[JobId]) -> None:
        """End these jobs with every process that they started; on return nothing of them runs.

        Jobs that have ended, and unknown ids, are left as they are. Raises JobError when something is left.
        """

    @abstractmethod
    def logs(self, job: JobId, tail: int = 65536) -> JobLogs:
        """The last `tail` bytes of each stream of a job. Raises NotFound for an unknown id."""

    @abstractmethod
    def find(self, key: str) -> JobId | None:
        """The job that was submitted with this key, if there is one."""

    @abstractmethod
    def list(self, limit: int = 100) -> tuple[JobInfo, ...]:
        """All live jobs in the order of the queue, then those that ended last, `limit` of these at most."""

    @abstractmethod
    def tick(self) -> None:
        """Start what can start, notice what has ended. The controller calls it every few seconds."""
