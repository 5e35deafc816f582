"""What all queues of our own have in common: ids and keys, states, logs, lists, a frame for cancelling."""

import builtins
import json
import logging
import os
import sqlite3
import time
from abc import abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from scipion_cloud.errors import JobError, NotFound, QueueFull
from scipion_cloud.jobs import away, index, rows
from scipion_cloud.jobs.backend import JobBackend
from scipion_cloud.jobs.folder import JobFolder
from scipion_cloud.jobs.limits import Limits
from scipion_cloud.jobs.spec import JobId, JobInfo, JobLogs, JobSpec, JobState, JobStatus
from scipion_cloud.jobs.turn import turn

TURN = "schedule.lock"  # held while jobs are started, sent or declared to have ended
WITHDRAWN = "cancelled before it started"
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class IndexedBackend(JobBackend):
    """A queue with an index of its jobs, `queue.sqlite` in `spool`, and a folder for each, `spool/<id>`.

    Subclasses start the jobs: `_pass` is their moment. Jobs for another site are left to the broker.
    """

    spool: Path

    @abstractmethod
    def _limits(self) -> Limits | None:
        """What a new job is measured against; None if that cannot be known now."""

    @abstractmethod
    def _pass(self, wait: float, ask: bool = False) -> None:
        """Notice what has ended, start what can start; raises JobError if its turn does not come in `wait`
        seconds. `ask` whoever knows it, even if others just have."""

    @abstractmethod
    def _cancel_here(self, jobs: builtins.list[JobId]) -> None:
        """End these jobs, which are marked as `cancelling`. Raises JobError when something is left."""

    @abstractmethod
    def _check(self, spec: JobSpec, limits: Limits) -> None:
        """Raises JobRefused when a job asks for more than there is."""

    def _plan(self, db: sqlite3.Connection, jobs: Sequence[tuple[JobId, JobSpec]]) -> None:
        """Note how these new jobs are going to be started, in the transaction that makes them."""

    def _send(self, jobs: builtins.list[JobId]) -> None:  # noqa: ARG002 - others need them
        """Start these new jobs if their turn has come."""
        self._courtesy_pass()

    def submit(self, spec: JobSpec, key: str) -> JobId:
        """Queue a job, and start it if its turn has come."""
        return self.submit_all([(spec, key)])[0]

    def submit_all(self, jobs: Sequence[tuple[JobSpec, str]]) -> builtins.list[JobId]:
        """Queue jobs, all or none of them, and start those whose turn has come."""
        limits = self._limits()
        ids, new = [], []
        with index.writing(self._spool) as db:
            room = None
            for spec, key in jobs:
                job = rows.find(db, key)
                if job is None:
                    if limits and not spec.site:
                        self._check(spec, limits)
                        room = (_room(db, limits) if room is None else room) - 1
                        if room < 0:
                            raise _full(limits)
                    job = rows.insert(db, spec, key)
                    new.append((job, spec))
                ids.append(job)
            here = [(job, spec) for job, spec in new if not spec.site]
            self._plan(db, here)
        if here:
            self._send([job for job, _ in here])
        return ids

    def status(self, ids: Iterable[JobId]) -> dict[JobId, JobStatus]:
        """The status of all these jobs, after a look at what has ended."""
        wanted = list(ids)
        self._courtesy_pass()
        with index.reading(self._spool) as db:
            known = rows.statuses(db, wanted)
        return {job: known.get(job, JobStatus(JobState.UNKNOWN)) for job in wanted}

    def cancel(self, ids: Iterable[JobId]) -> None:
        """End these jobs; takes as long as their processes take to end, their grace and seconds at most."""
        wanted = list(ids)
        fault = self._mark_cancelled(wanted)
        with index.reading(self._spool) as db:
            live = db.execute(
                "SELECT id, site, state FROM jobs WHERE ended IS NULL"
                " AND id IN (SELECT value FROM json_each(?))",
                (json.dumps(wanted),),
            ).fetchall()
        self._cancel_here([row["id"] for row in live if not row["site"]])
        if fault and any(row["site"] or row["state"] == JobState.QUEUED for row in live):
            raise fault
        away.wait_ended(self._spool, [row["id"] for row in live if row["site"]])

    def logs(self, job: JobId, tail: int = 65536) -> JobLogs:
        """The end of what a job wrote."""
        with index.reading(self._spool) as db:
            row = db.execute("SELECT spec FROM jobs WHERE id = ?", (job,)).fetchone()
        if row is None:
            raise NotFound(f"There is no job {job}.")
        spec, folder = json.loads(row["spec"]), self.folder(job)
        out = Path(spec["stdout"] or folder.path / "stdout.log")
        err = Path(spec["stderr"] or folder.path / "stderr.log")
        return JobLogs(_tail(out, tail), _tail(err, tail), out, err)

    def find(self, key: str) -> JobId | None:
        """The job with this key."""
        with index.reading(self._spool) as db:
            return rows.find(db, key)

    def list(self, limit: int = 100) -> tuple[JobInfo, ...]:
        """Live jobs, then the last ones that ended."""
        self._courtesy_pass()
        with index.reading(self._spool) as db:
            live = db.execute("SELECT * FROM jobs WHERE ended IS NULL ORDER BY id").fetchall()
            past = db.execute(
                "SELECT * FROM jobs WHERE ended IS NOT NULL ORDER BY ended DESC, id DESC LIMIT ?", (limit,)
            ).fetchall()
        return tuple(map(rows.info, live + past))

    def tick(self) -> None:
        """One pass."""
        self._pass(15)

    def is_ready(self) -> bool:
        """True if the queue exists and knows its limits."""
        if not (self.spool / "queue.sqlite").exists():
            return False
        with index.reading(self._spool) as db:
            return index.limits(db) is not None

    def folder(self, job: int) -> JobFolder:
        """The folder of a job."""
        return JobFolder(self._spool / str(job))

    @property
    def _spool(self) -> Path:
        return self.spool.absolute()

    def _courtesy_pass(self, ask: bool = False) -> None:
        """A pass on whose success nothing depends."""
        try:
            self._pass(3, ask)
        except JobError as e:
            _log.warning("%s", e)

    def _mark_cancelled(self, ids: Sequence[JobId]) -> JobError | None:
        """Take these jobs out of the queue; those that run are noted. The error, if this could not be stored:
        with a full disk what runs can be ended all the same."""
        wanted = json.dumps(ids)
        mine = "ended IS NULL AND id IN (SELECT value FROM json_each(?))"
        try:
            with turn(self._spool, TURN):
                with index.reading(self._spool) as db:
                    query = f"SELECT id FROM jobs WHERE state = 'QUEUED' AND site = '' AND {mine}"  # noqa: S608
                    waiting = [row["id"] for row in db.execute(query, (wanted,))]
                gone = self._withdraw(waiting)
                ending = {
                    "state": JobState.CANCELLED,
                    "exit_code": None,
                    "reason": WITHDRAWN,
                    "time": time.time(),
                }
                with index.writing(self._spool) as db:
                    db.execute(f"UPDATE jobs SET cancelling = 1 WHERE {mine}", (wanted,))  # noqa: S608
                    for job in gone:
                        rows.finish(db, job, ending)
        except JobError as e:
            return e
        return None

    def _withdraw(self, jobs: Sequence[JobId]) -> Sequence[JobId]:
        """Make sure that these waiting jobs never start; those of them for which that is so."""
        return jobs


def _room(db: sqlite3.Connection, limits: Limits) -> int:
    query = "SELECT count(*) FROM jobs WHERE ended IS NULL AND state = 'QUEUED' AND site = ''"
    queued: int = db.execute(query).fetchone()[0]
    return limits.max_queued - queued


def _full(limits: Limits) -> QueueFull:
    return QueueFull(
        f"{limits.max_queued} jobs are waiting, and no more may. Try again when some of them have ended."
    )


def _tail(path: Path, size: int) -> str:
    """The last bytes of a file as text; nothing if it does not exist (yet)."""
    try:
        with path.open("rb") as f:
            f.seek(max(0, f.seek(0, os.SEEK_END) - size))
            return f.read(size).decode(errors="replace")
    except OSError:
        return ""
