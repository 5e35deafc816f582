"""New projects from what is here: copies of other projects, and archives among their data."""

from dataclasses import dataclass
from urllib.parse import unquote

from django.db import transaction
from django.utils import timezone

from scipion_cloud.controller.preparations import is_here, start_copying
from scipion_cloud.copies.members import is_archive
from scipion_cloud.errors import Conflict, InvalidInput, NotFound, ScipionCloudError
from scipion_cloud.model import LIVE_RUNS, Role
from scipion_cloud.portal.services.guards import lock, need
from scipion_cloud.portal.services.projects import check_place, insert_project, new_project
from scipion_cloud.portal.services.storages import Place, open_folder
from scipion_cloud.portal.uploads.files import DataFile, list_data
from scipion_cloud.records.models import Preparation, Preparing, Project, User
from scipion_cloud.sync.repository import Repository


@dataclass(frozen=True)
class Origin:
    """What a new project is made of."""

    project: Project
    archive: str = ""  # a file of the project's data; empty: the project itself is copied
    generation: int | None = None  # None: as the project is now


def copy_project(
    user: User,
    name: str,
    description: str = "",
    *,
    origin: Origin,
    place: Place | None = None,
    source: Place | None = None,
) -> Project:
    """A new project whose files are being brought from its origin; it opens by itself when they are here.

    Copied are the boxes and all files; what the web pages know of runs stays with the original. Raises
    NotFound for an origin that `user` may not see or an archive that is not there, Conflict for one at work,
    InvalidInput, StorageError.
    """
    original = origin.project
    if not original.allows(user, Role.VIEWER):
        raise NotFound("There is no such project, or you are not a member of it.")
    if origin.archive:
        _check_archive(original, origin.archive)
    else:
        _check_copy(original, origin.generation)
        dataset = original.source
        if source is None and place is not None and dataset is not None and dataset.owner_id == user.pk:
            source = Place(dataset, unquote(original.source_url.removeprefix(dataset.url)))
    project = new_project(user, name, description, place, source)
    if place is not None:
        check_place(place)
    with transaction.atomic():
        lock(original)
        insert_project(project)
        preparation = Preparation.objects.create(
            project=project,
            user=user,
            original=original,
            archive=origin.archive,
            generation=origin.generation,
        )
    start_copying(preparation)  # now, not at the controller's next look: somebody is waiting
    return project


def copy_again(user: User, project: Project) -> None:
    """Try again to bring a new project's files. Raises Conflict unless the last try has failed."""
    need(user, project, Role.MANAGER)
    preparation = getattr(project, "preparation", None)
    if preparation is None or preparation.state != Preparing.FAILED:
        raise Conflict("There is nothing to be tried again: the files are here or on their way.")
    original = preparation.original
    if original is None or not original.allows(user, Role.VIEWER):
        raise Conflict("The project that this one is made from is not there any more, or not open to you.")
    failed = Preparation.objects.filter(pk=preparation.pk, state=Preparing.FAILED.value)
    failed.update(
        state=Preparing.COPYING.value,
        attempt=preparation.attempt + 1,
        job_id=None,
        not_before=None,
        ended=None,
        message="",
        status={},
        created=timezone.now(),
    )
    start_copying(Preparation.objects.get(pk=preparation.pk))


def can_be_copied(user: User) -> list[Project]:
    """The projects that a person may copy, by name."""
    seen = Project.objects.visible_to(user).select_related("owner", "preparation").order_by("name")
    return [project for project in seen if project.is_prepared]


def archives(user: User) -> list[tuple[Project, DataFile]]:
    """The archives among the data of a person's open projects."""
    found = []
    for project in can_be_copied(user):
        if project.is_open:
            try:
                files = list_data(project)
            except ScipionCloudError:  # its folder is gone: told on its own page
                continue
            found += [(project, file) for file in files if _is_usable(file)]
    return found


def _is_usable(file: DataFile) -> bool:
    return is_archive(file.path) and file.path.isprintable()


def _check_archive(holder: Project, path: str) -> None:
    if not holder.is_open:
        raise Conflict(f"The project {holder.name} is closed; open it first, so that its archive is here.")
    found = next((file for file in list_data(holder) if file.path == path), None)
    if found is None:
        raise NotFound(f"There is no file '{path}' among the data of the project {holder.name}.")
    if not _is_usable(found):
        raise InvalidInput(
            errors={"archive": "Choose a .tar, .tar.gz, .tar.bz2, .tar.xz, .tar.zst or .zip file."}
        )


def _check_copy(original: Project, generation: int | None) -> None:
    if not original.is_prepared:
        raise Conflict(f"The project {original.name} is being made itself; wait until it is here.")
    if original.storage is None:
        if generation is not None:
            raise InvalidInput(errors={"generation": "This project is kept here; it has no generations."})
    elif generation is not None or not is_here(original):
        with open_folder(original.storage, original.storage_url) as storage:
            repository = Repository(storage)
            if (repository.latest() if generation is None else repository.generation(generation)) is None:
                raise Conflict(
                    f"Nothing of {original.name} has been saved in its storage yet; open it first."
                )
        return
    if runs := original.runs.filter(state__in=LIVE_RUNS).count():
        what = "A run is" if runs == 1 else f"{runs} runs are"
        raise Conflict(f"{what} going on in {original.name}. Wait for the end, or cancel, then copy it.")
