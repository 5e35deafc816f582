"""Jobs of a batch system: our queue's ids, keys, logs and reasons, with somebody else's scheduler."""

import builtins
import contextlib
import json
import logging
import sqlite3
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from scipion_cloud.errors import JobError
from scipion_cloud.jobs import claim, dispatch, index, rows
from scipion_cloud.jobs.batch_system import BatchSystem, Seen
from scipion_cloud.jobs.indexed import TURN, WITHDRAWN, IndexedBackend
from scipion_cloud.jobs.limits import Limits
from scipion_cloud.jobs.local import LocalBackend
from scipion_cloud.jobs.look import Looker
from scipion_cloud.jobs.runner import Runner
from scipion_cloud.jobs.spec import JobId, JobSpec, JobState
from scipion_cloud.jobs.supervisor import KILL_LIMIT
from scipion_cloud.jobs.turn import turn

_LIMITS_LAST = 60.0  # seconds before they are asked for again
_KILLING = 30.0  # seconds for the batch system to do it
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class BatchBackend(IndexedBackend):
    """A queue whose jobs a batch system starts, on this machine's nodes or on others.

    `spool` has to have the same path on all nodes; so has what `runner` runs, which is this package unless
    another copy is named. `limits` are what jobs are measured against, those of the batch system's largest
    node if unset. A job that the batch system has forgotten, and that left no outcome, counts as lost after
    `lost_after` seconds.
    """

    system: BatchSystem
    limits: Limits | None = None
    max_queued: int = 10_000
    runner: Runner = field(default_factory=Runner)
    poll: float = 2.0  # seconds
    lost_after: float = 60.0  # seconds

    def _limits(self) -> Limits | None:
        if self.limits:
            return self.limits
        with index.reading(self._spool) as db:
            known = index.limits(db)
            learned = db.execute("SELECT max(learned) FROM limits").fetchone()[0]
        if known is None or not 0 <= time.time() - learned < _LIMITS_LAST:
            try:
                known = self.system.limits()._replace(max_queued=self.max_queued)
            except JobError as e:
                _log.warning("%s", e)
                return known
            with index.writing(self._spool) as db:
                index.store_limits(db, known)
                db.execute("UPDATE limits SET learned = ?", (time.time(),))
        return known

    def _check(self, spec: JobSpec, limits: Limits) -> None:
        limits.check(spec.cpus, spec.memory_gb, spec.gpus, here=False)

    def _plan(self, db: sqlite3.Connection, jobs: Sequence[tuple[JobId, JobSpec]]) -> None:
        dispatch.plan(db, jobs)

    def _send(self, jobs: builtins.list[JobId]) -> None:  # noqa: ARG002 - all that waits, in its order
        try:
            with turn(self._spool, TURN):
                (self._spool / "news").mkdir(exist_ok=True)
                self._looker.send_new()
        except JobError as e:
            _log.warning("%s", e)  # they are safe in the queue, and sent later

    def _pass(self, wait: float, ask: bool = False) -> None:
        """`ask` the batch system even if others just have."""
        if ask or self._looker.is_due():
            with turn(self._spool, TURN, wait):
                self._looker.look(ask)

    @property
    def _looker(self) -> Looker:
        return Looker(self._spool, self.system, self.runner, self.poll, self.lost_after)

    def _withdraw(self, jobs: Sequence[JobId]) -> Sequence[JobId]:
        """Who claims a job first has it: those that we claim never start, whatever the batch system does."""
        gone = []
        for job in jobs:
            folder = self.folder(job)
            try:
                folder.path.mkdir(exist_ok=True)
                if claim.withdraw(folder, WITHDRAWN):
                    gone.append(job)
            except OSError as e:  # a full disk
                _log.warning("Job %d cannot be withdrawn: %s", job, e)
        try:
            self.system.drop([seen.id for seen in self._shown(gone) if not seen.state.is_final])
        except JobError as e:
            _log.warning("%s", e)
        return gone

    def _cancel_here(self, jobs: builtins.list[JobId]) -> None:
        """Ask the supervisors through their folders; wait; and in the end have the batch system kill."""
        rows_ = self._live(jobs)
        LocalBackend(self._spool)._cancel_here([row["id"] for row in rows_ if not row["batch"]])
        for row in rows_:
            with contextlib.suppress(OSError):  # a full disk: it is killed in the end
                (self.folder(row["id"]).path / claim.CANCEL_FILE).touch()
        grace = max((json.loads(row["spec"]).get("grace", rows.GRACE) for row in rows_), default=0.0)
        begin, asked, killed = time.monotonic(), 0.0, False
        while live := [row["id"] for row in self._live(jobs)]:
            now = time.monotonic()
            overdue = now - begin - (grace + KILL_LIMIT + 5)
            if overdue > 0 and not killed:
                killed = self._kill(live)
            if overdue > _KILLING:
                raise JobError(
                    f"Job {', '.join(map(str, live))} cannot be ended: neither its supervisor nor the batch "
                    "system says that it has. It is ended as soon as they can be reached."
                )
            ask = now - asked >= self.poll
            asked = now if ask else asked
            self._courtesy_pass(ask)
            time.sleep(0.02)
        self._wait_for_other_nodes([row["id"] for row in rows_ if row["tasks"] > 1])

    def _wait_for_other_nodes(self, jobs: Sequence[JobId]) -> None:
        """A supervisor sees its own node only; the batch system ends the rest with the job."""
        deadline = time.monotonic() + _KILLING
        while jobs and any(seen.state is JobState.RUNNING for seen in self._shown(jobs)):
            if time.monotonic() > deadline:
                raise JobError(f"The batch system cannot end all of job {', '.join(map(str, jobs))}.")
            time.sleep(0.2)

    def _kill(self, jobs: Sequence[JobId]) -> bool:
        try:
            self.system.kill([seen.id for seen in self._shown(jobs) if not seen.state.is_final])
        except JobError as e:
            _log.warning("%s", e)
            return False
        return True

    def _shown(self, jobs: Sequence[JobId]) -> builtins.list[Seen]:
        """What the batch system says of these jobs now."""
        with index.reading(self._spool) as db:
            query = (
                "SELECT batch, batch_index FROM jobs WHERE attempts > 0"
                " AND id IN (SELECT value FROM json_each(?))"
            )
            names = {tuple(row) for row in db.execute(query, (json.dumps(jobs),))}
        return [seen for seen in self.system.jobs() if (seen.name, seen.index) in names] if names else []

    def _live(self, jobs: Sequence[JobId]) -> builtins.list[sqlite3.Row]:
        with index.reading(self._spool) as db:
            query = "SELECT * FROM jobs WHERE ended IS NULL AND id IN (SELECT value FROM json_each(?))"
            return db.execute(query, (json.dumps(jobs),)).fetchall()
