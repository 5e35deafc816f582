"""A home with a controller, for tests of runs: what the portal does is done by a process of its own."""

import multiprocessing
import os
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import psutil

from scipion_cloud.config import Config
from scipion_cloud.examples import MovieSpec
from scipion_cloud.tools.snapshot import read_project

T = TypeVar("T")


def _open_home() -> None:
    import django
    from django.core.management import call_command

    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "scipion_cloud.portal.settings")
    django.setup()
    call_command("migrate", verbosity=0, run_syncdb=True)


def _make_project() -> str:
    from scipion_cloud.portal import services
    from scipion_cloud.portal.administrator import first_administrator

    return str(services.create_project(first_administrator(), "Life").pk)


def _project_path(project: str) -> Path:
    from scipion_cloud.records.models import Project

    return Project.objects.get(pk=project).path


def _start(project: str, parameters: dict[str, Any]) -> str:
    from scipion_cloud.portal import services
    from scipion_cloud.records.models import Project

    found = Project.objects.get(pk=project)
    return str(services.start_run(found.owner, found, "movie-alignment", parameters).pk)


def _cancel(run: str) -> float:
    from scipion_cloud.portal import services
    from scipion_cloud.records.models import Run

    began = time.monotonic()
    found = Run.objects.get(pk=run)
    services.cancel_run(found.project.owner, found)
    return time.monotonic() - began


def _look(run: str) -> dict[str, Any]:
    from scipion_cloud.records.models import Run

    found = Run.objects.get(pk=run)
    fields = ("name", "stem", "state", "total", "drift", "thumbnail", "details", "message")
    movies = list(found.movies.values(*fields))
    return {
        "state": found.state,
        "message": found.message,
        "steps": found.steps,
        "job": found.job_id,
        "folder": found.pictures,
        "movies": movies,
        "done": sum(m["state"] == "done" for m in movies),
        "thumbnails": sum(m["thumbnail"] for m in movies),
        "pictures": sum(m["details"] for m in movies),
    }


class Site:
    """A home with a controller, a project in it, and a process in the place of the portal."""

    def __init__(self, config: Config, spec: MovieSpec) -> None:
        """`spec`: the movies that runs are told they get."""
        self.home = config.home
        self.parameters: dict[str, object] = {
            "pixel_size": spec.pixel_size,
            "dose_per_frame": spec.dose_per_frame,
        }
        if spec.gain:
            self.parameters["gain"] = "gain.mrc"
        context = multiprocessing.get_context("spawn")
        self.portal = ProcessPoolExecutor(1, context, _open_home)
        self.project: str = self.do(_make_project)
        self.path: Path = self.do(_project_path, self.project)
        self.start_controller()

    def do(self, what: Callable[..., T], *args: object) -> T:
        return self.portal.submit(what, *args).result(timeout=480)

    def start_controller(self) -> None:
        self.controller = subprocess.Popen([sys.executable, "-m", "scipion_cloud.controller"])

    def kill_controller(self) -> None:
        self.controller.kill()
        self.controller.wait()

    def run(self, **parameters: object) -> str:
        return self.do(_start, self.project, self.parameters | parameters)

    def look(self, run: str) -> dict[str, Any]:
        """What the page tells of a run."""
        return self.do(_look, run)

    def cancel(self, run: str) -> float:
        """Ask for its end; the seconds until there was an answer."""
        return self.do(_cancel, run)

    def until(self, run: str, what: Callable[[dict[str, Any]], bool], timeout: float = 360) -> dict[str, Any]:
        """Look at the run until it is as `what` says."""
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            seen = self.look(run)
            if what(seen):
                return seen
            time.sleep(0.1)
        raise AssertionError(f"this did not happen: {seen}")

    def ended(self, run: str) -> dict[str, Any]:
        return self.until(run, lambda seen: seen["state"] in ("finished", "failed", "cancelled"))

    def processes(self, *words: str) -> list[psutil.Process]:
        """Live processes of this home with these words in their command line."""
        found = []
        for process in psutil.process_iter():
            try:
                ours = process.environ().get("SCIPION_CLOUD_HOME") == str(self.home)
                command = " ".join(process.cmdline())
            except psutil.Error:
                continue
            if ours and process.pid != os.getpid() and all(word in command for word in words):
                found.append(process)
        return found

    def statuses(self) -> list[str]:
        """Scipion's words for the project's protocols."""
        snapshot = read_project(self.path)
        assert snapshot.problems == ()
        return [protocol.status for protocol in snapshot.protocols]

    def close(self) -> None:
        self.controller.terminate()
        assert self.controller.wait(timeout=60) == 0
        self.portal.shutdown()
        for process in self.processes("scipion_cloud_em.chain"):
            process.kill()
