"""The contract on a real Grid Engine: a batch system is one small file."""

import pickle
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from scipion_cloud.errors import ConfigError, JobError
from scipion_cloud.jobs import JobState
from scipion_cloud.jobs.batch import BatchBackend
from scipion_cloud.jobs.batch_system import PREFIX, Ask, NoAnswer, Seen
from scipion_cloud.jobs.sge import GridEngine
from scipion_cloud.jobs.systems import batch_system
from scipion_cloud.testing.job_backend import JobBackendContract, sh, wait_file, wait_for
from scipion_cloud.testing.servers.gridengine import grid_engine


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GridEngine]:
    with grid_engine(tmp_path_factory.mktemp("sge") / "cell", gpus=2) as options:
        system = batch_system("sge", {**options, "gpus": "2"})
        assert isinstance(system, GridEngine)
        yield system


@pytest.fixture
def backend(system: GridEngine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[BatchBackend]:
    backend = BatchBackend(tmp_path_factory.mktemp("it's a\nspool") / "jobs", system, poll=0.5)
    yield backend
    backend.cancel(info.id for info in backend.list())


class TestGridEngine(JobBackendContract):
    tells_gpus = False  # it counts them, and leaves it to jobs to find out

    @pytest.fixture
    def backend(self, backend: BatchBackend) -> BatchBackend:
        return backend


# --- what Grid Engine is asked for


def ask(folder: Path, name: str, script: str, **fields: Any) -> Ask:
    path = folder / "it's a script"
    path.write_text(script)
    return replace(Ask(PREFIX + name, path, folder, memory_gb=0.1), **fields)


def ours(system: GridEngine, name: str) -> dict[str, Seen]:
    return {job.id: job for job in system.jobs() if job.name == PREFIX + name}


def wait_state(system: GridEngine, name: str, state: JobState, count: int = 1) -> dict[str, Seen]:
    """Wait until so many jobs of this name are in this state."""
    deadline = time.monotonic() + 240
    while True:
        found = ours(system, name)
        chosen = {ident: job for ident, job in found.items() if job.state is state}
        if len(chosen) == count:
            return chosen
        assert time.monotonic() < deadline, f"still waiting for {found}"
        time.sleep(0.1)


def test_nodes_and_limits(system: GridEngine) -> None:
    (node,) = system.nodes()
    assert (node.name, node.cpus) == ("localhost", 2)
    assert node.memory_gb > 0.5
    limits = system.limits()
    assert (limits.cpus, limits.gpus) == (2, 2)
    with pytest.raises(JobError, match="no-such-queue"):
        replace(system, queue="no-such-queue").limits()


def test_array(system: GridEngine, tmp_path: Path) -> None:
    script = f'echo "$SCIPION_CLOUD_INDEX $SCIPION_CLOUD_BATCH" >> {tmp_path}/marks'
    job = system.submit(ask(tmp_path, "a1", script, count=3))
    wait_state(system, "a1", JobState.DONE, 3)
    lines = sorted((tmp_path / "marks").read_text().splitlines())
    assert lines == [f"{n} {job}.{n + 1}" for n in range(3)]
    assert set(ours(system, "a1")) == {f"{job}.{n}" for n in (1, 2, 3)}


def test_slots_memory_time_and_gpus_are_really_asked_for(system: GridEngine, tmp_path: Path) -> None:
    script = f'echo "$NSLOTS" "$PE" > {tmp_path}/mark; sleep 1000'
    first = system.submit(ask(tmp_path, "b1", script, cpus=1, tasks=2, memory_gb=1.5, gpus=2, hours=1))
    wait_state(system, "b1", JobState.RUNNING)
    assert wait_file(tmp_path / "mark") == "2 mpi\n"
    detail = system._run("qstat", ["-j", first])
    assert "h_rt=3600" in detail
    assert "mem_free=768M" in detail
    # interactive jobs have a queue of their own, but not a memory and GPUs of their own
    waits = [
        system.submit(ask(tmp_path, "b2", "exit 0", cpus=0, memory_gb=1.0)),
        system.submit(ask(tmp_path, "b3", "exit 0", cpus=0, gpus=1)),
    ]
    system.submit(ask(tmp_path, "b4", "exit 0", cpus=0))
    wait_state(system, "b4", JobState.DONE)
    for job, name in zip(waits, ("b2", "b3"), strict=True):
        assert ours(system, name)[job].state is JobState.QUEUED
    system.kill([first])
    wait_state(system, "b2", JobState.DONE)
    wait_state(system, "b3", JobState.DONE)


def test_drop_takes_only_what_waits(system: GridEngine, tmp_path: Path) -> None:
    running = system.submit(ask(tmp_path, "c1", "sleep 1000", cpus=2))
    wait_state(system, "c1", JobState.RUNNING)
    waiting = system.submit(ask(tmp_path, "c2", "sleep 1000", cpus=2, count=2))
    wait_state(system, "c2", JobState.QUEUED, 2)
    system.drop([running, f"{waiting}.1", "987654"])
    wait_state(system, "c2", JobState.QUEUED)
    assert ours(system, "c1")[running].state is JobState.RUNNING
    system.kill([running, f"{waiting}.1", f"{waiting}.2", "987654"])
    wait_state(system, "c1", JobState.DONE)
    wait_state(system, "c2", JobState.DONE, 2)


def test_refusals_and_silence(system: GridEngine, tmp_path: Path) -> None:
    with pytest.raises(JobError, match="no-such-queue") as refused:
        replace(system, queue="no-such-queue").submit(ask(tmp_path, "d1", "exit 0"))
    assert not isinstance(refused.value, NoAnswer)
    assert not ours(system, "d1")
    with pytest.raises(NoAnswer):
        replace(system, qmaster_port="1").jobs()
    with pytest.raises(NoAnswer):
        replace(system, qmaster_port="1").submit(ask(tmp_path, "d2", "exit 0"))
    with pytest.raises(JobError, match="Install"):
        replace(system, commands="/no/such/folder").jobs()


def test_options() -> None:
    system = GridEngine.from_options({"partition": "work", "gpus": "2"})
    assert (system.queue, system.gpus) == ("work", "2")
    assert pickle.loads(pickle.dumps(system)) == system  # noqa: S301
    with pytest.raises(ConfigError, match="no_such"):
        GridEngine.from_options({"no_such": "option"})
    with pytest.raises(ConfigError, match="number"):
        GridEngine.from_options({"gpus": "many"})


def test_equal_jobs_become_one_array(backend: BatchBackend, system: GridEngine, tmp_path: Path) -> None:
    before = {job.id.partition(".")[0] for job in system.jobs()}
    jobs = [(sh(f"echo {n} >> marks", tmp_path), f"{n}") for n in range(6)]
    ids = backend.submit_all(jobs)
    assert {status.state for status in wait_for(backend, *ids)} == {JobState.DONE}
    assert sorted((tmp_path / "marks").read_text().split()) == list("012345")
    assert len({job.id.partition(".")[0] for job in system.jobs()} - before) == 1
