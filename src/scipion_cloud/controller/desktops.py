"""The life of a desktop: from a row in the database over a job to its end, one small step at each look."""

import logging
import sys
from functools import partial

from django.db import DatabaseError
from django.utils import timezone

from scipion_cloud.config import Config, get_config
from scipion_cloud.controller.background import Background
from scipion_cloud.desktops.settings import DesktopSettings, Phase, SessionState
from scipion_cloud.errors import QueueFull, ScipionCloudError
from scipion_cloud.jobs import JobBackend, JobId, JobSpec, JobState, JobStatus, backend_for
from scipion_cloud.model import LIVE_DESKTOPS, DesktopState
from scipion_cloud.records.models import Desktop
from scipion_cloud.tools.environment import scipion_environ

log = logging.getLogger(__name__)

VISIBLE = (Phase.X_READY, Phase.SCIPION_READY, Phase.SCIPION_CLOSED)
LOG_LINES = 5  # of a failed session, shown to its user
_background = Background()


def reconcile_desktops() -> None:
    """Compare all live desktops with their jobs and act. One that goes wrong does not hold up the others."""
    desktops = list(Desktop.objects.filter(state__in=LIVE_DESKTOPS).select_related("project", "user"))
    for desktop in desktops:
        try:
            look_at(desktop)
        except DatabaseError:
            raise
        except Exception:
            log.exception("desktop %s: looked at again at the next tick", desktop.pk)


def start_desktop(desktop: Desktop) -> None:
    """Submit the desktop's job at once, if it has none; again and again gives the same job.

    Never raises for what the batch system or the configuration refuse: the desktop then tells why.
    """
    if desktop.job_id is not None or desktop.status is not DesktopState.STARTING or desktop.stop_requested:
        return
    config = get_config()
    try:
        settings_of(desktop, config).write(desktop.path)
        job = backend_for(config).submit(_spec(desktop), key=job_key(desktop))
    except QueueFull as e:
        Desktop.objects.filter(pk=desktop.pk).update(message=str(e))
    except (ScipionCloudError, OSError) as e:
        _move(desktop, DesktopState.FAILED, message=str(e), ended=timezone.now())
    else:
        Desktop.objects.filter(pk=desktop.pk).update(job_id=job, message="")
        desktop.job_id = job


def look_at(desktop: Desktop) -> None:
    """Bring one live desktop a step further."""
    backend = backend_for(get_config())
    ending = _reason_to_end(desktop)
    if desktop.job_id is None:
        if not ending:
            start_desktop(desktop)
        elif (job_id := backend.find(job_key(desktop))) is not None:  # a crash came before our note of it
            Desktop.objects.filter(pk=desktop.pk).update(job_id=job_id)
        else:
            _move(desktop, DesktopState.STOPPED, message=ending, ended=timezone.now())
        return
    job_id = JobId(desktop.job_id)
    job = backend.status([job_id])[job_id]
    if job.state.is_final:
        _end(desktop, job, ending, backend)
    elif job.state is JobState.UNKNOWN:
        pass  # the batch system cannot say: nothing has changed that we know of
    elif ending:
        if desktop.status is not DesktopState.STOPPING:
            _move(desktop, DesktopState.STOPPING, message=ending)
        # beside the tick, since processes may take seconds to end
        _background.poll(("cancel", desktop.pk), partial(backend.cancel, [job_id]))
    elif desktop.status is not DesktopState.STARTING:
        pass
    elif job.state is JobState.QUEUED:
        waits = job.reason or "Waiting for its turn: the machine is busy with other jobs."
        Desktop.objects.filter(pk=desktop.pk).exclude(message=waits).update(message=waits)
    elif session_state(desktop).phase in VISIBLE:
        _move(desktop, DesktopState.READY, ready=timezone.now(), message="")


def session_state(desktop: Desktop) -> SessionState:
    """What the desktop's session last told."""
    return SessionState.read(desktop.path)


def job_key(desktop: Desktop) -> str:
    """The key under which a desktop's job is submitted: one desktop, one job."""
    return f"desktop-{desktop.pk.hex}"


def settings_of(desktop: Desktop, config: Config) -> DesktopSettings:
    """What the session of this desktop is to show. Raises ConfigError."""
    project = desktop.project
    scipion = [str(config.scipion_python), "-O", "-m", "scipion", "project", project.path.name]
    return DesktopSettings(
        project=str(project.path),
        title=project.name,
        command=scipion,
        environ=scipion_environ(config, config.projects),
    )


def _spec(desktop: Desktop) -> JobSpec:
    log_file = desktop.path / "session.log"
    return JobSpec(
        argv=(sys.executable, "-m", "scipion_cloud.desktops.session", str(desktop.path)),
        cwd=desktop.path,
        name=f"Desktop of {desktop.project.name}",
        cpus=0,
        owner=desktop.user.email,
        stdout=log_file,
        stderr=log_file,
    )


def _reason_to_end(desktop: Desktop) -> str:
    if desktop.stop_requested:
        return "Stopped."
    return "The desktop's time was over." if desktop.deadline <= timezone.now() else ""


def _end(desktop: Desktop, job: JobStatus, ending: str, backend: JobBackend) -> None:
    """Say how a desktop whose job has ended came to its end."""
    if ending or job.state is JobState.CANCELLED:
        state, message = DesktopState.STOPPED, ending or "Its job was cancelled."
    else:
        state, message = DesktopState.FAILED, _why(desktop, job, backend)
    _move(desktop, state, message=message, ended=job.ended or timezone.now())


def _why(desktop: Desktop, job: JobStatus, backend: JobBackend) -> str:
    """The session's own words if it had time for them, else the batch system's and the end of the log."""
    told = session_state(desktop)
    if told.phase is Phase.ENDED and told.message:
        return told.message
    lines = backend.logs(JobId(desktop.job_id or 0), 4096).stdout.strip().splitlines()[-LOG_LINES:]
    return "\n".join([f"The desktop ended: {job.reason or job.state.value.lower()}.", *lines])


def _move(desktop: Desktop, state: DesktopState, **changes: object) -> None:
    """Change the state, unless somebody else just did; then the next look sees."""
    if Desktop.objects.filter(pk=desktop.pk, state=desktop.state).update(state=state.value, **changes):
        log.info("desktop %s: %s -> %s", desktop.pk, desktop.state, state.value)
        desktop.state = state.value
        for name, value in changes.items():
            setattr(desktop, name, value)
