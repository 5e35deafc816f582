"""The life of a run: from a row in the database over a job to its end, one small step at each look."""

import logging
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from django.db import DatabaseError, transaction
from django.utils import timezone

from scipion_cloud.config import Config, get_config
from scipion_cloud.controller.background import Background
from scipion_cloud.controller.ending import Ending, conclude
from scipion_cloud.controller.failures import known_cause
from scipion_cloud.controller.orders import order_of, prepare, read_chain
from scipion_cloud.controller.results import Results
from scipion_cloud.errors import JobError, QueueFull, ScipionCloudError
from scipion_cloud.jobs import JobBackend, JobId, JobSpec, JobState, JobStatus, backend_for
from scipion_cloud.model import LIVE_RUNS, MovieState, RunState
from scipion_cloud.records.models import Run

log = logging.getLogger(__name__)

PATIENCE = 5.0  # s before a run that stumbled is looked at again


def job_key(run: Run) -> str:
    """The key under which a run's job is submitted: one run, one job."""
    return f"run-{run.pk.hex}"


def request_cancel(run: Run, backend: JobBackend | None = None) -> bool:
    """Ask for the end of a run, and end its job at once if there is one. False if the run has ended already.

    The controller does the rest, also where the batch system does not answer now, and what is elsewhere.
    """
    live = Run.objects.filter(pk=run.pk, state__in=LIVE_RUNS)
    asked = live.update(cancel_requested=True, state=RunState.CANCELLING.value)
    run.refresh_from_db()
    if asked and run.job_id is not None:
        try:
            (backend or backend_for(get_config())).cancel([JobId(run.job_id)])
        except JobError as e:
            log.warning("run %s: %s", run.pk, e)
    return bool(asked)


class Runs:
    """Brings every live run one step further at each look. All that it remembers can be lost."""

    def __init__(
        self, config: Config, backend: JobBackend, results: Results, wake: Callable[[], None] = lambda: None
    ) -> None:
        """`wake` is called when something is worth a look before the next tick is due."""
        self._config = config
        self._backend = backend
        self._results = results
        self._background = Background(done=wake)
        self._not_before: dict[object, float] = {}

    def reconcile(self) -> None:
        """Compare all live runs with their jobs and act. Never waits for anything slow."""
        runs = list(Run.objects.filter(state__in=LIVE_RUNS).select_related("project").order_by("created"))
        ids = [JobId(run.job_id) for run in runs if run.job_id is not None]
        jobs = self._backend.status(ids) if ids else {}
        for run in runs:
            if time.monotonic() < self._not_before.get(run.pk, 0.0):
                continue
            try:
                self._advance(run, jobs)
            except DatabaseError:
                raise
            except Exception as e:
                unforeseen = not isinstance(e, ScipionCloudError | OSError)
                log.error("run %s: %s; tried again in %.0f s", run.pk, e, PATIENCE, exc_info=unforeseen)
                self._put_off(
                    run, known_cause(str(e)) or f"Something went wrong and is being tried again: {e}"
                )

    def _advance(self, run: Run, jobs: Mapping[JobId, JobStatus]) -> None:
        if run.job_id is None:
            if run.cancel_requested:
                self._cancel_unborn(run)
            else:
                self._prepare(run)
            return
        job = jobs[JobId(run.job_id)]
        if job.state.is_final:
            self._end(run, job)
        elif job.state is JobState.UNKNOWN:
            return  # the batch system cannot say: nothing has changed that we know of
        elif run.cancel_requested:
            cancel = partial(self._backend.cancel, [JobId(run.job_id)])
            self._background.poll(("cancel", run.pk), cancel)
        elif job.state is JobState.QUEUED:
            if run.status is not RunState.QUEUED:
                _move(run, RunState.QUEUED)
        else:
            if run.status is not RunState.RUNNING:
                _move(run, RunState.RUNNING, started=job.started or timezone.now())
            self._follow(run)

    def _cancel_unborn(self, run: Run) -> None:
        job = self._backend.find(job_key(run))
        if job is not None:  # the controller died between the job and the note of it
            Run.objects.filter(pk=run.pk).update(job_id=job)
        else:
            self._background.forget(("prepare", run.pk))
            _move(run, RunState.CANCELLED, ended=timezone.now(), message="Cancelled before it began.")

    def _prepare(self, run: Run) -> None:
        def begin() -> Callable[[], JobSpec]:
            return partial(prepare, self._config, order_of(run))

        try:
            spec = self._background.poll_with(("prepare", run.pk), begin)
        except JobError:
            raise  # it will be tried again
        except ScipionCloudError as e:
            _move(run, RunState.FAILED, ended=timezone.now(), message=str(e))
        else:
            if spec is not None:
                self._submit(run, spec)

    def _submit(self, run: Run, spec: JobSpec) -> None:
        try:
            job = self._backend.submit(spec, key=job_key(run))
        except QueueFull as e:
            self._put_off(run, str(e))
        except ScipionCloudError as e:
            _move(run, RunState.FAILED, ended=timezone.now(), message=str(e))
        else:
            # in this order: a run that counts as queued has a job
            Run.objects.filter(pk=run.pk).update(job_id=job)
            _move(run, RunState.QUEUED)

    def _follow(self, run: Run) -> None:
        """Take over what the chain has written about its steps, and movies that have been finished."""
        steps = read_chain(self._config, run.pk).get("steps")
        if steps and steps != run.steps:
            Run.objects.filter(pk=run.pk).update(steps=steps)
        self._results.harvest(run, steps or {}, self._background)
        if run.message:  # of a trouble that has passed
            Run.objects.filter(pk=run.pk, state=run.state).update(message="")

    def _end(self, run: Run, job: JobStatus) -> None:
        """The job is over: settle Scipion's project, take in all numbers, say how it ended."""

        def begin() -> Callable[[], Ending]:
            known = run.movies.exclude(state=MovieState.WAITING.value).values_list("stem", flat=True)
            order = order_of(run)
            return partial(conclude, self._config, self._backend, job, order, frozenset(known))

        ending = self._background.poll_with(("end", run.pk), begin)
        if ending is None:
            return
        with transaction.atomic():
            self._results.store(run, ending.numbers)
            for stem, reason in ending.lost.items():
                waiting = run.movies.filter(stem=stem, state=MovieState.WAITING.value)
                waiting.update(state=MovieState.FAILED.value, message=reason)
            failed = list(run.movies.filter(state=MovieState.FAILED.value).values_list("name", "message"))
            state, message = ending.verdict(run.movies.count(), failed, cancelled=run.cancel_requested)
            steps = dict(ending.steps) or run.steps
            started = run.started or job.started
            _move(
                run, state, steps=steps, message=message, started=started, ended=job.ended or timezone.now()
            )
        self._results.forget(run)

    def _put_off(self, run: Run, message: str) -> None:
        self._not_before[run.pk] = time.monotonic() + PATIENCE
        Run.objects.filter(pk=run.pk, state__in=LIVE_RUNS).exclude(message=message).update(message=message)


def _move(run: Run, state: RunState, **changes: Any) -> None:
    """Change the state, unless somebody else just did; then the next look sees it. Old messages go."""
    changes.setdefault("message", "")
    if Run.objects.filter(pk=run.pk, state=run.state).update(state=state.value, **changes):
        log.info("run %s: %s -> %s", run.pk, run.state, state.value)
        run.state = state.value
