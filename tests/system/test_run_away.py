"""A web tool's run whose main step computes at another site: the real chain, broker, Scipion and RELION.

The site is this machine, in a folder of its own and with a batch system of its own; `test_two_hosts` has the
network between them.
"""

import json
import os
import signal
import threading
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
from scipion_site import ChainRun, make_project, relion_with_a_gate, statuses, until

from scipion_cloud.broker import trip
from scipion_cloud.broker.broker import Broker
from scipion_cloud.broker.queues import write_hosts
from scipion_cloud.config import Config
from scipion_cloud.controller.ending import conclude
from scipion_cloud.controller.orders import Order, away_key
from scipion_cloud.controller.results import Numbers, new_numbers
from scipion_cloud.jobs import JobId, JobState, JobStatus, backend_for
from scipion_cloud.model import RunState
from scipion_cloud.sites import reach
from scipion_cloud.sites.looking import look
from scipion_cloud.sites.reading import read_sites
from scipion_cloud.sites.state import drain

pytestmark = [pytest.mark.scipion, pytest.mark.timeout(400), pytest.mark.usefixtures("software")]


@pytest.fixture
def config(config: Config, tmp_path: Path) -> Config:
    """A home with the site "near" beside it."""
    (config.home / "sites.toml").write_text(
        f"""
[near]
title = "Near by"
area = "{tmp_path / "area of near"}"
software = ["relion"]
scipion = "{config.scipion_python}"
scipion_home = "{config.scipion_home}"
"""
    )
    look(read_sites(config)["near"], config)
    write_hosts(config)
    return config


@contextmanager
def broker(config: Config) -> Iterator[None]:
    """The part of the controller that moves jobs, for the length of a block."""
    mover, stop = Broker(config), threading.Event()

    def tick() -> None:
        while not stop.wait(0.2):
            mover.tick()

    thread = threading.Thread(target=tick)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def send_away(run: ChainRun, key: str = "k1-away") -> str:
    """Have the chain's main step go to the site; the key of its job."""
    file = run.folder / "REQUEST.json"
    request = json.loads(file.read_text())
    params = {"JOB_MEMORY": "1", "JOB_HOURS": "1"}
    request["steps"][1]["queue"] = {"name": "near", "params": params, "key": key}
    file.write_text(json.dumps(request))
    return key


def away_jobs(config: Config) -> list[str]:
    """The states of all jobs that the site has had."""
    site = read_sites(config)["near"]
    return [str(job.status.state) for job in reach.backend(site, config).list()]


def test_the_main_step_comes_back_as_if_it_had_run_here(config: Config) -> None:
    project = make_project(config)
    run = ChainRun(config, project)
    key = send_away(run)
    with broker(config):
        first = run.start()
        until(lambda: run.step("align").get("job"))
        os.kill(first.pid, signal.SIGKILL)  # whatever happens here, the job there is one
        first.wait()
        assert run.run() == 0
    assert run.state["status"] == "finished"
    assert len(run.aligned()) == 3
    assert statuses(config, project) == {"import movies": "finished", "align movies": "finished"}
    backend = backend_for(config)
    job = backend.find(key)
    assert job == run.step("align")["job"]
    assert backend.status([job])[job].state is JobState.DONE
    assert away_jobs(config) == ["DONE"]
    assert run.step("align")["phase"] == ""
    log = (run.extra.parent / "logs" / "run.stdout").read_text()
    assert str(read_sites(config)["near"].area) in log  # it ran there, not here


def test_its_movies_are_seen_one_by_one_while_it_runs_there(
    config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trip, "LOGS_EVERY", 1.0)
    relion = relion_with_a_gate(config.scipion_home / "software" / "em" / "relion-3.1", tmp_path)
    with (config.home / "sites.toml").open("a") as sites:
        sites.write(f'env = {{ RELION_HOME = "{relion}" }}\n')
    run = ChainRun(config, make_project(config))
    key = send_away(run)
    chain = run.start()

    def found() -> Sequence[Numbers]:
        return new_numbers(run.project, run.state.get("steps", {}), set())[0]

    try:
        with broker(config):
            until(found)
        (first,) = found()  # as the controller records it for the run's page
        assert first.total is not None
        backend = backend_for(config)
        job = backend.find(key)
        assert job is not None
        assert not backend.status([job])[job].state.is_final
        assert away_jobs(config) == ["RUNNING"]
        (micrograph,) = run.extra.glob("*_DW.mrc")
        before = micrograph.stat().st_ino
    finally:
        (relion / "go").touch()  # nobody waits there for ever
    with broker(config):  # another one, as after a kill
        assert chain.wait(240) == 0
    assert len(found()) == 3
    assert micrograph.stat().st_ino == before
    assert statuses(config, run.project) == {"import movies": "finished", "align movies": "finished"}


def test_a_chain_that_stops_leaves_its_job_and_the_controller_ends_both(config: Config) -> None:
    project, number = make_project(config), uuid.uuid4()
    run = ChainRun(config, project, number.hex)
    key = send_away(run, away_key(number))
    chain = run.start()  # without a broker: the job waits for one
    until(lambda: run.step("align").get("job"))
    chain.send_signal(signal.SIGTERM)  # as when the machine goes down
    assert chain.wait(60) == 128 + signal.SIGTERM
    backend = backend_for(config)
    job = backend.find(key)
    assert job == run.step("align")["job"]
    assert backend.status([job])[job].state is JobState.QUEUED
    order = Order(number, "movie-alignment", "", "", project, {}, None, {}, "near")
    with broker(config):
        ending = conclude(config, backend, JobStatus(JobState.CANCELLED), order, frozenset())
    assert ending.state is RunState.CANCELLED
    assert backend.status([job])[job].state is JobState.CANCELLED
    assert statuses(config, project) == {"import movies": "finished", "align movies": "aborted"}
    assert away_jobs(config) == []


def test_who_ends_the_job_elsewhere_ends_the_chain(config: Config) -> None:
    run = ChainRun(config, make_project(config))
    send_away(run)
    chain = run.start()
    until(lambda: run.step("align").get("job"))
    with broker(config):
        backend_for(config).cancel([JobId(run.step("align")["job"])])
        assert chain.wait(240) == 1
    assert (run.state["status"], run.step("align")["status"]) == ("failed", "aborted")
    assert run.state["error"] == "cancelled before it was sent"


def test_a_site_that_refuses_says_why(config: Config) -> None:
    near = read_sites(config)["near"]
    drain(config, near, "cooling is mended")
    run = ChainRun(config, make_project(config, movies=1))
    send_away(run)
    assert run.run() == 1
    assert run.state["error"] == "Near by cannot take this: it takes no new jobs: cooling is mended."
