"""New projects that are copies or come from archives: from a row over a job to a project to work in."""

import logging
import sys
from datetime import timedelta
from functools import partial
from pathlib import Path
from uuid import UUID

from django.db import DatabaseError, transaction
from django.db.models import Q
from django.utils import timezone

from scipion_cloud.config import get_config
from scipion_cloud.controller.background import Background
from scipion_cloud.controller.deployments import start_agent
from scipion_cloud.copies.job import clear
from scipion_cloud.copies.order import FromArchive, FromFolder, FromStorage, Order, What, put
from scipion_cloud.copies.report import read_report
from scipion_cloud.errors import Conflict, QueueFull, ScipionCloudError
from scipion_cloud.jobs import JobBackend, JobId, JobSpec, JobState, JobStatus, backend_for
from scipion_cloud.records.models import Deployment, Preparation, Preparing, Project
from scipion_cloud.tools import bridge
from scipion_cloud.tools.snapshot import read_project

log = logging.getLogger(__name__)

_CREDENTIALS = "storage.sealed"
_PATIENCE = timedelta(minutes=5)  # longest wait before a killed job is followed by the next
_ATTEMPTS = 8
_LOG_LINES = 5  # of a job that failed without a word
_DONE, _FAILED = 0, 1  # exit codes
_background = Background()


def reconcile_preparations() -> None:
    """Compare all preparations with their jobs and act. One that goes wrong holds up no other."""
    deleted = Q(state=Preparing.FAILED.value, project__deleted__isnull=False)
    going = Preparation.objects.filter(Q(state=Preparing.COPYING.value) | deleted)
    for preparation in going.select_related("project", "original__storage", "user"):
        try:
            look_at(preparation)
        except DatabaseError:
            raise
        except Exception:
            log.exception("preparation %s: looked at again at the next tick", preparation.pk)


def look_at(preparation: Preparation) -> None:
    """Bring one preparation a step further."""
    backend = backend_for(get_config())
    if preparation.project.deleted is not None:
        _forget(preparation, backend)
        return
    if preparation.job_id is None:
        start_copying(preparation)
        return
    job_id = JobId(preparation.job_id)
    job = backend.status([job_id])[job_id]
    if job.state is JobState.QUEUED:
        _note(preparation, message=job.reason or "Waiting for its turn.")
    elif job.state is JobState.RUNNING:
        _note(preparation, message="", status=read_report(preparation.path) or preparation.status)
    elif job.state.is_final:
        _note(preparation, status=read_report(preparation.path) or preparation.status)
        _job_ended(preparation, job, backend)


def start_copying(preparation: Preparation) -> None:
    """Submit the job, if there is none; again and again gives the same job.

    Never raises for what is refused: the preparation then tells why.
    """
    if preparation.job_id is not None or (preparation.not_before and preparation.not_before > timezone.now()):
        return
    try:
        preparation.path.mkdir(mode=0o700, parents=True, exist_ok=True)
        _order(preparation, what_to_copy(preparation)).write(preparation.path)
        job = backend_for(get_config()).submit(_spec(preparation), key=_key(preparation))
    except QueueFull as e:
        _note(preparation, message=str(e))
    except (ScipionCloudError, OSError) as e:
        _fail(preparation, str(e))
    else:
        _note(preparation, job_id=job, message="")


def what_to_copy(preparation: Preparation) -> What:
    """Where the files are now, with what is needed to read them. Raises Conflict if they cannot be had."""
    original = preparation.original
    if original is None or original.deleted is not None or not original.is_prepared:
        raise Conflict("The project that this one is made from is not there any more.")
    if preparation.archive:
        if not original.is_open:
            raise Conflict(f"The archive is in the project {original.name}, which is closed; open it first.")
        return FromArchive(str(original.path), f"data/{preparation.archive}")
    live = original.deployment
    dataset = str(live.path / "source") if live and original.source_url else None
    if preparation.generation is None and is_here(original):
        _note(preparation, deployment=live.pk if live else None)
        return FromFolder(str(original.path), dataset)
    if original.storage is None:
        raise Conflict("This project is kept on this machine: it has no generations, only its present state.")
    _note(preparation, deployment=None)
    sealed = preparation.path / _CREDENTIALS
    put(sealed, original.storage.credentials.encode())
    key = str(get_config().storage_key)
    return FromStorage(original.storage_url, str(original.path), str(sealed), key, preparation.generation)


def is_here(project: Project) -> bool:
    """Whether all files of a project are on this machine."""
    if not project.has_storage:
        return True
    live = project.deployment
    return live is not None and live.is_usable and not live.status.get("arriving")


def _order(preparation: Preparation, what: What) -> Order:
    project = preparation.project
    dataset = get_config().agents / project.folder / "source" if project.source_url else None
    return Order(project.path, what, dataset)


