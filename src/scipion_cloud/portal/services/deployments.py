"""Opening, saving and closing projects that are kept in a storage."""

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from django.db import IntegrityError, transaction
from django.utils import timezone

from scipion_cloud.config import get_config
from scipion_cloud.controller.deployments import start_agent
from scipion_cloud.deployments.client import AgentClient
from scipion_cloud.deployments.states import Phase
from scipion_cloud.errors import Conflict, InvalidInput
from scipion_cloud.model import Role
from scipion_cloud.portal.services.guards import at_work, lock, need
from scipion_cloud.portal.services.storages import open_folder
from scipion_cloud.records.models import Deployment, Project, User
from scipion_cloud.sync.generation import Generation
from scipion_cloud.sync.lease import look
from scipion_cloud.sync.legacy import Legacy, inspect
from scipion_cloud.sync.lock_info import LockInfo
from scipion_cloud.sync.repository import Repository

_USUAL_RATE = 50e6  # bytes/s, until a storage has shown its own
_USUAL_FILES = 300.0  # files/s


@dataclass(frozen=True)
class Expectation:
    """What opening a project will take, as far as it can be known before."""

    generation: Generation | None  # None: nothing has been saved yet
    lock: LockInfo | None  # who had or has it open
    legacy: Legacy | None  # what an earlier system left there instead of a generation
    free: int  # bytes on this machine's disk
    seconds: float  # for all files to arrive

    @property
    def fits(self) -> bool:
        """Whether the disk has room."""
        return self.generation is None or self.generation.bytes < self.free

    @property
    def locked(self) -> bool:
        """Whether somebody has it open now."""
        return self.lock is not None and self.lock.live


def expectation(project: Project) -> Expectation:
    """What opening will take. Asks the storage. Raises StorageError."""
    assert project.storage is not None  # noqa: S101 - callers have looked
    with open_folder(project.storage, project.storage_url) as storage:
        generation, holder = Repository(storage).latest(), look(storage)
        legacy = None if generation else inspect(storage)
    size, files = (generation.bytes, generation.files) if generation else (0, 0)
    seconds = size / (project.storage.bytes_per_second or _USUAL_RATE)
    seconds += files / (project.storage.files_per_second or _USUAL_FILES)
    return Expectation(generation, holder, legacy, shutil.disk_usage(get_config().home).free, seconds)


def open_project(
    user: User,
    project: Project,
    *,
    days: float | None = None,
    generation: int | None = None,
    take_over: str = "",
    import_legacy: bool = False,
) -> Deployment:
    """Open a project for some days; the deployment that is live already if there is one.

    `generation` begins with an earlier one; what has been saved since stays as generations. `take_over` is
    why somebody else's expired lock may be broken. Raises PermissionDenied unless `user` is an editor,
    InvalidInput, Conflict for a project that is kept on this machine or a lock whose holder lives.
    """
    need(user, project, Role.EDITOR)
    if not project.has_storage:
        raise Conflict("This project is kept on this machine; it is always open.")
    if not project.is_prepared:
        raise Conflict("The files of this project are not here yet; it opens by itself when they are.")
    deadline = timezone.now() + _time(days)
    if take_over:
        _refuse_live_lock(project)
    try:
        with transaction.atomic():
            lock(project)
            live = project.deployment
            if live is not None:
                return live
            if (last := unsaved(project)) is not None:
                return _again(last, deadline)
            deployment = Deployment.objects.create(
                project=project,
                user=user,
                deadline=deadline,
                start_generation=generation,
                take_over=take_over,
                import_legacy=import_legacy,
            )
    except IntegrityError as e:
        raise Conflict("Somebody is opening this project at this very moment.") from e
    start_agent(deployment)  # now, not at the controller's next look: somebody is waiting
    return deployment


def unsaved(project: Project) -> Deployment | None:
    """The last deployment, if it failed with work in the working copy that no generation holds."""
    last = project.deployments.first()
    if last is None or last.state is not Phase.FAILED:
        return None
    return last if last.status.get("unsaved") and project.path.exists() else None


def close_project(user: User, project: Project, *, cancel: bool = False) -> Deployment:
    """Save the project a last time and give it free.

    Raises Conflict while runs or a desktop work in it, unless `cancel` says to end them.
    """
    need(user, project, Role.EDITOR)
    deployment = _live(project)
    if not cancel and (work := at_work(project)):
        raise Conflict(f"Still at work in this project: {work}. Wait for the end, or end all and close.")
    Deployment.objects.filter(pk=deployment.pk).update(close_requested=True)
    deployment.refresh_from_db()
    return deployment


