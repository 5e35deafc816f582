"""The life of a run with the real Scipion and RELION: to its end, through kills, past a damaged movie."""

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import psutil
import pytest

from scipion_cloud.config import Config
from scipion_cloud.examples import MovieSpec, write_movies
from scipion_cloud.tools.snapshot import read_project

pytestmark = [pytest.mark.scipion, pytest.mark.timeout(240)]

T = TypeVar("T")

COUNT = 3
SPEC = MovieSpec(size=512, frames=10)
PARAMETERS = {"pixel_size": SPEC.pixel_size, "dose_per_frame": SPEC.dose_per_frame, "gain": "gain.mrc"}


# What the portal does, in a process of its own: its database and home are those of the controller beside it.


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

    def __init__(self, config: Config) -> None:
        self.home = config.home
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
        return self.do(_start, self.project, PARAMETERS | parameters)

    def until(self, run: str, what: Callable[[dict[str, Any]], bool], timeout: float = 360) -> dict[str, Any]:
        """Look at the run until it is as `what` says."""
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            seen = self.do(_look, run)
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


@pytest.fixture
def site(config: Config, software: Path) -> Iterator[Site]:
    site = Site(config)
    write_movies(site.path / "data", COUNT, SPEC, seed=3)
    yield site
    site.close()


def some_done(seen: dict[str, Any]) -> bool:
    return bool(seen["done"] >= 1)


def test_a_run_fills_movie_by_movie_and_finishes(site: Site) -> None:
    run = site.run()
    during = site.until(run, some_done)
    assert during["state"] == "running", "movies are shown while the run goes on"
    seen = site.ended(run)
    assert (seen["state"], seen["message"], seen["done"]) == ("finished", "", COUNT)
    assert all(m["total"] > 0 and len(m["drift"]) == SPEC.frames for m in seen["movies"])
    assert {step["status"] for step in seen["steps"].values()} == {"finished"}
    assert site.statuses() == ["finished", "finished"]
    seen = site.until(run, lambda seen: seen["pictures"] == COUNT)
    for movie in seen["movies"]:
        made = {file.name for file in (seen["folder"] / movie["stem"]).iterdir()}
        assert made == {f"{kind}.webp" for kind in ("thumb", "before", "after", "psd_before", "psd_after")}


def test_a_killed_controller_is_replaced_and_nothing_is_lost(site: Site) -> None:
    run = site.run()
    time.sleep(0.2)
    site.kill_controller()  # about to submit
    site.start_controller()
    job = site.until(run, some_done)["job"]
    site.kill_controller()  # in the middle
    site.until(run, lambda _: not site.processes("scipion_cloud_em.chain"))
    assert site.do(_look, run)["state"] == "running", "nobody was there to see the end"
    site.start_controller()
    seen = site.ended(run)
    assert (seen["state"], seen["done"], seen["job"]) == ("finished", COUNT, job)
    site.until(run, lambda seen: seen["pictures"] == COUNT)
    assert site.statuses() == ["finished", "finished"], "one job did it all"


def test_a_killed_job_is_told_and_the_project_is_sound(site: Site) -> None:
    run = site.run()
    site.until(run, some_done)
    for process in site.processes("scipion_cloud_em.chain"):
        process.kill()
    seen = site.ended(run)
    assert seen["state"] == "failed"
    assert "killed" in seen["message"]
    assert seen["done"] >= 1, "what was finished is kept"
    assert site.statuses() == ["finished", "failed"]
    assert site.ended(site.run())["state"] == "finished"


def test_a_cancelled_run_ends_at_once_and_leaves_the_project_sound(site: Site) -> None:
    run = site.run()
    site.until(run, lambda _: bool(site.processes("relion_run_motioncorr")))
    assert site.do(_cancel, run) < 4
    assert not site.processes("relion_run_motioncorr")
    assert not site.processes("scipion_cloud_em.chain")
    seen = site.until(run, lambda seen: seen["state"] == "cancelled", timeout=60)
    assert seen["message"] == ""
    assert site.statuses() == ["finished", "aborted"]
    again = site.ended(site.run())
    assert (again["state"], again["done"]) == ("finished", COUNT)


def test_a_damaged_movie_among_good_ones(site: Site) -> None:
    damaged = site.path / "data" / "ribosome_002.tiff"
    with damaged.open("r+b") as file:  # the pixels of the first frame; all that its header says stays true
        file.seek(5000)
        file.write(os.urandom(20_000))
    seen = site.ended(site.run())
    assert (seen["state"], seen["done"]) == ("finished", COUNT - 1)
    assert "1 of 3 movies could not be aligned. ribosome_002.tiff: " in seen["message"]
    movie = seen["movies"][1]
    assert movie["state"] == "failed"
    assert "damaged" in movie["message"]


def test_cancelled_before_anything_began(site: Site) -> None:
    site.controller.send_signal(signal.SIGSTOP)
    run = site.run()
    site.do(_cancel, run)
    site.controller.send_signal(signal.SIGCONT)
    assert site.ended(run)["state"] == "cancelled"
    assert site.statuses() == []
