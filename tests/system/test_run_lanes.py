"""A run whose movies are shared by several jobs: the real chain, queue, Slurm, Scipion and RELION."""

import json
import os
import re
import signal
import sqlite3
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import psutil
import pytest
from run_site import Site
from scipion_site import ChainRun, descendants, is_alive, make_project, statuses, until

from scipion_cloud.config import Config
from scipion_cloud.examples import MovieSpec, write_movies
from scipion_cloud.jobs import JobInfo, JobSpec, JobState, backend_for
from scipion_cloud.jobs.systems import write_system
from scipion_cloud.testing.servers.slurm import slurm

pytestmark = [pytest.mark.scipion, pytest.mark.timeout(400), pytest.mark.usefixtures("software")]

KEY = "run-k1-lanes"
MOVIES = 5
SPEC = MovieSpec(size=256, frames=6, gain=False)


@pytest.fixture
def config(config: Config) -> Iterator[Config]:
    """A home whose jobs have ended when the test has."""
    yield config
    backend = backend_for(config)
    backend.cancel(job.id for job in backend.list(limit=0))


def share(run: ChainRun, jobs: int) -> None:
    """Have so many jobs take movies off the chain's hands."""
    file = run.folder / "REQUEST.json"
    request = json.loads(file.read_text())
    wish = {"count": jobs, "cpus": 1, "memory_gb": 0.5, "key": KEY, "name": "Monday, more movies"}
    request["steps"][1]["lanes"] = wish
    file.write_text(json.dumps(request))


def jobs(config: Config) -> list[JobInfo]:
    return sorted(backend_for(config).list(), key=lambda job: job.id)


def records(run: ChainRun) -> dict[str, bool]:
    """Whether each movie could be aligned, as each was told once."""
    lines = [json.loads(line) for line in (run.extra / "movies.jsonl").read_text().splitlines()]
    assert max(Counter(line["name"] for line in lines).values()) == 1
    return {line["name"]: line["ok"] for line in lines}


def numbers(run: ChainRun) -> dict[str, str]:
    """All that RELION found, movie by movie."""
    return {file.name: file.read_text() for file in run.extra.glob("movie_?.star")}


def outputs(run: ChainRun) -> dict[str, int]:
    """Items in the alignment's output sets."""
    found = {}
    for file in run.extra.parent.glob("*.sqlite"):
        with closing(sqlite3.connect(file)) as db:
            found[file.name] = db.execute("SELECT COUNT(*) FROM Objects").fetchone()[0]
    return found


def whole(movies: int) -> dict[str, int]:
    return {"movies.sqlite": movies, "micrographs_dose-weighted.sqlite": movies}


def kill_chain(run: ChainRun, when: Callable[[], bool]) -> None:
    """Start a chain, and kill it with all below it."""
    chain = run.start()
    until(when)
    below = descendants(chain.pid)
    chain.kill()
    chain.wait()
    for process in below:
        with suppress(ProcessLookupError):  # it has died with its parent
            os.kill(process, signal.SIGKILL)
    until(lambda: not any(is_alive(process) for process in below))


def test_what_is_found_does_not_depend_on_who_finds_it(config: Config) -> None:
    project = make_project(config, movies=4)
    damaged = project / "data" / "movie 2.tif"
    damaged.write_bytes(damaged.read_bytes()[:200_000])
    alone, shared = ChainRun(config, project, "alone"), ChainRun(config, project, "k1")
    share(shared, 2)
    assert alone.run() == 0
    kill_chain(shared, lambda: len(jobs(config)) == 2)  # before it has done much itself
    until(lambda: all(job.status.state is JobState.DONE for job in jobs(config)))
    assert list((shared.folder / "lanes").glob("*.json"))
    assert shared.run() == 0
    assert records(alone) == records(shared)
    assert [name for name, ok in records(shared).items() if not ok] == ["movie_2.tif"]
    assert len(numbers(shared)) == 3
    assert numbers(alone) == numbers(shared)
    assert outputs(alone) == outputs(shared) == whole(3)
    assert [job.name for job in jobs(config)] == [f"Monday, more movies ({n} of 2)" for n in (1, 2)]
    log = [(run.extra.parent / "logs" / "run.stdout").read_text() for run in (alone, shared)]
    assert log[0].count("Done! Written") == log[1].count("Done! Written")
    assert "movie_2.tif" in (shared.extra.parent / "logs" / "run.stderr").read_text()


def aside(movie: Path) -> Path:
    return movie.parents[1] / f"{movie.name}.aside"


def hold(*movies: Path) -> None:
    """Have everybody who opens these movies hang, for ever."""
    for movie in movies:
        movie.rename(aside(movie))
        os.mkfifo(movie)


def let_go(*movies: Path) -> None:
    """Have all who open them from now on find what was there."""
    for movie in movies:
        aside(movie).replace(movie)


def hang(project: Path, *numbers: int) -> bool:
    """Whether RELION has been started for all of these movies, which it cannot open."""
    found = set()
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if process.name().startswith("relion_run"):
                found.add(process.cwd())
    folders = [list(project.glob(f"Runs/*/tmp/movie_{number:06d}")) for number in numbers]
    return all(found & set(map(str, each)) for each in folders)


