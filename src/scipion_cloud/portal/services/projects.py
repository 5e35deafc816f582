"""Making projects and putting them away."""

import shutil

from django.db import IntegrityError, transaction
from django.utils import timezone

from scipion_cloud.errors import Conflict, InvalidInput
from scipion_cloud.model import Role
from scipion_cloud.portal.services.deployments import open_project, to_trash, unsaved
from scipion_cloud.portal.services.guards import at_work, lock, need
from scipion_cloud.portal.services.storages import Place, look_inside
from scipion_cloud.records.models import Project, User
from scipion_cloud.tools import bridge

_DEMO_MOVIES = 6


def create_project(
    user: User,
    name: str,
    description: str = "",
    *,
    demo: bool = False,
    place: Place | None = None,
    source: Place | None = None,
) -> Project:
    """A new project with its Scipion project on disk; with example movies in it if `demo`.

    With a `place` it is kept in that folder of a storage, and opened there at once. Raises InvalidInput for a
    name or a place that cannot be used, BridgeError if Scipion could not make the project; then nothing is
    left.
    """
    project = new_project(user, name, description, place, source)
    if place is not None:
        check_place(place)
    try:
        bridge.call("create_project", project.path, comment=project.name)
        project.data.mkdir(exist_ok=True)
        if demo:
            from scipion_cloud.examples import write_movies  # noqa: PLC0415 - scipy would double the portal's start

            write_movies(project.data, _DEMO_MOVIES)
        insert_project(project)  # last: whoever sees the row finds the folder
    except BaseException:
        shutil.rmtree(project.path, ignore_errors=True)
        raise
    if project.has_storage:
        open_project(user, project)
    return project


def adopt_project(
    user: User, name: str, description: str = "", *, place: Place, source: Place | None = None
) -> Project:
    """Take up a project that lies in a storage already, saved by us, by Scipion or by a predecessor.

    It is closed; opening it brings it here. Raises InvalidInput if there is none.
    """
    project = new_project(user, name, description, place, source)
    found = look_inside(place.connection, place.folder)
    if found.generation is None and found.legacy is None:
        raise InvalidInput(errors={"folder": "There is no Scipion project in this folder."})
    insert_project(project)
    return project


def delete_project(user: User, project: Project) -> None:
    """Put the project away: nobody sees it any more, and its folder here moves to the trash of this home.

    What a storage holds stays there.

    Raises PermissionDenied unless `user` manages it, Conflict while anything in it is still at work.
    """
    need(user, project, Role.MANAGER)
    with transaction.atomic():
        lock(project)
        if project.deployment is not None:
            raise Conflict("This project is open; close it first, so that all work is saved. Then delete it.")
        if unsaved(project) is not None:
            raise Conflict(
                "Work that could not be saved is here; open the project to save it, or discard it."
            )
        if work := at_work(project):
            raise Conflict(f"Still at work in this project: {work}. End that first, then delete the project.")
        project.deleted = timezone.now()
        project.save(update_fields=["deleted"])
    to_trash(project)


def rename_project(user: User, project: Project, name: str, description: str) -> None:
    """Store a name and a description; the folder keeps its name. Raises InvalidInput, PermissionDenied."""
    need(user, project, Role.MANAGER)
    project.name, project.description = _clean_name(name), _clean_description(description)
    project.save(update_fields=["name", "description"])


def new_project(
    user: User, name: str, description: str, place: Place | None, source: Place | None
) -> Project:
    """The row of a new project, not stored yet. Raises InvalidInput for what cannot be."""
    project = Project(name=_clean_name(name), description=_clean_description(description), owner=user)
    project.name_folder()
    if place is not None:
        project.storage, project.storage_url = place.connection, place.url
        _check_free(place.url)
    if source is not None:
        project.source, project.source_url = source.connection, source.url
    return project


def _check_free(url: str) -> None:
    """Raise InvalidInput if another project has the folder, one in it, or one above it."""
    for other in Project.objects.filter(deleted=None).exclude(storage_url="").values_list("storage_url"):
        mine, theirs = f"{url}/", f"{other[0]}/"
        if mine.startswith(theirs) or theirs.startswith(mine):
            raise InvalidInput(
                errors={"folder": "Another project is kept in this folder, or above or below it."}
            )


def check_place(place: Place) -> None:
    """Raise InvalidInput unless a new project can be put there. Asks the storage."""
    if not look_inside(place.connection, place.folder).is_empty:
        raise InvalidInput(errors={"folder": "There are files in this folder; choose an empty one."})


def insert_project(project: Project) -> None:
    """Store a new project. Raises InvalidInput if another one has just taken its folder."""
    try:
        with transaction.atomic():
            project.save(force_insert=True)
    except IntegrityError as e:
        raise InvalidInput(errors={"folder": "Another project has just taken this folder."}) from e


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
