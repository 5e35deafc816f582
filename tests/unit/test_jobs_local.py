"""The local batch system's own promises: bounds, limits, a full disk, a lost index."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scipion_cloud.config import Config
from scipion_cloud.errors import InvalidInput, JobError, JobRefused, QueueFull
from scipion_cloud.jobs import JobSpec, JobState, Limits, LocalBackend, backend_for, index, rows
from scipion_cloud.jobs.schedule import choose
from scipion_cloud.testing.job_backend import sh, wait_for, wait_running


@pytest.fixture
def backend(tmp_path: Path) -> Iterator[LocalBackend]:
    backend = LocalBackend(tmp_path / "jobs", Limits(cpus=1, memory_gb=1.0, max_queued=2))
    yield backend
    backend.cancel(info.id for info in backend.list())


def test_queue_is_bounded(backend: LocalBackend, tmp_path: Path) -> None:
    jobs = [backend.submit(sh("sleep 1000", tmp_path), f"{n}") for n in range(3)]
    with pytest.raises(QueueFull, match="2 jobs are waiting"):
        backend.submit(sh("true", tmp_path), "one more")
    assert backend.find("one more") is None
    assert backend.submit(sh("true", tmp_path), "2") == jobs[2]
    backend.cancel(jobs[:1])
    wait_running(backend, jobs[1])
    assert backend.submit(sh("true", tmp_path), "one more") > jobs[2]


def test_limits_lowered_below_a_waiting_job(backend: LocalBackend, tmp_path: Path) -> None:
    wide = LocalBackend(backend.spool, Limits(cpus=4, memory_gb=1.0))
    first = wide.submit(sh("sleep 1000", tmp_path, cpus=4), "a")
    big, small = wide.submit(sh("true", tmp_path, cpus=3), "b"), wide.submit(sh("true", tmp_path), "c")
    backend.tick()
    backend.cancel([first])
    refused, passed = wait_for(backend, big, small)
    assert refused.state is JobState.FAILED
    assert "asks for 3 CPUs" in refused.reason
    assert passed.state is JobState.DONE


def test_limits_are_remembered(backend: LocalBackend, tmp_path: Path) -> None:
    stranger = LocalBackend(backend.spool)
    assert not stranger.is_ready()
    backend.tick()
    assert stranger.is_ready()
    with pytest.raises(JobRefused, match="jobs on this machine have 1"):
        stranger.submit(sh("true", tmp_path, cpus=2), "a")


def test_configured(tmp_path: Path) -> None:
    backend = backend_for(Config(home=tmp_path, cpus=3, memory_gb=5, max_queued=7))
    assert backend == LocalBackend(tmp_path / "jobs", Limits(3, 5.0, 7))


def test_limits_of_the_machine() -> None:
    limits = Limits.of_machine()
    physical = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30
    assert 1 <= limits.cpus <= (os.cpu_count() or 1)
    assert 0 < limits.memory_gb <= 0.9 * physical


def test_full_disk(backend: LocalBackend, tmp_path: Path) -> None:
    """No byte more can be written: a clear error and no half job; what runs can still be cancelled."""
    running = backend.submit(sh("sleep 1000", tmp_path), "a")
    wait_running(backend, running)
    code = """
import resource, sys
from pathlib import Path
from scipion_cloud.errors import JobError
from scipion_cloud.jobs import JobSpec, LocalBackend
backend = LocalBackend(Path(sys.argv[1]))
resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
print(backend.status([1])[1].state)
backend.cancel([1])
try:
    backend.submit(JobSpec(("true",), Path("/")), "b")
except JobError as e:
    print(e)
"""
    answer = subprocess.run(
        [sys.executable, "-c", code, str(backend.spool)], capture_output=True, text=True, check=True
    ).stdout
    assert "RUNNING" in answer
    assert "Is its disk full" in answer
    assert backend.find("b") is None
    assert backend.status([running])[running].state is JobState.CANCELLED
    assert wait_for(backend, backend.submit(sh("true", tmp_path), "b"))[0].state is JobState.DONE


def test_job_waits_while_the_disk_is_full(backend: LocalBackend, tmp_path: Path) -> None:
    (tmp_path / "jobs").mkdir()
    blocker = tmp_path / "jobs" / "1"
    blocker.write_text("in the way of the job's folder, as a full disk would be")
    with index.writing(backend.spool) as db:
        db.execute("UPDATE sqlite_sequence SET seq = 0")
    job = backend.submit(sh("true", tmp_path), "a")
    assert backend.status([job])[job].state is JobState.QUEUED
    blocker.unlink()
    assert wait_for(backend, job)[0].state is JobState.DONE


def test_lost_index_gives_no_id_twice(backend: LocalBackend, tmp_path: Path) -> None:
    job = backend.submit(sh("exit 7", tmp_path), "a")
    wait_for(backend, job)
    for path in backend.spool.glob("queue.sqlite*"):
        path.unlink()
    assert backend.status([job])[job].state is JobState.UNKNOWN
    again = backend.submit(sh("true", tmp_path), "a")
    assert again > job
    assert wait_for(backend, again)[0].state is JobState.DONE


def test_newer_index_is_refused(backend: LocalBackend) -> None:
    backend.tick()
    with index.writing(backend.spool) as db:
        db.execute("PRAGMA user_version = 99")
    with pytest.raises(JobError, match="newer"):
        backend.find("a")
    (backend.spool / "queue.sqlite").unlink()  # or the fixture could not tidy up


def test_spool_is_private(backend: LocalBackend) -> None:
    backend.tick()
    assert backend.spool.stat().st_mode & 0o077 == 0


@pytest.mark.parametrize(
    "fields",
    [
        {"argv": ()},
        {"argv": ("",)},
        {"argv": ("a\0b",)},
        {"argv": ("\ud800",)},
        {"cwd": Path("relative")},
        {"cpus": -1},
        {"memory_gb": 0.0},
        {"memory_gb": float("nan")},
        {"hours": 0.0},
        {"hours": float("inf")},
        {"env": {"": "a"}},
        {"env": {"A=B": "c"}},
        {"env": {"A": "b\0"}},
        {"stdout": Path("a\0b")},
    ],
)
def test_impossible_specs(fields: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput):
        JobSpec(**{"argv": ("true",), "cwd": Path("/"), **fields})


row = st.fixed_dictionaries(
    {"cpus": st.integers(1, 8), "memory_gb": st.floats(0.1, 8), "gpus": st.integers(0, 2)}
)


@given(st.lists(row, max_size=12), st.integers(0, 8), st.floats(0, 8), st.integers(0, 3))
def test_choice_is_the_longest_head_that_fits(
    waiting: list[dict[str, float]], cpus: int, memory: float, gpus: int
) -> None:
    chosen = choose(waiting, cpus, memory, gpus)
    assert chosen == waiting[: len(chosen)]

    def needs(jobs: list[dict[str, float]], what: str) -> float:
        return sum(job[what] for job in jobs)

    def fits(jobs: list[dict[str, float]], slack: float) -> bool:
        return (
            needs(jobs, "cpus") <= cpus
            and needs(jobs, "memory_gb") <= memory + slack
            and needs(jobs, "gpus") <= gpus
        )

    assert fits(chosen, 1e-6)
    if len(chosen) < len(waiting):
        assert not fits(waiting[: len(chosen) + 1], -1e-6)


@given(
    st.text(alphabet=st.characters(exclude_categories=())),
    st.text(alphabet=st.characters(exclude_categories=())),
)
def test_keys_stay_different(one: str, other: str) -> None:
    assert (rows.key_bytes(one) == rows.key_bytes(other)) == (one == other)
