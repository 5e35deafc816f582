"""Making projects and putting them away."""

import shutil

from django.db import transaction
from django.utils import timezone

from scipion_cloud.config import get_config
from scipion_cloud.errors import Conflict, InvalidInput
from scipion_cloud.model import DesktopState, Role, RunState
from scipion_cloud.portal.services.guards import lock, need
from scipion_cloud.records.models import Project, User
from scipion_cloud.tools import bridge

_DEMO_MOVIES = 6
_LIVE_RUNS = [s.value for s in RunState if not s.is_final]
_LIVE_DESKTOPS = [s.value for s in DesktopState if not s.is_final]


def create_project(user: User, name: str, description: str = "", *, demo: bool = False) -> Project:
    """A new project with its Scipion project on disk; with example movies in it if `demo`.

    Raises InvalidInput for a name that cannot be used, BridgeError if Scipion could not make the project;
    then nothing is left.
    """
    project = Project(name=_clean_name(name), description=_clean_description(description), owner=user)
    project.name_folder()
    try:
        bridge.call("create_project", project.path, comment=project.name)
        project.data.mkdir(exist_ok=True)
        if demo:
            from scipion_cloud.examples import write_movies  # noqa: PLC0415 - scipy would double the portal's start

            write_movies(project.data, _DEMO_MOVIES)
        project.save(force_insert=True)  # last: whoever sees the row finds the folder
    except BaseException:
        shutil.rmtree(project.path, ignore_errors=True)
        raise
    return project


def delete_project(user: User, project: Project) -> None:
    """Put the project away: nobody sees it any more, and its folder moves to the trash of this home.

    Raises PermissionDenied unless `user` manages it, Conflict while anything in it is still at work.
    """
    need(user, project, Role.MANAGER)
    with transaction.atomic():
        lock(project)
        if project.desktops.filter(state__in=_LIVE_DESKTOPS).exists():
            raise Conflict("A desktop of this project is open; stop it first, then delete the project.")
        if runs := project.runs.filter(state__in=_LIVE_RUNS).count():
            what = "A run" if runs == 1 else f"{runs} runs"
            raise Conflict(f"{what} of this project still going on; wait for the end or cancel, then delete.")
        project.deleted = timezone.now()
        project.save(update_fields=["deleted"])
    trash = get_config().home / "trash"
    trash.mkdir(mode=0o700, exist_ok=True)
    if project.path.exists():
        project.path.rename(trash / f"{project.folder}-{project.deleted:%Y%m%dT%H%M%SZ}")


def rename_project(user: User, project: Project, name: str, description: str) -> None:
    """Store a name and a description; the folder keeps its name. Raises InvalidInput, PermissionDenied."""
    need(user, project, Role.MANAGER)
    project.name, project.description = _clean_name(name), _clean_description(description)
    project.save(update_fields=["name", "description"])


def _clean_name(name: str) -> str:
    name = " ".join(name.split())
    longest = Project._meta.get_field("name").max_length or 0
    if not name or not name.isprintable():
        raise InvalidInput(
            errors={"name": "Give the project a name of readable characters, as 'Apoferritin, May'."}
        )
    if len(name) > longest:
        raise InvalidInput(errors={"name": f"The name has {len(name)} characters; {longest} fit."})
    return name


def _clean_description(description: str) -> str:
    longest = Project._meta.get_field("description").max_length or 0
    if len(description) > longest or "\0" in description:
        raise InvalidInput(errors={"description": f"Plain text of up to {longest} characters fits here."})
    return description.strip()
