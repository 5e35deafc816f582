"""The batch system of a single machine: a bounded queue without a daemon."""

import json
import logging
import os
import re
import signal
import sqlite3
import time
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from scipion_cloud.errors import JobError, NotFound, QueueFull
from scipion_cloud.jobs import index, processes, schedule
from scipion_cloud.jobs.backend import JobBackend
from scipion_cloud.jobs.folder import JobFolder
from scipion_cloud.jobs.limits import Limits
from scipion_cloud.jobs.spec import JobId, JobInfo, JobLogs, JobSpec, JobState, JobStatus
from scipion_cloud.jobs.supervisor import CANCEL, GRACE, KILL_LIMIT
from scipion_cloud.jobs.turn import turn

_INHERITED = re.compile(
    "PATH|LD_LIBRARY_PATH|HOME|USER|LOGNAME|SHELL|LANG|LANGUAGE|LC_.*|TZ|TMPDIR|SCIPION_CLOUD_(HOME|SOFTWARE)"
)


_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class LocalBackend(JobBackend):
    """Jobs of one machine, first come, first served, as many at once as CPUs and memory allow.

    `spool` is the folder of the queue, on a local disk. Without limits those count that were last used there.
    """

    spool: Path
    limits: Limits | None = None

    def submit(self, spec: JobSpec, key: str) -> JobId:
        """Queue a job, and start it if its turn has come."""
        with index.writing(self._spool) as db:
            limits = self.limits or index.limits(db) or Limits.of_machine()
            known = _find(db, key)
            job = known or _insert(db, spec, key, limits)
        if not known:
            self._pass()
        return job

    def status(self, ids: Iterable[JobId]) -> dict[JobId, JobStatus]:
        """The status of all these jobs, after a look at what has ended."""
        wanted = list(ids)
        self._pass()
        with index.reading(self._spool) as db:
            known = {row["id"]: _status(row) for row in index.rows(db, wanted)}
        return {job: known.get(job, JobStatus(JobState.UNKNOWN)) for job in wanted}

    def cancel(self, ids: Iterable[JobId]) -> None:
        """End these jobs; takes as long as their processes take to end, some seconds at most."""
        wanted = list(ids)
        fault = self._mark_cancelled(wanted)
        running = self._in_state(JobState.RUNNING, wanted)
        waiting = dict.fromkeys(running, False)  # whether its supervisor has been asked
        deadline = time.monotonic() + GRACE + KILL_LIMIT + 5
        while waiting and time.monotonic() < deadline:
            for job in tuple(waiting):
                folder = schedule.folder_of(self._spool, job)
                if folder.has("outcome.json") or not folder.is_supervised():
                    del waiting[job]
                elif not waiting[job]:
                    waiting[job] = _ask_to_end(folder)
            time.sleep(0.01)
        self._pass()
        if fault and self._in_state(JobState.QUEUED, wanted):
            raise fault
        if left := [job for job in running if not self._is_gone(job)]:
            raise JobError(
                f"Processes of job {', '.join(map(str, left))} cannot be ended. Do they wait for a disk that "
                "does not answer? The job's status and `supervisor.log` tell more."
            )

    def logs(self, job: JobId, tail: int = 65536) -> JobLogs:
        """The end of what a job wrote."""
        with index.reading(self._spool) as db:
            row = db.execute("SELECT spec FROM jobs WHERE id = ?", (job,)).fetchone()
        if row is None:
            raise NotFound(f"There is no job {job}.")
        spec, folder = json.loads(row["spec"]), schedule.folder_of(self._spool, job)
        out = Path(spec["stdout"] or folder.path / "stdout.log")
        err = Path(spec["stderr"] or folder.path / "stderr.log")
        return JobLogs(_tail(out, tail), _tail(err, tail), out, err)

    def find(self, key: str) -> JobId | None:
        """The job with this key."""
        with index.reading(self._spool) as db:
            return _find(db, key)

    def list(self, limit: int = 100) -> tuple[JobInfo, ...]:
        """Live jobs, then the last ones that ended."""
        self._pass()
        with index.reading(self._spool) as db:
            live = db.execute("SELECT * FROM jobs WHERE ended IS NULL ORDER BY id").fetchall()
            past = db.execute(
                "SELECT * FROM jobs WHERE ended IS NOT NULL ORDER BY ended DESC, id DESC LIMIT ?", (limit,)
            ).fetchall()
        return tuple(map(_info, live + past))

    def tick(self) -> None:
        """One scheduling pass."""
        schedule.run(self._spool, self.limits)

    def is_ready(self) -> bool:
        """True if the queue exists and knows its limits."""
        if not (self.spool / "queue.sqlite").exists():
            return False
        with index.reading(self._spool) as db:
            return index.limits(db) is not None

    @property
    def _spool(self) -> Path:
        return self.spool.absolute()

    def _pass(self) -> None:
        """A pass as a courtesy: what was asked for does not depend on it."""
        try:
            schedule.run(self._spool, self.limits, wait=3)
        except JobError as e:
            _log.warning("%s", e)

    def _mark_cancelled(self, ids: Iterable[JobId]) -> JobError | None:
        """Take these jobs out of the queue; those that run are noted. The error, if this could not be stored:
        with a full disk what runs can be ended all the same."""
        wanted = json.dumps(list(ids))
        try:
            with turn(self._spool, "schedule.lock"), index.writing(self._spool) as db:
                db.execute(
                    "UPDATE jobs SET state = 'CANCELLED', reason = 'cancelled before it started', ended = ?"
                    " WHERE state = 'QUEUED' AND id IN (SELECT value FROM json_each(?))",
                    (time.time(), wanted),
                )
                db.execute(
                    "UPDATE jobs SET cancelling = 1"
                    " WHERE state = 'RUNNING' AND id IN (SELECT value FROM json_each(?))",
                    (wanted,),
                )
        except JobError as e:
            return e
        return None

    def _in_state(self, state: JobState, ids: Iterable[JobId]) -> tuple[JobId, ...]:
        with index.reading(self._spool) as db:
            return tuple(row["id"] for row in index.rows(db, ids) if row["state"] == state)

    def _is_gone(self, job: JobId) -> bool:
        outcome = schedule.folder_of(self._spool, job).read("outcome.json")
        return not outcome.get("left") if outcome else not self._in_state(JobState.RUNNING, (job,))