def extend_project(user: User, project: Project, days: float | None = None) -> Deployment:
    """Let the time that is left begin afresh. Raises InvalidInput for more than is allowed, Conflict."""
    need(user, project, Role.EDITOR)
    deployment = _live(project)
    later = max(timezone.now() + _time(days), deployment.deadline)
    if not Deployment.objects.filter(pk=deployment.pk, close_requested=False).update(deadline=later):
        raise Conflict("The project is closing.")
    deployment.refresh_from_db()
    return deployment


def save_now(user: User, project: Project) -> None:
    """Ask for a save. Raises Conflict if the project is not open."""
    need(user, project, Role.EDITOR)
    _ask(project, AgentClient.save)


def confirm_deletions(user: User, project: Project) -> None:
    """Allow the save that would delete much, once. Raises Conflict if nothing was asked."""
    need(user, project, Role.MANAGER)
    AgentClient(_live(project).path).confirm()  # the last save asks as well, when nobody works here any more


def go_back(user: User, project: Project, generation: int) -> None:
    """Make the working copy what it was in an earlier generation; what it is now is saved before.

    Raises Conflict while anything works in the project or if it is not open.
    """
    need(user, project, Role.EDITOR)
    if work := at_work(project):
        raise Conflict(f"Still at work in this project: {work}. End that first: its files will change.")
    _ask(project, lambda client: client.revert(generation))


def history(project: Project) -> list[Generation]:
    """The generations that can be restored, the newest first. Asks the storage. Raises StorageError."""
    assert project.storage is not None  # noqa: S101 - callers have looked
    with open_folder(project.storage, project.storage_url) as storage:
        return Repository(storage).generations()


def discard_work(user: User, project: Project) -> None:
    """Put unsaved work of a failed deployment into the trash, so that the project can be opened afresh."""
    need(user, project, Role.MANAGER)
    with transaction.atomic():
        lock(project)
        last = unsaved(project)
        if last is None:
            raise Conflict("There is no unsaved work of this project here.")
        to_trash(project)
        last.status = last.status | {"unsaved": False}
        last.save(update_fields=["status"])


def to_trash(project: Project) -> None:
    """Move working copy and agent's state to the trash of this home."""
    config = get_config()
    trash = config.home / "trash"
    trash.mkdir(mode=0o700, exist_ok=True)
    name = f"{project.folder}-{timezone.now():%Y%m%dT%H%M%S%fZ}"
    for folder, ending in ((project.path, ""), (config.agents / project.folder, ".agent")):
        if folder.exists():
            folder.rename(trash / f"{name}{ending}")


def _refuse_live_lock(project: Project) -> None:
    assert project.storage is not None  # noqa: S101 - it has one
    with open_folder(project.storage, project.storage_url) as storage:
        holder = look(storage)
    if holder is not None and holder.live:
        raise Conflict(f"The project cannot be taken over yet. {holder.describe()}")


def _again(deployment: Deployment, deadline: datetime) -> Deployment:
    """Let a deployment that failed with unsaved work go on: its own agent alone may save that work."""
    changes: dict[str, Any] = {
        "phase": Phase.LOCKING.value,
        "job_id": None,
        "attempt": deployment.attempt + 1,
        "not_before": None,
        "close_requested": False,
        "ended": None,
        "message": "",
        "deadline": deadline,
    }
    for name, value in changes.items():
        setattr(deployment, name, value)
    deployment.save(update_fields=list(changes))
    return deployment


def _time(days: float | None) -> timedelta:
    config = get_config()
    wanted = config.project_days if days is None else days
    if not 0 < wanted <= config.project_max_days:
        raise InvalidInput(errors={"days": f"Choose a time of up to {config.project_max_days} days."})
    return timedelta(days=wanted)


def _live(project: Project) -> Deployment:
    deployment = project.deployment
    if deployment is None:
        raise Conflict("This project is not open.")
    return deployment


def _ask(project: Project, what: Callable[[AgentClient], object]) -> None:
    deployment = _live(project)
    if not deployment.is_usable:
        raise Conflict("The project is not open yet, or is closing.")
    what(AgentClient(deployment.path))
