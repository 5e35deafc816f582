"""What becomes of a job, from all that is known of it: pure, no I/O.

The folder is believed first: a claim proves that the job was started, an outcome that it has ended. What the
batch system says comes second, and only if it says something: silence changes nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

from scipion_cloud.jobs.batch_system import Seen
from scipion_cloud.jobs.claim import Claim
from scipion_cloud.jobs.spec import JobState

SETTLING = 3.0  # seconds for an outcome to appear on a shared file system


class Shown(Enum):
    """Whether the batch system shows a job, apart from what it shows."""

    NOT_ASKED = 1
    MISSING = 2


@dataclass(frozen=True)
class Known:
    """The row of a job and its folder."""

    state: JobState
    cancelling: bool
    missing: float | None  # since when the batch system says otherwise than the folder, seconds since 1970
    folder: bool  # False if it is gone
    claim: Claim | None
    outcome: dict[str, Any] | None  # of that claim
    resumable: bool = False


@dataclass(frozen=True)
class Verdict:
    """The job's state from now on.

    A final state with `revoke` holds once the claim has been revoked and no outcome has appeared meanwhile.
    """

    state: JobState
    reason: str = ""
    exit_code: int | None = None
    started: float | None = None
    ended: float | None = None
    missing: float | None = None
    revoke: bool = False
    resend: bool = False  # nobody has it any more, and it may be started (again)


def pick(shown: Sequence[Seen], claim: Claim | None) -> Seen | None:
    """Which of several batch jobs of one name is the job: the one with the claim, or the most alive."""
    order = (JobState.RUNNING, JobState.QUEUED)
    return min(
        shown,
        key=lambda s: (
            claim is None or s.id != claim.batch,
            order.index(s.state) if s.state in order else len(order),
        ),
        default=None,
    )


def judge(job: Known, shown: Seen | Shown, now: float, lost_after: float) -> Verdict:
    """The job's state at the time `now`; `lost_after` seconds of being forgotten make it lost."""
    claim = job.claim
    if claim and not claim.batch:  # revoked, by somebody who did not live to note it
        return _end(job, claim.reason, claim.time)
    if claim and job.outcome:
        outcome = job.outcome
        return Verdict(
            JobState(outcome["state"]), outcome["reason"], outcome["exit_code"], claim.time, outcome["time"]
        )
    if shown is Shown.NOT_ASKED:
        return Verdict(
            JobState.RUNNING if claim else job.state,
            started=claim.time if claim else None,
            missing=job.missing,
        )
    if not job.folder and job.state is JobState.RUNNING:
        return _end(job, "its folder was removed while it ran", now)
    if shown is Shown.MISSING:
        again = claim is None or job.resumable
        return _gone(job, "the batch system has forgotten it", now, lost_after, again)
    assert isinstance(shown, Seen)  # noqa: S101 - there is nothing else
    if shown.state is JobState.QUEUED and job.cancelling:
        return _end(job, "cancelled", now)
    if shown.state is JobState.QUEUED and claim and job.state is JobState.QUEUED:
        return Verdict(JobState.RUNNING, started=claim.time)  # it started after we had asked
    if shown.state is JobState.QUEUED:
        return Verdict(JobState.QUEUED, shown.reason)
    if shown.state.is_final:
        again = job.resumable and shown.state is not JobState.CANCELLED
        return _gone(job, shown.reason or "it ended without a word", now, SETTLING, again)
    if claim:
        return Verdict(JobState.RUNNING, started=claim.time)
    return Verdict(JobState.QUEUED, shown.reason or "it is being started")


def _gone(job: Known, reason: str, now: float, patience: float, again: bool) -> Verdict:
    """Nothing of it is left in the batch system: its outcome has `patience` seconds to appear."""
    since = job.missing if job.missing is not None else now
    if now - since < patience:
        return Verdict(job.state, started=job.claim.time if job.claim else None, missing=since)
    if again and not job.cancelling:
        return Verdict(JobState.QUEUED, f"it is sent again: {reason}", resend=True)
    return _end(job, reason, now)


def _end(job: Known, reason: str, now: float) -> Verdict:
    started = job.claim.time if job.claim and job.claim.batch else None
    if job.cancelling:
        return Verdict(JobState.CANCELLED, "cancelled", None, started, now, revoke=True)
    return Verdict(JobState.FAILED, reason, None, started, now, revoke=True)
