"""The life of a run with the real Scipion and RELION: to its end, through kills, past a damaged movie."""

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from run_site import Site

from scipion_cloud.config import Config
from scipion_cloud.examples import MovieSpec, write_movies

pytestmark = [pytest.mark.scipion, pytest.mark.timeout(240)]

COUNT = 3
SPEC = MovieSpec(size=512, frames=10)


@pytest.fixture
def site(config: Config, software: Path) -> Iterator[Site]:
    site = Site(config, SPEC)
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
    assert site.look(run)["state"] == "running", "nobody was there to see the end"
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
    assert site.cancel(run) < 4
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
    site.cancel(run)
    site.controller.send_signal(signal.SIGCONT)
    assert site.ended(run)["state"] == "cancelled"
    assert site.statuses() == []
