"""The state machine of a run, against a batch system whose answers the tests choose."""

import time
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from scipion_cloud.config import Config
from scipion_cloud.controller import ending, runs
from scipion_cloud.controller.orders import Order, run_folder
from scipion_cloud.controller.results import Numbers, Results
from scipion_cloud.controller.runs import Runs, request_cancel
from scipion_cloud.errors import InvalidInput, JobError, NotFound, QueueFull
from scipion_cloud.jobs import JobBackend, JobId, JobInfo, JobLogs, JobSpec, JobState, JobStatus
from scipion_cloud.model import MovieState, RunState
from scipion_cloud.records.models import Project, Run, User

pytestmark = pytest.mark.django_db

SPEC = JobSpec(("true",), Path("/"))
MOMENT = datetime(2026, 1, 2, 3, 4, tzinfo=UTC)


class Batch(JobBackend):
    """A batch system in which jobs do what the test says."""

    def __init__(self) -> None:
        self.keys: dict[str, JobId] = {}
        self.jobs: dict[JobId, JobStatus] = {}
        self.refusal: JobError | None = None
        self.status_calls = 0

    def submit(self, spec: JobSpec, key: str) -> JobId:
        if self.refusal:
            raise self.refusal
        job = self.keys.setdefault(key, JobId(len(self.keys) + 1))
        self.jobs.setdefault(job, JobStatus(JobState.QUEUED))
        return job

    def status(self, ids: Iterable[JobId]) -> dict[JobId, JobStatus]:
        self.status_calls += 1
        return {job: self.jobs.get(job, JobStatus(JobState.UNKNOWN)) for job in ids}

    def cancel(self, ids: Iterable[JobId]) -> None:
        for job in ids:
            if not self.jobs[job].state.is_final:
                self.jobs[job] = JobStatus(JobState.CANCELLED, ended=MOMENT)

    def logs(self, job: JobId, tail: int = 65536) -> JobLogs:
        if job not in self.jobs:
            raise NotFound("no such job")
        return JobLogs("", "No space left on device", None, None)

    def find(self, key: str) -> JobId | None:
        return self.keys.get(key)

    def list(self, limit: int = 100) -> tuple[JobInfo, ...]:
        return ()

    def tick(self) -> None:
        """Nothing happens by itself."""


class World:
    """A controller, its batch system and the run that the test is about."""

    def __init__(self, config: Config, run: Run) -> None:
        self.config = config
        self.batch = Batch()
        self.run = run
        self.restart()

    def restart(self) -> None:
        """The controller dies and another one takes over."""
        self.controller = Runs(self.config, self.batch, Results())

    def until(self, state: RunState, timeout: float = 60) -> Run:
        """Tick until the run is in this state."""
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            self.controller.reconcile()
            self.run.refresh_from_db()
            if self.run.status is state:
                return self.run
            time.sleep(0.01)
        raise AssertionError(f"the run is still {self.run.state}: {self.run.message}")

    def ticks(self, number: int = 20) -> Run:
        for _ in range(number):
            self.controller.reconcile()
            time.sleep(0.005)
        self.run.refresh_from_db()
        return self.run

    def set_job(self, state: JobState, **values: Any) -> None:
        assert self.run.job_id is not None
        self.batch.jobs[JobId(self.run.job_id)] = JobStatus(state, started=MOMENT, **values)


@pytest.fixture
def run() -> Run:
    user = User.objects.create_user(username="u", email="u@example.org")
    project = Project.objects.create(name="P", owner=user, folder="p-12345678")
    run = Run.objects.create(project=project, tool="movie-alignment", parameters={}, user=user)
    for index, stem in enumerate(["a", "b"], 1):
        run.movies.create(index=index, name=f"{stem}.tif", stem=stem)
    return run


@pytest.fixture
def world(config: Config, run: Run, monkeypatch: pytest.MonkeyPatch) -> World:
    """Preparation and results are those of a run without Scipion: two movies, both done when the job is."""

    monkeypatch.setattr(runs, "prepare", lambda *_: SPEC)
    monkeypatch.setattr(ending, "new_numbers", lambda *_: (NUMBERS, []))
    return World(config, run)


NUMBERS = (Numbers("a", 3.0, 1.0, 2.0, [[0, 0], [1, 1]]), Numbers("b", 4.0, 1.0, 3.0, [[0, 0], [2, 2]]))


