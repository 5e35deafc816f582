"""The life of a deployment: from a row in the database over its agent's job to its end, step by step.

The agent does the work and owns the truth; here it is started, started again when it was killed, told to
close when somebody asks or the time is over, and what it says is copied into the row.
"""

import json
import logging
import sys
from collections.abc import Mapping
from datetime import timedelta
from functools import partial
from pathlib import Path

from django.db import DatabaseError
from django.utils import timezone

from scipion_cloud.config import Config, get_config
from scipion_cloud.controller.background import Background
from scipion_cloud.controller.protocols import protocols
from scipion_cloud.controller.runs import request_cancel
from scipion_cloud.deployments.client import AgentClient
from scipion_cloud.deployments.states import Exit, Phase
from scipion_cloud.deployments.status import STATUS_FILE, AgentStatus
from scipion_cloud.errors import Conflict, QueueFull, ScipionCloudError
from scipion_cloud.jobs import JobBackend, JobId, JobSpec, JobState, JobStatus, backend_for
from scipion_cloud.model import LIVE_DESKTOPS, LIVE_RUNS
from scipion_cloud.records.models import Deployment
from scipion_cloud.records.models.deployments import ENDED

log = logging.getLogger(__name__)

GRACE = 3600.0  # seconds that a final save may take when the whole service is stopped
_PATIENCE = timedelta(minutes=5)  # longest wait before a killed agent gets its next job
_LARGE, _MANY = 200e6, 500  # bytes and files from which a stage-in tells the storage's speed
_FINAL_EXITS = (Exit.ERROR, Exit.USAGE, Exit.LOCKED, Exit.LEASE_LOST, Exit.NOT_READY, Exit.DIVERGED)
CREDENTIALS, SOURCE_CREDENTIALS = "storage.sealed", "source.sealed"  # in the agent's state folder
_LOG_LINES = 5  # of an agent that failed without a word
_background = Background()


def reconcile_deployments() -> None:
    """Compare all live deployments with their agents and act. One that goes wrong holds up no other."""
    rows = Deployment.objects.exclude(phase__in=ENDED).select_related("project__storage", "project__source")
    live = list(rows)
    backend = backend_for(get_config())
    jobs = backend.status(JobId(deployment.job_id) for deployment in live if deployment.job_id is not None)
    for deployment in live:
        try:
            look_at(deployment, backend, jobs)
        except DatabaseError:
            raise
        except Exception:
            log.exception("deployment %s: looked at again at the next tick", deployment.pk)


def look_at(deployment: Deployment, backend: JobBackend, jobs: Mapping[JobId, JobStatus]) -> None:
    """Bring one live deployment a step further; `jobs` has the status of its agent's job."""
    if deployment.job_id is None:
        start_agent(deployment)
        return
    job = jobs[JobId(deployment.job_id)]
    told = last_word(deployment)
    if job.state.is_final:
        _agent_ended(deployment, job, told, backend)
    elif job.state is JobState.QUEUED:
        _note(deployment, message=job.reason or "Waiting for its turn.")
    elif job.state is JobState.RUNNING and told is not None:
        _follow(deployment, told)
        _steer(deployment, told)


def start_agent(deployment: Deployment) -> None:
    """Submit the agent's job, if there is none; again and again gives the same job.

    Never raises for what the batch system or the configuration refuse: the deployment then tells why.
    """
    if deployment.job_id is not None or (deployment.not_before and deployment.not_before > timezone.now()):
        return
    config = get_config()
    backend = backend_for(config)
    try:
        if deployment.close_requested and deployment.attempt == 1 and not backend.find(_key(deployment)):
            _move(deployment, Phase.RELEASED, message="Closed before it began.", ended=timezone.now())
            return
        _write_credentials(deployment)
        job = backend.submit(_spec(deployment, config), key=_key(deployment))
    except QueueFull as e:
        _note(deployment, message=str(e))
    except (ScipionCloudError, OSError) as e:
        _move(deployment, Phase.FAILED, message=str(e), ended=timezone.now())
    else:
        _note(deployment, job_id=job, message="")


def last_word(deployment: Deployment) -> AgentStatus | None:
    """What the agent of this very deployment last told."""
    try:
        status = AgentStatus.from_json((deployment.path / STATUS_FILE).read_bytes())
    except (OSError, ValueError):
        return None
    return status if status.deployment == deployment.pk.hex else None


def _follow(deployment: Deployment, told: AgentStatus) -> None:
    """Copy what the agent says into the row."""
    if told.phase.is_open and told.arriving is None and deployment.status.get("arriving", True):
        _learn_speed(deployment, told)
    changes = {
        "phase": deployment.phase
        if told.phase.is_final
        else told.phase.value,  # final once its job has ended
        "status": json.loads(told.to_json()),
        "message": told.message,
        "generation": told.generation,
        "last_saved": told.last_saved,
    }
    if told.phase.is_open and deployment.ready is None:
        changes["ready"] = timezone.now()
    _note(deployment, **changes)


def _learn_speed(deployment: Deployment, told: AgentStatus) -> None:
    """All has arrived: remember how fast the storage was, for the next estimate."""
    storage, copied = deployment.project.storage, told.project
    passed = (told.updated - told.started).total_seconds()
    if storage is None or copied is None or passed <= 0:
        return
    if copied.bytes_done > _LARGE:
        storage.bytes_per_second = copied.bytes_done / passed
    elif copied.files_done > _MANY:
        storage.files_per_second = copied.files_done / passed
    storage.save(update_fields=["bytes_per_second", "files_per_second"])