def _job_ended(preparation: Preparation, job: JobStatus, backend: JobBackend) -> None:
    if job.exit_code == _DONE and job.state is JobState.DONE:
        _take_in(preparation)
    elif job.state is JobState.CANCELLED:
        _fail(preparation, "Its job was cancelled.")
    elif job.exit_code == _FAILED:
        lines = backend.logs(JobId(preparation.job_id or 0), 4096).stdout.strip().splitlines()
        _fail(preparation, preparation.status.get("message") or "\n".join(lines[-_LOG_LINES:]) or job.reason)
    elif preparation.attempt >= _ATTEMPTS:
        _fail(preparation, f"It was interrupted {preparation.attempt} times ({job.reason}).")
    else:  # killed, or the machine went down
        log.warning("preparation %s: its job ended (%s); another follows", preparation.pk, job.reason)
        _again(preparation, "It was interrupted, and starts again.")


def _take_in(preparation: Preparation) -> None:
    """All is copied: give it its place, bring it in order, and let people in."""
    project, order = preparation.project, Order.read(preparation.path)
    if not project.path.exists():
        if preparation.deployment is not None and not _is_usable(preparation.deployment):
            # its agent may have removed files while they were copied: all of them are in the storage now
            if _cleared(preparation, order.ready):
                _again(preparation, "The project was closed meanwhile; it is copied from its storage.")
            return
        with transaction.atomic():
            if not Project.objects.select_for_update().filter(pk=project.pk, deleted=None).exists():
                return
            order.ready.rename(project.path)
    if not _is_settled(preparation):
        return
    project.data.mkdir(exist_ok=True)
    with transaction.atomic():
        if not Project.objects.select_for_update().filter(pk=project.pk, deleted=None).exists():
            return
        _note(preparation, state=Preparing.DONE.value, message="", ended=timezone.now())
        deadline = timezone.now() + timedelta(days=get_config().project_days)
        opened = (
            Deployment.objects.create(project=project, user=preparation.user, deadline=deadline)
            if project.has_storage
            else None
        )
    log.info("preparation %s: done", preparation.pk)
    if opened is not None:
        start_agent(opened)
    _background.poll(("clear", preparation.pk, "done"), partial(clear, preparation.path))


def _is_usable(deployment: UUID) -> bool:
    found = Deployment.objects.filter(pk=deployment).first()
    return found is not None and found.is_usable


def _is_settled(preparation: Preparation) -> bool:
    """True once no box claims to be at work: its job, if there is one, works in the original."""
    path = preparation.project.path
    active = [box.id for box in read_project(path).protocols if box.is_active]
    if not active:
        return True
    told = "It was at work in the project that this one is made from."
    boxes = [{"id": box, "outcome": "aborted", "message": told} for box in active]
    work = partial(bridge.call, "settle", path, protocols=boxes)
    try:
        return _background.poll(("settle", preparation.pk), work) is not None
    except ScipionCloudError as e:
        log.warning("preparation %s: its boxes are left as they are: %s", preparation.pk, e)
        return True


def _forget(preparation: Preparation, backend: JobBackend) -> None:
    """The new project was deleted: end the job, then remove what it has copied."""
    job = preparation.job_id or backend.find(_key(preparation))
    if job is not None and not backend.status([JobId(job)])[JobId(job)].state.is_final:
        _background.poll(("cancel", preparation.pk), partial(backend.cancel, [JobId(job)]))
        return
    target = preparation.project.path
    order = Order(target, FromArchive("", ""))
    if _cleared(preparation, order.parts, order.ready, preparation.path):
        _note(preparation, state=Preparing.CANCELLED.value, message="", ended=timezone.now())


def _cleared(preparation: Preparation, *folders: Path) -> bool:
    """True once these folders are removed, which may take a while."""

    def work() -> bool:
        for folder in folders:
            clear(folder)
        return True

    return _background.poll(("clear", preparation.pk, len(folders)), work) is not None


def _fail(preparation: Preparation, why: str) -> None:
    _note(preparation, state=Preparing.FAILED.value, message=why, ended=timezone.now())
    log.info("preparation %s: failed: %s", preparation.pk, why)
    (preparation.path / _CREDENTIALS).unlink(missing_ok=True)
    parts = Order(preparation.project.path, FromArchive("", "")).parts
    _background.poll(("clear", preparation.pk, preparation.attempt, "failed"), partial(clear, parts))


def _again(preparation: Preparation, why: str) -> None:
    wait = min(_PATIENCE, timedelta(seconds=2 ** min(preparation.attempt, 10)))
    _note(
        preparation,
        job_id=None,
        attempt=preparation.attempt + 1,
        not_before=timezone.now() + wait,
        message=why,
    )


def _key(preparation: Preparation) -> str:
    return f"preparation-{preparation.project_id.hex}-{preparation.attempt}"


def _spec(preparation: Preparation) -> JobSpec:
    log_file = preparation.path / "job.log"
    return JobSpec(
        argv=(sys.executable, "-m", "scipion_cloud.copies.job", str(preparation.path)),
        cwd=preparation.path,
        name=f"Files of {preparation.project.name}",
        owner=preparation.user.email if preparation.user else "",
        stdout=log_file,
        stderr=log_file,
    )


def _note(preparation: Preparation, **changes: object) -> None:
    """Write what is new into the row, unless it is over."""
    new = {name: value for name, value in changes.items() if getattr(preparation, name) != value}
    if new:
        over = (Preparing.DONE.value, Preparing.CANCELLED.value)
        Preparation.objects.filter(pk=preparation.pk).exclude(state__in=over).update(**new)
        for name, value in new.items():
            setattr(preparation, name, value)