def test_a_run_that_goes_well(world: World) -> None:
    run = world.until(RunState.QUEUED)
    assert run.job_id is not None
    world.set_job(JobState.RUNNING)
    assert world.until(RunState.RUNNING).started == MOMENT
    world.set_job(JobState.DONE, ended=MOMENT, exit_code=0)
    run = world.until(RunState.FINISHED)
    assert (run.message, run.ended) == ("", MOMENT)
    assert list(run.movies.values_list("state", "total")) == [("done", 3.0), ("done", 4.0)]


def test_each_tick_asks_the_batch_system_once_for_all_runs(world: World, run: Run) -> None:
    for _ in range(3):
        Run.objects.create(project=run.project, tool=run.tool, parameters={}, user=run.user)
    world.ticks()
    assert Run.objects.filter(state="queued").count() == 4
    before = world.batch.status_calls
    world.controller.reconcile()
    assert world.batch.status_calls == before + 1


def test_what_is_unknown_changes_nothing(world: World) -> None:
    world.until(RunState.QUEUED)
    world.set_job(JobState.RUNNING)
    world.until(RunState.RUNNING)
    world.set_job(JobState.UNKNOWN)
    assert world.ticks().status is RunState.RUNNING


def test_a_controller_that_dies_after_submission_does_not_submit_twice(world: World, run: Run) -> None:
    world.batch.submit(SPEC, runs.job_key(run))  # and died before it could note the id
    world.restart()
    world.until(RunState.QUEUED)
    assert len(world.batch.jobs) == 1


@pytest.mark.parametrize("state", [JobState.QUEUED, JobState.RUNNING, JobState.DONE])
def test_a_new_controller_takes_over_wherever_the_old_one_died(world: World, state: JobState) -> None:
    world.until(RunState.QUEUED)
    world.set_job(state)
    world.restart()
    world.ticks()
    world.set_job(JobState.DONE, ended=MOMENT)
    world.restart()
    assert world.until(RunState.FINISHED).movies.filter(state="done").count() == 2


def test_cancelled_before_there_is_a_job(world: World, run: Run) -> None:
    assert request_cancel(run, world.batch)
    assert world.until(RunState.CANCELLED).ended is not None
    assert world.batch.jobs == {}


def test_cancelled_between_submission_and_the_note_of_it(world: World, run: Run) -> None:
    job = world.batch.submit(SPEC, runs.job_key(run))
    request_cancel(run, world.batch)
    world.restart()
    world.until(RunState.CANCELLED)
    assert world.batch.jobs[job].state is JobState.CANCELLED


def test_cancelled_while_it_runs(world: World, run: Run) -> None:
    world.until(RunState.QUEUED)
    world.set_job(JobState.RUNNING)
    world.until(RunState.RUNNING)
    assert request_cancel(run, world.batch)
    assert run.status is RunState.CANCELLING
    assert world.batch.jobs[JobId(run.job_id or 0)].state is JobState.CANCELLED, "no tick is waited for"
    assert world.until(RunState.CANCELLED).message == ""
    assert not request_cancel(run, world.batch)


