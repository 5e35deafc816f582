"""The service with small programs in place of portal and controller, and real jobs of the local backend."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from scipion_cloud.cli.service import Service
from scipion_cloud.config import Config
from scipion_cloud.jobs.local import LocalBackend
from scipion_cloud.jobs.spec import JobId, JobSpec, JobState
from scipion_cloud.provision.supervisor import ChildSpec

SLEEP = [sys.executable, "-c", "import time; time.sleep(600)"]


def ours(home: Path) -> list[int]:
    """Living processes, other than this one, that were started for a home."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get("SCIPION_CLOUD_HOME") == str(home) and process.pid != os.getpid():
                found.append(process.pid)
        except psutil.Error:
            continue
    return found


def wait_for(condition: Callable[[], object], within: float = 90.0) -> None:
    deadline = time.monotonic() + within
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.05)


@pytest.fixture
def here(config: Config, free_port: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[Config]:
    for name in ("SCIPION_CLOUD_SOFTWARE", "DJANGO_SETTINGS_MODULE", "PYTHONUNBUFFERED"):
        monkeypatch.setenv(name, os.environ.get(name, ""))  # so that it is put back
    yield config.model_copy(update={"port": free_port})
    LocalBackend(config.jobs).cancel([job.id for job in LocalBackend(config.jobs).list(limit=0)])
    wait_for(lambda: ours(config.home) == [])


def submit(config: Config) -> JobId:
    backend = LocalBackend(config.jobs)
    # a job with a child of its own that does not listen to SIGTERM
    script = "trap '' TERM; sleep 600 & sleep 600"
    job = backend.submit(JobSpec(argv=("sh", "-c", script), cwd=config.home, name="sleep"), key="one")
    wait_for(lambda: backend.status([job])[job].state is JobState.RUNNING)
    return job


def test_stopping_ends_children_and_jobs_and_leaves_no_process(here: Config) -> None:
    said: list[str] = []
    service = Service(here, said.append, [ChildSpec("portal", SLEEP, here.home / "portal.log")])
    service.start()
    job = submit(here)
    assert "● portal" in service.describe()
    service.stop(said.append, end_work=True)
    assert ours(here.home) == []
    assert LocalBackend(here.jobs).status([job])[job].state is JobState.CANCELLED
    assert "cancelled 1 jobs" in said


def test_jobs_survive_a_killed_up_and_the_next_starts_cleanly(here: Config) -> None:
    program = f"""
import sys
from scipion_cloud.cli.service import Service
from scipion_cloud.config import Config
from scipion_cloud.provision.supervisor import ChildSpec
config = Config(home={str(here.home)!r}, port={here.port})
service = Service(config, print, [ChildSpec("portal", {SLEEP!r}, config.home / "portal.log")])
service.start()
print("up", flush=True)
service.supervisor.run()
"""
    up = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    assert up.stdout
    assert up.stdout.readline() == "up\n"
    job = submit(here)
    up.send_signal(signal.SIGKILL)
    up.communicate()
    service = Service(here, print, [ChildSpec("portal", SLEEP, here.home / "portal.log")])
    try:
        service.start()
        assert LocalBackend(here.jobs).status([job])[job].state is JobState.RUNNING
    finally:
        service.stop(print, end_work=False)
    assert LocalBackend(here.jobs).status([job])[job].state is JobState.RUNNING
