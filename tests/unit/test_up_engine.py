"""Which batch system `up` has the jobs of a home use: a real private Slurm, and the way between two."""

import os
import sys
import time
from collections.abc import Callable, Iterator

import pytest

from scipion_cloud.cli.engine import Engine
from scipion_cloud.cli.service import Service
from scipion_cloud.cluster import daemons
from scipion_cloud.cluster.private import PrivateSlurm
from scipion_cloud.config import Config
from scipion_cloud.errors import Conflict, SetupError
from scipion_cloud.jobs import JobSpec, backend_for
from scipion_cloud.jobs.spec import JobState
from scipion_cloud.jobs.systems import read_system
from scipion_cloud.provision.checks import Verdict, batch
from scipion_cloud.provision.supervisor import ChildSpec

SLEEP = [sys.executable, "-c", "import time; time.sleep(600)"]


def wait_for(condition: Callable[[], object], within: float = 120.0) -> None:
    deadline = time.monotonic() + within
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.05)


def quiet(_: str) -> None:
    """Nobody reads it."""


@pytest.fixture
def here(config: Config, free_port: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[Config]:
    for name in ("SCIPION_CLOUD_SOFTWARE", "DJANGO_SETTINGS_MODULE", "PYTHONUNBUFFERED"):
        monkeypatch.setenv(name, os.environ.get(name, ""))  # so that it is put back
    yield config.model_copy(update={"port": free_port, "memory_gb": 2.0})
    left = PrivateSlurm(config.home / "slurm")
    left.stop(grace=1)
    assert daemons.servers(left.conf) | daemons.workers(left.conf) == {}


def service(config: Config) -> Service:
    """With a small program in place of portal and controller."""
    (config.home / "logs").mkdir(exist_ok=True)
    portal = ChildSpec("portal", SLEEP, config.home / "portal.log")
    return Service(config, quiet, [portal], Engine.of(config, slurm=True))


def test_jobs_live_through_a_lost_up_and_keep_other_batch_systems_out(here: Config) -> None:
    first = service(here)
    first.start()
    assert read_system(here.jobs)[0] == "slurm"
    job = backend_for(here).submit(JobSpec(("sleep", "600"), here.home, memory_gb=0.1), "one")
    wait_for(lambda: backend_for(here).status([job])[job].state is JobState.RUNNING)
    (check,) = batch.examine(here)
    assert (check.verdict, check.name) == (Verdict.OK, "Slurm")
    assert "1 busy" in check.detail
    first.stop(quiet, end_work=False)  # all that a killed one leaves

    (check,) = batch.examine(here)
    assert check.verdict is Verdict.WARNING
    assert "up --slurm" in check.remedy
    with pytest.raises(Conflict, match=r"1 jobs .* in Slurm .*scipion-cloud up --slurm"):
        Engine.of(here, slurm=False).prepare(here)

    second = service(here)
    second.start()
    assert backend_for(here).status([job])[job].state is JobState.RUNNING
    second.stop(quiet, end_work=True)
    assert backend_for(here).status([job])[job].state is JobState.CANCELLED

    Engine.of(here, slurm=False).prepare(here)
    assert read_system(here.jobs) == ("local", {})
    assert backend_for(here).find("one") == job
    assert batch.examine(here)[0].detail == "this machine's own queue"


def test_jobs_of_the_local_queue_keep_slurm_out(here: Config) -> None:
    backend = backend_for(here)
    job = backend.submit(JobSpec(("sleep", "600"), here.home, memory_gb=0.1), "one")
    with pytest.raises(Conflict, match=r"1 jobs .* own queue .*\(scipion-cloud up\)"):
        Engine.of(here, slurm=True).prepare(here)
    backend.cancel([job])
    Engine.of(here, slurm=True).prepare(here)
    assert read_system(here.jobs)[0] == "slurm"


def test_slurm_that_is_not_installed_is_said(here: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("scipion_cloud.cluster.private.PROGRAMS", ("munged", "no-such-program"))
    with pytest.raises(SetupError, match=r"no-such-program.*apt-get install"):
        Engine.of(here, slurm=True).prepare(here)
    assert read_system(here.jobs)[0] == "local"