def _ask_to_end(folder: JobFolder) -> bool:
    claim = folder.read("claim.json")  # absent for a moment while the supervisor starts
    if claim is None:
        return False
    processes.send(claim["pid"], claim["start"], CANCEL)
    processes.send(claim["pid"], claim["start"], signal.SIGCONT)
    return True


def _find(db: sqlite3.Connection, key: str) -> JobId | None:
    row = db.execute("SELECT id FROM jobs WHERE key = ?", (index.key_bytes(key),)).fetchone()
    return row["id"] if row else None


def _insert(db: sqlite3.Connection, spec: JobSpec, key: str, limits: Limits) -> JobId:
    limits.check(spec.cpus, spec.memory_gb)
    queued = db.execute("SELECT count(*) FROM jobs WHERE ended IS NULL AND state = 'QUEUED'").fetchone()[0]
    if queued >= limits.max_queued:
        raise QueueFull(
            f"{queued} jobs are waiting, and no more may. Try again when some of them have ended."
        )
    inherited = {k: v for k, v in os.environ.items() if _INHERITED.fullmatch(k)}
    cursor = db.execute(
        "INSERT INTO jobs (key, token, spec, cpus, memory_gb, submitted) VALUES (?, ?, ?, ?, ?, ?)",
        (
            index.key_bytes(key),
            os.urandom(16).hex(),
            json.dumps(
                {
                    "argv": spec.argv,
                    "cwd": str(spec.cwd),
                    "name": spec.name,
                    "owner": spec.owner,
                    "hours": spec.hours,
                    "env": inherited | dict(spec.env),
                    "stdout": spec.stdout and str(spec.cwd / spec.stdout),
                    "stderr": spec.stderr and str(spec.cwd / spec.stderr),
                }
            ),
            spec.cpus,
            spec.memory_gb,
            time.time(),
        ),
    )
    assert cursor.lastrowid  # noqa: S101 - sqlite sets it on each insert
    return JobId(cursor.lastrowid)


def _status(row: sqlite3.Row) -> JobStatus:
    return JobStatus(
        JobState(row["state"]),
        row["exit_code"],
        row["reason"],
        _time(row["submitted"]),
        _time(row["started"]),
        _time(row["ended"]),
    )


def _time(seconds: float | None) -> datetime | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC)


def _info(row: sqlite3.Row) -> JobInfo:
    spec = json.loads(row["spec"])
    return JobInfo(row["id"], spec["name"], spec["owner"], row["cpus"], row["memory_gb"], _status(row))


def _tail(path: Path, size: int) -> str:
    """The last bytes of a file as text; nothing if it does not exist (yet)."""
    try:
        with path.open("rb") as f:
            f.seek(max(0, f.seek(0, os.SEEK_END) - size))
            return f.read(size).decode(errors="replace")
    except OSError:
        return ""