def test_a_cancellation_survives_a_silent_batch_system(
    world: World, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def silent(ids: Iterable[JobId]) -> None:
        raise JobError("no answer")

    world.until(RunState.QUEUED)
    with monkeypatch.context() as patch:
        patch.setattr(world.batch, "cancel", silent)
        assert request_cancel(run, world.batch)
    world.until(RunState.CANCELLED)


def test_a_job_that_broke_while_it_was_cancelled_is_cancelled(world: World, run: Run) -> None:
    world.until(RunState.QUEUED)
    request_cancel(run, world.batch)
    world.set_job(JobState.FAILED, exit_code=-9)
    assert world.until(RunState.CANCELLED).message == ""


def test_a_run_that_had_finished_before_its_cancellation_is_finished(world: World, run: Run) -> None:
    world.until(RunState.QUEUED)
    world.set_job(JobState.DONE, ended=MOMENT)
    request_cancel(run, world.batch)
    world.until(RunState.FINISHED)


def test_stopped_from_the_desktop(world: World) -> None:
    run = world.until(RunState.QUEUED)
    world.batch.cancel([JobId(run.job_id or 0)])
    assert "desktop" in world.until(RunState.CANCELLED).message


def test_a_failed_job_is_explained_from_its_log(world: World) -> None:
    world.until(RunState.QUEUED)
    world.set_job(JobState.FAILED, exit_code=1, ended=MOMENT)
    assert "disk is full" in world.until(RunState.FAILED).message


def test_what_a_killed_chain_left_is_settled_first(
    world: World, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[dict[str, Any]] = []

    def call(op: str, project: Path, **args: Any) -> dict[str, Any]:
        calls.append({"op": op, "project": project, **args})
        return {"status": {"2": "finished", "7": "failed"}}

    monkeypatch.setattr(ending.bridge, "call", call)
    world.until(RunState.QUEUED)
    folder = run_folder(world.config, run.pk)
    folder.mkdir(parents=True)
    (folder / "STATE.json").write_text(
        '{"status": "running", "error": "", "steps": {'
        '"import": {"protocol_id": 2, "status": "finished", "run_dir": "Runs/000002_I"},'
        '"align": {"protocol_id": 7, "status": "running", "run_dir": "Runs/000007_A"}}}'
    )
    world.set_job(JobState.FAILED, exit_code=-9, ended=MOMENT)
    run = world.until(RunState.FAILED)
    (settle,) = calls
    assert settle["op"] == "settle"
    assert settle["project"] == run.project.path
    assert [(p["id"], p["outcome"]) for p in settle["protocols"]] == [(2, "failed"), (7, "failed")]
    assert run.steps["align"]["status"] == "failed"


def test_movies_that_failed_are_told(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ending, "new_numbers", lambda *_: (NUMBERS[:1], []))
    world.until(RunState.QUEUED)
    world.set_job(JobState.DONE, ended=MOMENT)
    run = world.until(RunState.FINISHED)
    assert run.message.startswith("1 of 2 movies could not be aligned. b.tif: ")
    movie = run.movies.get(stem="b")
    assert movie.state == MovieState.FAILED
    assert movie.message


def test_a_run_without_any_result_has_failed(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ending, "new_numbers", lambda *_: ((), []))
    world.until(RunState.QUEUED)
    world.set_job(JobState.DONE, ended=MOMENT)
    assert "None of the movies" in world.until(RunState.FAILED).message


def test_a_run_that_cannot_be_prepared_fails_with_the_reason(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def prepare(config: Config, order: Order) -> JobSpec:
        raise InvalidInput("a.tif is gone.")

    monkeypatch.setattr(runs, "prepare", prepare)
    assert world.until(RunState.FAILED).message == "a.tif is gone."


def test_a_full_disk_is_told_and_waited_for(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runs, "PATIENCE", 0.05)
    full = [True]

    def prepare(config: Config, order: Order) -> JobSpec:
        if full:
            raise OSError(28, "No space left on device")
        return SPEC

    monkeypatch.setattr(runs, "prepare", prepare)
    assert "disk is full" in world.ticks().message
    full.clear()
    assert world.until(RunState.QUEUED).message == ""


def test_a_full_queue_is_waited_for(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runs, "PATIENCE", 0.05)
    world.batch.refusal = QueueFull("The queue is full.")
    run = world.ticks()
    assert (run.status, run.message) == (RunState.WAITING, "The queue is full.")
    world.batch.refusal = None
    assert world.until(RunState.QUEUED).message == ""


def test_a_job_that_can_never_run_fails_the_run(world: World) -> None:
    world.batch.refusal = JobError("The job asks for 99 CPUs.")
    assert world.until(RunState.FAILED).message == "The job asks for 99 CPUs."


def test_trouble_with_one_run_is_shown_on_it_and_stops_no_other(
    world: World, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runs, "PATIENCE", 0.05)
    other = Run.objects.create(project=run.project, tool=run.tool, parameters={}, user=run.user)
    broken = [True]

    def prepare(config: Config, order: Order) -> JobSpec:
        if order.run_id == run.pk and broken:
            raise ZeroDivisionError("by zero")
        return SPEC

    monkeypatch.setattr(runs, "prepare", prepare)
    assert "by zero" in world.ticks().message
    other.refresh_from_db()
    assert other.status is RunState.QUEUED
    broken.clear()
    assert world.until(RunState.QUEUED).message == ""


def test_a_cancellation_is_never_overwritten_by_an_older_look(world: World, run: Run) -> None:
    world.until(RunState.QUEUED)
    stale = Run.objects.get(pk=run.pk)
    request_cancel(run, world.batch)
    runs._move(stale, RunState.RUNNING)
    run.refresh_from_db()
    assert run.status is RunState.CANCELLING