def _steer(deployment: Deployment, told: AgentStatus) -> None:
    """Tell the agent to close once nothing writes any more, if it is to close."""
    if told.phase.is_final or told.closing:
        return
    if deployment.deadline <= timezone.now() and not deployment.close_requested:
        log.info("deployment %s: its time is over", deployment.pk)
        _note(deployment, close_requested=True)
    if deployment.close_requested and _is_quiet(deployment):
        # beside the tick: the agent may be busy
        client = AgentClient(deployment.path)
        try:
            _background.poll(("close", deployment.pk), client.close)
        except (Conflict, OSError) as e:  # it has only just begun, or is just ending
            log.debug("deployment %s: %s", deployment.pk, e)


def _is_quiet(deployment: Deployment) -> bool:
    """End what still works in the project, as its files would be torn in the save; True once nothing does."""
    project = deployment.project
    runs = list(project.runs.filter(state__in=LIVE_RUNS))
    for run in runs:
        request_cancel(run)
    desktops = project.desktops.filter(state__in=LIVE_DESKTOPS)
    desktops.filter(stop_requested=False).update(stop_requested=True)
    backend = backend_for(get_config())
    left = [] if runs else protocols(project, backend)
    if left:
        _background.poll(("protocols", deployment.pk), partial(backend.cancel, left))
    return not runs and not left and not desktops.exists()


def _agent_ended(
    deployment: Deployment, job: JobStatus, told: AgentStatus | None, backend: JobBackend
) -> None:
    """The end of the deployment, or of one agent that has to be followed by another."""
    if told is not None:
        _follow(deployment, told)
    if job.exit_code == Exit.RELEASED:
        _move(deployment, Phase.RELEASED, message="", ended=timezone.now())
        _forget_credentials(deployment)
    elif job.exit_code in _FINAL_EXITS:
        why = told.message if told and told.phase.is_final else _tail(deployment, job, backend)
        _move(deployment, Phase.FAILED, message=why, ended=timezone.now())
    else:  # killed, or the machine went down: the next one goes on where it was
        wait = min(_PATIENCE, timedelta(seconds=2 ** min(deployment.attempt, 10)))
        log.warning("deployment %s: its agent ended (%s); another follows", deployment.pk, job.reason)
        _note(
            deployment,
            job_id=None,
            attempt=deployment.attempt + 1,
            not_before=timezone.now() + wait,
            message="The agent was interrupted; it starts again and goes on where it was.",
        )


def _tail(deployment: Deployment, job: JobStatus, backend: JobBackend) -> str:
    lines = backend.logs(JobId(deployment.job_id or 0), 4096).stdout.strip().splitlines()[-_LOG_LINES:]
    return "\n".join(lines) or f"The agent ended: {job.reason}."


def _write_credentials(deployment: Deployment) -> None:
    """Hand the sealed credentials over as files, which only this home's key opens."""
    project = deployment.project
    deployment.path.mkdir(parents=True, exist_ok=True, mode=0o700)
    for name, connection in ((CREDENTIALS, project.storage), (SOURCE_CREDENTIALS, project.source)):
        if connection is not None:
            file = deployment.path / name
            file.touch(mode=0o600)
            file.write_text(connection.credentials)


def _forget_credentials(deployment: Deployment) -> None:
    for name in (CREDENTIALS, SOURCE_CREDENTIALS):
        (deployment.path / name).unlink(missing_ok=True)


def _key(deployment: Deployment) -> str:
    return f"deployment-{deployment.pk.hex}-{deployment.attempt}"


def _spec(deployment: Deployment, config: Config) -> JobSpec:
    project = deployment.project
    state = deployment.path
    options: dict[str, object] = {
        "--storage": project.storage_url,
        "--credentials": state / CREDENTIALS,
        "--work": project.path,
        "--state": state,
        "--deployment": deployment.pk.hex,
        "--every": f"{config.autosave_seconds:g}s",
        "--keep-daily": f"{config.keep_days}d",
        "--user": deployment.user.email if deployment.user else "",
        "--sealed-with": config.storage_key,
    }
    if project.source_url:
        options |= {
            "--source": project.source_url,
            "--source-credentials": state / SOURCE_CREDENTIALS,
            "--source-target": state / "source",
        }
    if deployment.start_generation and deployment.attempt == 1:
        options["--generation"] = deployment.start_generation
    if deployment.take_over:
        options["--take-over"] = deployment.take_over
    flags = ["--remove-work", *(["--import-legacy"] if deployment.import_legacy else [])]
    if project.storage and not project.storage.exclusive:
        flags.append("--trust-lock")  # one_project_a_folder keeps others away, as far as this portal goes
    argv = [str(Path(sys.executable).with_name("scipion-cloud")), "agent", "run", *flags]
    for name, value in options.items():
        argv += [name, str(value)]
    log_file = state / "agent.log"
    return JobSpec(
        argv=tuple(argv),
        cwd=state,
        name=f"Data of {project.name}",
        cpus=0,
        owner=deployment.user.email if deployment.user else "",
        stdout=log_file,
        stderr=log_file,
        grace=GRACE,
    )


def _note(deployment: Deployment, **changes: object) -> None:
    """Write what is new into the row."""
    new = {name: value for name, value in changes.items() if getattr(deployment, name) != value}
    if new:
        Deployment.objects.filter(pk=deployment.pk).exclude(phase__in=ENDED).update(**new)
        for name, value in new.items():
            setattr(deployment, name, value)


def _move(deployment: Deployment, phase: Phase, **changes: object) -> None:
    before = deployment.phase
    _note(deployment, phase=phase.value, **changes)
    log.info("deployment %s: %s -> %s", deployment.pk, before, phase.value)
