"""The batch system of a single machine: a bounded queue without a daemon."""

import builtins
import json
import signal
import time
from collections.abc import Iterable
from dataclasses import dataclass

from scipion_cloud.errors import JobError
from scipion_cloud.jobs import index, processes, rows, schedule
from scipion_cloud.jobs.folder import OUTCOME, JobFolder
from scipion_cloud.jobs.indexed import IndexedBackend
from scipion_cloud.jobs.limits import Limits
from scipion_cloud.jobs.spec import JobId, JobSpec, JobState
from scipion_cloud.jobs.supervisor import CANCEL, KILL_LIMIT


@dataclass(frozen=True)
class LocalBackend(IndexedBackend):
    """Jobs of one machine, first come, first served, as many at once as CPUs, memory and GPUs allow.

    `spool` is the folder of the queue, on a local disk. Without limits those count that were last used there.
    """

    limits: Limits | None = None

    def _limits(self) -> Limits:
        if self.limits:
            return self.limits
        with index.reading(self._spool) as db:
            return index.limits(db) or Limits.of_machine()

    def _check(self, spec: JobSpec, limits: Limits) -> None:
        limits.check(spec.cpus * spec.tasks, spec.memory_gb, spec.gpus)

    def _pass(self, wait: float, ask: bool = False) -> None:  # noqa: ARG002 - there is nobody to ask
        schedule.run(self._spool, self.limits, wait)

    def _cancel_here(self, jobs: builtins.list[JobId]) -> None:
        """Ask the supervisors, and wait for them."""
        running = self._running(jobs)
        waiting = dict.fromkeys(running, False)  # whether its supervisor has been asked
        deadline = time.monotonic() + self._longest_grace(running) + KILL_LIMIT + 5
        while waiting and time.monotonic() < deadline:
            for job in tuple(waiting):
                folder = self.folder(job)
                if folder.has(OUTCOME) or not folder.is_supervised():
                    del waiting[job]
                elif not waiting[job]:
                    waiting[job] = _ask_to_end(folder)
            time.sleep(0.01)
        self._courtesy_pass()
        if left := [job for job in running if not self._is_gone(job)]:
            raise JobError(
                f"Processes of job {', '.join(map(str, left))} cannot be ended. Do they wait for a disk that "
                "does not answer? The job's status and `supervisor.log` tell more."
            )

    def _running(self, ids: Iterable[JobId]) -> tuple[JobId, ...]:
        with index.reading(self._spool) as db:
            found = rows.statuses(db, ids)
        return tuple(job for job, status in found.items() if status.state is JobState.RUNNING)

    def _longest_grace(self, ids: Iterable[JobId]) -> float:
        query = (
            "SELECT MAX(json_extract(spec, '$.grace')) FROM jobs WHERE id IN (SELECT value FROM json_each(?))"
        )
        with index.reading(self._spool) as db:
            (longest,) = db.execute(query, (json.dumps(list(ids)),)).fetchone()
        return longest or rows.GRACE

    def _is_gone(self, job: JobId) -> bool:
        outcome = self.folder(job).read(OUTCOME)
        return not outcome.get("left") if outcome else not self._running((job,))


def _ask_to_end(folder: JobFolder) -> bool:
    claim = folder.read("claim.json")  # absent for a moment while the supervisor starts
    if claim is None:
        return False
    processes.send(claim["pid"], claim["start"], CANCEL)
    processes.send(claim["pid"], claim["start"], signal.SIGCONT)
    return True
