"""`scipion-cloud up --slurm`: agent, desktop and a real movie alignment are jobs of a real Slurm."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from scipion_cloud.examples import MovieSpec, write_movies
from scipion_cloud.testing.service import RunningService, start_service, stop_service

pytestmark = pytest.mark.timeout(600)

SPEC = MovieSpec(size=256, frames=6, gain=False)


def ours(home: Path) -> list[str]:
    """Living processes of a home, other than this one: its own, and those of its Slurm."""
    marks = (f"SCIPION_CLOUD_HOME={home}", f"SLURM_CONF={home}/slurm/slurm.conf")
    found = []
    for process in psutil.process_iter():
        try:
            variables = {f"{name}={value}" for name, value in process.environ().items()}
            if process.pid != os.getpid() and variables & set(marks):
                found.append(f"{process.pid} {' '.join(process.cmdline())}")
        except psutil.Error:
            continue
    return found


class Person:
    """Somebody with the command line and a link to sign in."""

    def __init__(self, service: RunningService, folder: Path) -> None:
        self.env = {**os.environ, "XDG_CONFIG_HOME": str(folder / "config"), "COLUMNS": "200"}
        self.run("login", service.url, "--link", service.link)

    def run(self, *words: str) -> str:
        command = [sys.executable, "-m", "scipion_cloud.cli", *words]
        done = subprocess.run(command, env=self.env, capture_output=True, text=True, timeout=400, check=False)
        assert done.returncode == 0, f"{words}: {done.stdout}{done.stderr}"
        return done.stdout

    def json(self, *words: str) -> Any:
        return json.loads(self.run(*words, "--json"))


def squeue(home: Path, *options: str) -> list[str]:
    """Partition and state of each job that Slurm knows."""
    environ = {**os.environ, "SLURM_CONF": str(home / "slurm" / "slurm.conf")}
    command = ["squeue", "--noheader", "--states=all", "--format=%P %T", *options]
    done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=120, check=True)
    return sorted(done.stdout.split("\n")[:-1])


@pytest.fixture
def storage(tmp_path: Path) -> Path:
    folder = tmp_path / "shelf"
    folder.mkdir()
    return folder


@pytest.fixture
def service(home: Path, storage: Path) -> Iterator[RunningService]:
    service = start_service(home, "--slurm", env={"SCIPION_CLOUD_FOLDERS": str(storage)})
    yield service
    stop_service(service)
    assert ours(home) == []


@pytest.mark.scipion
@pytest.mark.desktop
def test_all_work_goes_through_slurm_and_ctrl_c_leaves_nothing(
    service: RunningService, storage: Path, tmp_path: Path
) -> None:
    home = service.home
    person = Person(service, tmp_path)
    write_movies(tmp_path / "day1", 2, SPEC)
    person.run("storage", "connect", "Shelf", f"file://{storage}")
    person.run("project", "create", "Ribosome", "--storage", "Shelf:ribosome")
    person.run("project", "open", "Ribosome")
    assert squeue(home) == ["interactive RUNNING"], "the agent"

    person.run("upload", "Ribosome", str(tmp_path / "day1"))
    person.run("desktop", "open", "Ribosome")
    assert squeue(home) == ["interactive RUNNING"] * 2, "agent and desktop"

    values = [f"pixel_size={SPEC.pixel_size}", f"dose_per_frame={SPEC.dose_per_frame}"]
    run = person.json("run", "start", "Ribosome", "movie-alignment", *values, "--wait")
    assert (run["state"], run["movies"]["done"]) == ("finished", 2)
    assert "main COMPLETED" in squeue(home)

    assert stop_service(service) == 0
    assert "saved and closed 1 open projects" in service.log
    assert ours(home) == []
    assert list((storage / "ribosome").glob("Runs/*/extra/*.mrc")), "the last save has the results"
