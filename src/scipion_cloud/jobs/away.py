"""Jobs of this queue that run elsewhere: they are the broker's, who reports here what becomes of them."""

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from scipion_cloud.errors import JobError
from scipion_cloud.jobs import index, rows
from scipion_cloud.jobs.spec import JobId, JobSpec, JobState

_PATIENCE = 30.0  # seconds for a broker that looks every few seconds, and for the way there


@dataclass(frozen=True)
class AwayJob:
    """A job for another site that has not ended."""

    id: JobId
    spec: JobSpec
    state: JobState  # QUEUED or RUNNING, as last reported
    cancelling: bool  # somebody wants it to end
    submitted: datetime


@dataclass(frozen=True)
class Away:
    """The broker's side of a queue. What has ended here stays as it is, whatever is reported later.

    Every method raises JobError when the queue cannot be used.
    """

    spool: Path

    def live(self) -> list[AwayJob]:
        """All jobs for other sites that have not ended, in the order of the queue."""
        with index.reading(self.spool) as db:
            found = db.execute("SELECT * FROM jobs WHERE ended IS NULL AND site != '' ORDER BY id").fetchall()
        return [
            AwayJob(
                row["id"],
                rows.spec_of(row),
                JobState(row["state"]),
                bool(row["cancelling"]),
                datetime.fromtimestamp(row["submitted"], UTC),
            )
            for row in found
        ]

    def queued(self, job: JobId, reason: str = "") -> None:
        """It waits, at the site or for its files, and why."""
        self._update(job, "state = 'QUEUED', reason = ?, started = NULL", reason)

    def running(self, job: JobId, started: datetime | None = None, reason: str = "") -> None:
        """It runs there, since then if that is known."""
        since = started.timestamp() if started else time.time()
        self._update(job, "state = 'RUNNING', reason = ?, started = max(?, submitted)", reason, since)

    def finish(self, job: JobId, state: JobState, exit_code: int | None = None, reason: str = "") -> None:
        """It has ended, and what it made is here. `state` is one that is final."""
        ending = {"state": state, "exit_code": exit_code, "reason": reason, "time": time.time()}
        with index.writing(self.spool) as db:
            if db.execute("SELECT 1 FROM jobs WHERE id = ? AND site != ''", (job,)).fetchone():
                rows.finish(db, job, ending)

    def _update(self, job: JobId, change: str, *values: object) -> None:
        query = f"UPDATE jobs SET {change} WHERE id = ? AND ended IS NULL AND site != ''"  # noqa: S608
        with index.writing(self.spool) as db:
            db.execute(query, (*values, job))


def wait_ended(spool: Path, jobs: Sequence[JobId]) -> None:
    """Wait until the broker has ended these jobs: their longest grace and half a minute at most.

    Raises JobError for what is left, which the broker ends as soon as it can.
    """
    deadline: float | None = None
    while jobs:
        with index.reading(spool) as db:
            left = db.execute(
                "SELECT * FROM jobs WHERE ended IS NULL AND id IN (SELECT value FROM json_each(?))",
                (json.dumps(jobs),),
            ).fetchall()
        if not left:
            return
        if deadline is None:
            deadline = time.monotonic() + max(rows.info(row).grace for row in left) + _PATIENCE
        elif time.monotonic() > deadline:
            raise JobError(
                f"Job {', '.join(str(row['id']) for row in left)} at {left[0]['site']} has been asked to "
                "end, but that site has not confirmed it yet. It is ended as soon as the site can be reached."
            )
        time.sleep(0.2)