def kill(config: Config, job: JobInfo, *, with_supervisor: bool) -> None:
    """Kill a job, as when its machine dies, or its program alone."""
    folder = backend_for(config).folder(job.id)
    until(lambda: folder.has("claim.json"))
    supervisor = psutil.Process(json.loads((folder.path / "claim.json").read_text())["pid"])
    below = supervisor.children(recursive=True)
    for process in [supervisor, *below] if with_supervisor else supervisor.children():
        with suppress(psutil.NoSuchProcess):  # it has died with its parent
            process.kill()
    assert not psutil.wait_procs(below, timeout=120)[1]


@pytest.mark.parametrize("with_supervisor", [True, False])
def test_who_is_killed_in_the_middle_goes_on_and_nothing_is_done_twice(
    config: Config, with_supervisor: bool
) -> None:
    project = make_project(config, movies=4)
    run = ChainRun(config, project)
    share(run, 1)
    held = [project / "data" / f"movie {n}.tif" for n in (1, 2)]
    hold(*held)
    claims = [run.folder / "lanes" / f"movie_00000{n}.lane" for n in (2, 3)]
    kill_chain(run, lambda: hang(project, 2, 3))  # each of the two lanes has one
    assert sorted(os.readlink(claim) for claim in claims) == ["0", "1"]  # noqa: PTH115 - the text
    (job,) = jobs(config)
    kill(config, job, with_supervisor=with_supervisor)
    assert run.state["status"] == "running"
    let_go(*held)

    assert run.run() == 0
    assert records(run) == {f"movie_{n}.tif": True for n in range(4)}
    assert outputs(run) == whole(4)
    assert statuses(config, project) == {"import movies": "finished", "align movies": "finished"}
    assert [job.id for job in jobs(config)] == [job.id], "the same job"
    begun = re.findall(r"^movie_\d+", backend_for(config).logs(job.id).stdout, re.MULTILINE)
    again = 2 if with_supervisor else 1
    assert all(n <= again for n in Counter(begun).values())


@pytest.fixture
def site(config: Config) -> Iterator[Site]:
    """A home whose jobs run in a Slurm of three nodes with one CPU each."""
    with slurm(nodes=3, cpus=1) as cluster:
        write_system(config.jobs, "slurm", cluster.options)
        site = Site(config, SPEC)
        write_movies(site.path / "data", MOVIES, SPEC, seed=3)
        yield site
        backend_for(config).cancel(job.id for job in backend_for(config).list(limit=0))
        site.close()


def found(seen: dict[str, Any]) -> list[tuple[Any, ...]]:
    """What a run has found of its movies."""
    return [
        tuple(movie[name] for name in ("name", "state", "total", "drift", "message"))
        for movie in seen["movies"]
    ]


def hung(site: Site, run: str, lanes: int) -> list[Path]:
    """Have all lanes of a run hang, each at a movie; returns these movies."""
    name = uuid.UUID(run).hex
    inputs, folder = site.path / "Inputs" / name / "movies", site.home / "runs" / name / "lanes"
    until(lambda: inputs.is_dir() and len(list(inputs.iterdir())) == MOVIES)
    numbers = range(2, 2 + lanes)  # not the first, whose header is read
    held = [inputs / f"ribosome_{n:03d}.tiff" for n in numbers]
    hold(*held)
    claims = [folder / f"movie_{n:06d}.lane" for n in numbers]
    until(lambda: hang(site.path, *numbers))
    assert {os.readlink(claim) for claim in claims} == set(map(str, range(lanes)))  # noqa: PTH115 - the text
    return held


def test_through_slurm_with_all_jobs_killed_once(site: Site, config: Config) -> None:
    with (site.path / "data" / "ribosome_005.tiff").open("r+b") as file:
        file.seek(5000)  # the pixels of the first frame; all that its header says stays true
        file.write(os.urandom(20_000))
    alone = site.ended(site.run(threads=1, at_a_time=1))
    assert (alone["state"], alone["done"]) == ("finished", MOVIES - 1)
    (before,) = jobs(config)

    run = site.run(threads=1)
    held = hung(site, run, 3)
    mine, *others = [job for job in jobs(config) if job.id != before.id]
    assert [job.name for job in others] == [f"{mine.name}, more movies ({n} of 2)" for n in (1, 2)]
    for job in (mine, *others):
        kill(config, job, with_supervisor=True)
    let_go(*held)
    seen = site.ended(run)
    assert (seen["state"], seen["message"], found(seen)) == (alone["state"], alone["message"], found(alone))
    assert site.statuses() == ["finished"] * 4
    states = [job.status.state for job in jobs(config)]
    assert states[:2] == [JobState.DONE] * 2
    assert all(state.is_final for state in states[2:]), "the run has not ended before them"
    assert not list((site.home / "runs" / uuid.UUID(run).hex).glob("lanes/*"))


def test_a_cancelled_run_leaves_no_job_and_no_process(site: Site, config: Config) -> None:
    sleep = JobSpec(("sleep", "1000"), site.path, "another's")
    other = backend_for(config).submit(sleep, "another's")
    run = site.run(threads=1)
    hung(site, run, 2)
    assert [job.status.state for job in jobs(config)] == ["RUNNING"] * 3 + ["QUEUED"]
    site.cancel(run)
    assert site.ended(run)["state"] == "cancelled"
    states = {job.id: job.status.state for job in jobs(config)}
    assert states.pop(other) == "RUNNING"
    assert list(states.values()) == ["CANCELLED"] * 3
    assert not site.processes("relion_run_motioncorr")
    assert not site.processes("scipion_cloud_em")
    assert site.statuses() == ["finished", "aborted"]
