"""The contract on a real Slurm, and what only a batch system can do."""

import os
import pickle
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from scipion_cloud.cluster.private import PrivateSlurm
from scipion_cloud.errors import JobError
from scipion_cloud.jobs import BatchBackend, JobId, JobSpec, JobState, look
from scipion_cloud.jobs.batch_system import Seen
from scipion_cloud.jobs.slurm import Slurm
from scipion_cloud.testing.job_backend import (
    JobBackendContract,
    is_alive,
    sh,
    wait_file,
    wait_for,
    wait_running,
    wait_until,
)
from scipion_cloud.testing.servers.slurm import slurm


@pytest.fixture(scope="module")
def cluster() -> Iterator[PrivateSlurm]:
    with slurm(gpus=2) as running:
        yield running


@pytest.fixture
def backend(cluster: PrivateSlurm, tmp_path_factory: pytest.TempPathFactory) -> Iterator[BatchBackend]:
    backend = BatchBackend(tmp_path_factory.mktemp("it's a\nspool") / "jobs", cluster.system, lost_after=2.0)
    yield backend
    backend.cancel(info.id for info in backend.list())


class TestSlurm(JobBackendContract):
    @pytest.fixture
    def backend(self, backend: BatchBackend) -> BatchBackend:
        return backend


def batch_ids(backend: BatchBackend) -> list[str]:
    """Slurm's ids of the jobs that live."""
    return [seen.id for seen in backend.system.jobs() if not seen.state.is_final]


DIES = """
import os, pickle, sys
backend, jobs, last = pickle.load(sys.stdin.buffer)
calls = 0
def count(frame, event, arg):
    global calls
    calls += event == "c_call"
    if calls == last:
        os.killpg(0, 9)  # with sbatch, if it runs
backend.find("x")  # loads what is loaded lazily
sys.setprofile(count)
backend.submit_all(jobs)
sys.setprofile(None)
print(calls)
"""


def submit_and_die(
    backend: BatchBackend, jobs: list[tuple[JobSpec, str]], last: int
) -> "subprocess.Popen[bytes]":
    """A process that submits, and kills itself just before its n-th call into C (the system, SQLite)."""
    with tempfile.TemporaryFile() as message:
        pickle.dump((backend, jobs, last), message)
        message.seek(0)
        return subprocess.Popen(
            [sys.executable, "-c", DIES], stdin=message, stdout=subprocess.PIPE, start_new_session=True
        )


