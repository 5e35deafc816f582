"""What becomes of a batch job, from what is known of it: every case, without a batch system."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scipion_cloud.jobs.batch_system import Seen
from scipion_cloud.jobs.claim import Claim
from scipion_cloud.jobs.judge import SETTLING, Known, Shown, judge, pick
from scipion_cloud.jobs.spec import JobState

CLAIM = Claim("7", time=50.0)
OUTCOME = {"state": "DONE", "exit_code": 0, "reason": "", "time": 60.0}
NOW, LOST = 1000.0, 60.0

waits = Known(JobState.QUEUED, False, None, True, None, None)
runs = Known(JobState.RUNNING, False, None, True, CLAIM, None)


def seen(state: str, **fields: Any) -> Seen:
    return Seen(**{"id": "7", "name": "sc-1", "index": 0, "state": JobState(state), **fields})


known = st.builds(
    Known,
    st.sampled_from([JobState.QUEUED, JobState.RUNNING]),
    st.booleans(),
    st.none() | st.floats(0, NOW),
    st.booleans(),
    st.none() | st.just(CLAIM),
    st.none(),
    st.booleans(),
)
shown = st.sampled_from([*Shown, *(seen(state) for state in JobState)])


@given(known)
def test_silence_ends_nothing(job: Known) -> None:
    assert not judge(job, Shown.NOT_ASKED, NOW, LOST).state.is_final


@given(known, shown)
def test_an_outcome_is_believed_first(job: Known, now_shown: Seen | Shown) -> None:
    verdict = judge(replace(job, claim=CLAIM, outcome=OUTCOME), now_shown, NOW, LOST)
    assert (verdict.state, verdict.exit_code, verdict.ended) == (JobState.DONE, 0, 60.0)
    assert not verdict.revoke
    assert not verdict.resend


@given(known, shown)
def test_without_an_outcome_nothing_is_done(job: Known, now_shown: Seen | Shown) -> None:
    """And before a job is given up or sent again, its claim is taken away."""
    verdict = judge(job, now_shown, NOW, LOST)
    assert verdict.state is not JobState.DONE
    assert verdict.revoke == verdict.state.is_final
    if verdict.resend:
        assert job.claim is None or job.resumable
        assert not job.cancelling


@pytest.mark.parametrize("state", ["DONE", "FAILED"])
def test_an_outcome_has_time_to_appear(state: str) -> None:
    first = judge(runs, seen(state, reason="it burned"), NOW, LOST)
    assert (first.state, first.missing) == (JobState.RUNNING, NOW)
    later = replace(runs, missing=NOW)
    assert judge(later, seen(state), NOW + SETTLING / 2, LOST).state is JobState.RUNNING
    final = judge(later, seen(state, reason="it burned"), NOW + SETTLING, LOST)
    assert (final.state, final.reason) == (JobState.FAILED, "it burned")


def test_forgotten() -> None:
    missing = replace(runs, missing=NOW)
    assert judge(missing, Shown.MISSING, NOW + LOST / 2, LOST).state is JobState.RUNNING
    assert judge(missing, Shown.MISSING, NOW + LOST, LOST).state is JobState.FAILED
    assert judge(replace(waits, missing=NOW), Shown.MISSING, NOW + LOST, LOST).resend
    assert judge(replace(missing, resumable=True), Shown.MISSING, NOW + LOST, LOST).resend
    assert judge(replace(missing, cancelling=True), Shown.MISSING, NOW + LOST, LOST).state is (
        JobState.CANCELLED
    )
    assert judge(missing, seen("RUNNING"), NOW + LOST, LOST).missing is None


def test_requeued_waits_again() -> None:
    assert judge(runs, seen("QUEUED"), NOW, LOST).state is JobState.QUEUED
    assert judge(replace(runs, state=JobState.QUEUED), seen("QUEUED"), NOW, LOST).state is JobState.RUNNING


def test_what_was_revoked_has_ended() -> None:
    revoked = replace(waits, claim=Claim("", reason="the batch system has forgotten it", time=40.0))
    verdict = judge(revoked, seen("RUNNING"), NOW, LOST)
    assert (verdict.state, verdict.ended) == (JobState.FAILED, 40.0)


def test_the_one_with_the_claim_is_the_job() -> None:
    other, mine = seen("RUNNING", id="6"), seen("DONE")
    assert pick([other, mine], CLAIM) is mine
    assert pick([mine, other], None) is other
    assert pick([], CLAIM) is None
