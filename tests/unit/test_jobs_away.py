"""Jobs for another site: never started here, the broker says what becomes of them."""

import threading
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest

from scipion_cloud.errors import JobError
from scipion_cloud.jobs import JobSpec, JobState, Limits, LocalBackend, away
from scipion_cloud.jobs.away import Away


@pytest.fixture
def backend(tmp_path: Path) -> LocalBackend:
    return LocalBackend(tmp_path / "jobs", Limits(cpus=1, memory_gb=1.0))


SPEC = JobSpec(
    ("run", "it"), Path("/p"), "name", 64, 3, 2, 500.0, 5.0, 7.0, {"A": "b"}, owner="me", site="far",
    parcel={"root": "/p", "needs": ["a"]},
)  # fmt: skip


def test_life_of_a_job_elsewhere(backend: LocalBackend) -> None:
    job = backend.submit(SPEC, "a")
    assert backend.submit(SPEC, "a") == job
    side = Away(backend.spool)
    (there,) = side.live()
    assert (there.id, there.spec, there.state, there.cancelling) == (job, SPEC, JobState.QUEUED, False)
    side.queued(job, "its files are on their way")
    assert backend.status([job])[job].reason == "its files are on their way"
    began = datetime(2099, 1, 1, tzinfo=UTC)
    side.running(job, began)
    assert backend.status([job])[job].started == began
    (info,) = backend.list()
    assert (info.site, info.tasks, info.gpus) == ("far", 3, 2)
    side.finish(job, JobState.FAILED, 3, "ended with exit code 3")
    side.running(job)
    side.finish(job, JobState.DONE, 0)
    status = backend.status([job])[job]
    assert (status.state, status.exit_code) == (JobState.FAILED, 3)
    assert side.live() == []


def test_jobs_of_here_are_not_the_brokers(backend: LocalBackend, tmp_path: Path) -> None:
    job = backend.submit(JobSpec(("sleep", "1000"), tmp_path, memory_gb=0.1), "a")
    Away(backend.spool).finish(job, JobState.DONE, 0)
    assert not backend.status([job])[job].state.is_final
    backend.cancel([job])


def test_cancel_waits_for_the_broker(backend: LocalBackend) -> None:
    job = backend.submit(SPEC, "a")
    side = Away(backend.spool)

    def broker() -> None:
        while not (live := side.live())[0].cancelling:
            time.sleep(0.05)
        side.finish(live[0].id, JobState.CANCELLED, None, "cancelled")

    thread = threading.Thread(target=broker)
    thread.start()
    backend.cancel([job])
    thread.join()
    assert backend.status([job])[job].state is JobState.CANCELLED


def test_cancel_without_a_broker_says_so(backend: LocalBackend, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(away, "_PATIENCE", -7.0)
    job = backend.submit(SPEC, "a")
    with pytest.raises(JobError, match="far"):
        backend.cancel([job])
    assert Away(backend.spool).live()[0].cancelling