def test_submitter_killed_at_any_instant(backend: BatchBackend, tmp_path: Path) -> None:
    def jobs(n: int) -> list[tuple[JobSpec, str]]:
        return [(sh(f"echo {n} {m} >> marks", tmp_path), f"{n} {m}") for m in range(2)]

    for warm in (-2, -1):  # the first one has more to do
        calls = int(submit_and_die(backend, jobs(warm), -1).communicate()[0])
    instants = [1 + calls * n // 10 for n in range(10)]
    dying = []
    for n in instants:
        dying.append(submit_and_die(backend, jobs(n), n))
        dying[-1].communicate()
    assert sum(process.returncode == -signal.SIGKILL for process in dying) > len(instants) / 2
    ids = [job for n in (-2, -1, *instants) for job in backend.submit_all(jobs(n))]
    assert {status.state for status in wait_for(backend, *ids)} == {JobState.DONE}
    ran = (tmp_path / "marks").read_text().splitlines()
    assert sorted(ran) == sorted(f"{n} {m}" for n in (-2, -1, *instants) for m in range(2))


@pytest.mark.parametrize("late", [False, True], ids=["unheard", "taken"])
def test_sbatch_that_hangs(
    backend: BatchBackend, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, late: bool
) -> None:
    """The submitter is killed while sbatch runs, which has or has not been heard: one job all the same."""
    real = os.environ["PATH"]
    (tmp_path / "bin").mkdir()
    hang = tmp_path / "bin" / "sbatch"
    first = 'sbatch "$@"' if late else ":"
    hang.write_text(f"#!/bin/sh\nPATH={real}\n{first}\necho > {tmp_path}/in\nexec sleep 1000\n")
    hang.chmod(0o755)
    with monkeypatch.context() as patch:
        patch.setenv("PATH", f"{tmp_path}/bin:{real}")
        process = submit_and_die(backend, [(sh("echo ran >> marks; sleep 1", tmp_path), "a")], -1)
        wait_file(tmp_path / "in")
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
    job = backend.find("a")
    assert job
    (status,) = wait_for(backend, job)
    assert status.state is JobState.DONE
    assert (tmp_path / "marks").read_text() == "ran\n"
    assert len([seen for seen in backend.system.jobs() if seen.name == name_of(backend, job)]) == 1


def name_of(backend: BatchBackend, job: JobId) -> str:
    """A job's name in Slurm: its script has it too."""
    (script,) = backend.folder(job).path.glob("*.sh")
    return script.stem


def test_second_batch_job_of_a_name_does_nothing(
    backend: BatchBackend, cluster: PrivateSlurm, tmp_path: Path
) -> None:
    """As if a request that was thought lost had arrived after all."""
    job = backend.submit(sh("echo ran >> marks; sleep 2", tmp_path), "a")
    name = name_of(backend, job)
    script = (backend.folder(job).path / f"{name}.sh").read_text()
    export = 'export SCIPION_CLOUD_INDEX=0 SCIPION_CLOUD_RESTARTS=0 SCIPION_CLOUD_BATCH="$SLURM_JOB_ID"\n'
    cluster.run("sbatch", "-J", name, "-o", "/dev/null", "--wrap", export + script)
    (status,) = wait_for(backend, job)
    assert status.state is JobState.DONE
    wait_until_quiet(backend)
    assert (tmp_path / "marks").read_text() == "ran\n"


def wait_until_quiet(backend: BatchBackend) -> None:
    """Wait until Slurm runs nothing."""
    deadline = time.monotonic() + 120
    while batch_ids(backend):
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_requeued_job_goes_on_and_the_old_one_ends(
    backend: BatchBackend, cluster: PrivateSlurm, tmp_path: Path
) -> None:
    """Slurm gives a node up that lives on: the copy there notices, and ends its program."""
    script = "trap '' TERM; echo $$ >> pids; while [ ! -e end ]; do sleep 0.1; done"
    job = backend.submit(sh(script, tmp_path, resumable=True, grace=1000), "a")
    first = int(wait_file(tmp_path / "pids"))
    claim = backend.folder(job).path / "claim.json"
    newer = claim.read_text().replace('"restarts": 0', '"restarts": 1')
    (claim.parent / "newer").write_text(newer)
    (claim.parent / "newer").replace(claim)
    deadline = time.monotonic() + 120
    while is_alive(first):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    (tmp_path / "end").touch()
    (status,) = wait_for(backend, job)  # lost by Slurm's account, and sent again
    assert status.state is JobState.DONE
    assert len((tmp_path / "pids").read_text().split()) == 2


def test_silence_is_not_the_end(
    backend: BatchBackend, cluster: PrivateSlurm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without an answer nothing changes, and what ends is noticed all the same; jobs are taken, and kept."""
    monkeypatch.setattr(look, "UNHEARD", 0.5)
    running = backend.submit(sh("while [ ! -e end ]; do sleep 0.1; done", tmp_path), "a")
    wait_running(backend, running)
    conf = tmp_path / "slurm.conf"  # of a controller that is not there
    text = re.sub(r"(?m)^(MessageTimeout|TCPTimeout|SlurmctldPort)=.*", "", cluster.conf.read_text())
    conf.write_text(f"{text}\nSlurmctldPort=1\nMessageTimeout=1\nTCPTimeout=1\n")
    dead = BatchBackend(backend.spool, Slurm(conf), lost_after=0.0, poll=0.05)
    late = dead.submit(sh("true", tmp_path), "b")
    for _ in range(2):
        states = dead.status([running, late])
        assert [states[running].state, states[late].state] == [JobState.RUNNING, JobState.QUEUED]
    with pytest.raises(JobError):
        dead.system.jobs()
    (tmp_path / "end").touch()
    assert wait_for(dead, running)[0].state is JobState.DONE
    backend.tick()
    assert wait_for(backend, late)[0].state is JobState.DONE


def test_forgotten_jobs(backend: BatchBackend, cluster: PrivateSlurm, tmp_path: Path) -> None:
    """Slurm lost its state: what never started is sent again, what ran is lost and does not live on."""
    running, waiting = (
        backend.submit(sh(f"echo $$ >> {name}; exec sleep 1000", tmp_path, cpus=2), name) for name in "ab"
    )
    pid = int(wait_file(tmp_path / "a"))
    wait_running(backend, running)
    other = BatchBackend(backend.spool, Forgetful(cluster.conf), lost_after=0.5, poll=0.05)
    (lost,) = wait_for(other, running)
    assert lost.state is JobState.FAILED
    assert "forgotten" in lost.reason
    deadline = time.monotonic() + 120
    while is_alive(pid):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    wait_running(backend, waiting)
    assert len(wait_file(tmp_path / "b").split()) == 1


class Forgetful(Slurm):
    """Remembers nothing of its jobs."""

    def jobs(self) -> list[Seen]:
        return []


def test_reasons(backend: BatchBackend, cluster: PrivateSlurm, tmp_path: Path) -> None:
    """What an administrator does is told to people."""
    big = backend.submit(sh("sleep 1000", tmp_path, cpus=2), "a")
    waiting = backend.submit(sh("true", tmp_path), "b")
    wait_running(backend, big)
    (status,) = wait_until(backend, [waiting], lambda s: "waits for" in s.reason, 120)
    assert status.state is JobState.QUEUED
    cluster.run("scancel", *batch_ids(backend))
    stopped, dropped = wait_for(backend, big, waiting)
    assert (stopped.state, dropped.state) == (JobState.FAILED, JobState.FAILED)
    assert "stopped from outside" in stopped.reason or "cancelled in Slurm" in stopped.reason
    assert "cancelled in Slurm" in dropped.reason


def test_really_asked_for(backend: BatchBackend, cluster: PrivateSlurm, tmp_path: Path) -> None:
    spec = sh("echo $CUDA_VISIBLE_DEVICES; sleep 1000", tmp_path, cpus=2, memory_gb=0.5, hours=3, gpus=1)
    job = backend.submit(spec, "a")
    wait_running(backend, job)
    shown = cluster.run("scontrol", "show", "job", *batch_ids(backend))
    for words in ("NumCPUs=2", "mem=512M", "TimeLimit=03:02:00", "gres:gpu:1", "Requeue=0"):
        assert words in shown
    wait_until(backend, [job], lambda _: backend.logs(job).stdout == "0\n", 120)


def test_local_jobs_of_a_home_that_gets_slurm(
    backend: BatchBackend, cluster: PrivateSlurm, tmp_path: Path
) -> None:
    from scipion_cloud.jobs import Limits, LocalBackend

    local = LocalBackend(backend.spool, Limits(cpus=1, memory_gb=1.0))
    running = local.submit(sh("echo > on; sleep 1000", tmp_path), "a")
    waiting = local.submit(sh("echo $SLURM_JOB_ID", tmp_path), "b")
    wait_running(local, running)
    assert wait_for(backend, waiting)[0].state is JobState.DONE
    assert int(backend.logs(waiting).stdout) > 0
    assert backend.status([running])[running].state is JobState.RUNNING
    backend.cancel([running])
    assert backend.status([running])[running].state is JobState.CANCELLED
