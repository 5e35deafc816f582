"""Projects, their members and what Scipion has in them."""

import uuid
from dataclasses import asdict
from datetime import datetime

from ninja import Router, Schema, Status
from pydantic import Field

from scipion_cloud.errors import InvalidInput
from scipion_cloud.model import Role
from scipion_cloud.portal import services
from scipion_cloud.portal.api.auth import ApiRequest
from scipion_cloud.portal.api.problems import PROBLEMS
from scipion_cloud.portal.api.schemas import Member, NewMember, NewProject, Project
from scipion_cloud.portal.rights import project_for
from scipion_cloud.records import models
from scipion_cloud.tools.snapshot import read_project

router = Router(tags=["projects"])


@router.get("", response={200: list[Project], **PROBLEMS}, summary="Projects")
def list_projects(request: ApiRequest) -> list[Project]:
    """The projects that you own or are a member of, the newest first."""
    rows = (
        models.Project.objects.visible_to(request.auth)
        .select_related("owner", "preparation")
        .order_by("-created")
    )
    return [Project.of(row, request.auth) for row in rows]


@router.post("", response={201: Project, **PROBLEMS}, summary="Create a project")
def create_project(request: ApiRequest, data: NewProject) -> Status[Project]:
    """Make a project that you own; takes a few seconds, in which Scipion writes its files.

    A copy (`clone_of`) and one from an `archive` come at once; `preparation` tells how far their files are.
    """
    place, source = (
        services.Place(services.connection_for(request.auth, storage), folder) if storage else None
        for storage, folder in ((data.storage, data.folder), (data.source, data.source_folder))
    )
    origin = _origin(request, data)
    if origin is not None:
        if data.existing or data.demo:
            raise InvalidInput(
                "A project begins with one thing: a copy, an archive, examples, or what lies there."
            )
        row = services.copy_project(
            request.auth, data.name, data.description, origin=origin, place=place, source=source
        )
    elif data.existing:
        if place is None:
            raise InvalidInput(errors={"storage": "Say in which storage the project lies."})
        row = services.adopt_project(request.auth, data.name, data.description, place=place, source=source)
    else:
        row = services.create_project(
            request.auth, data.name, data.description, demo=data.demo, place=place, source=source
        )
    return Status(201, Project.of(row, request.auth))


def _origin(request: ApiRequest, data: NewProject) -> services.Origin | None:
    if data.clone_of is not None and data.archive is not None:
        raise InvalidInput(errors={"archive": "Give either a project or an archive to begin with."})
    if data.archive is not None:
        if not data.archive.path:
            raise InvalidInput(errors={"archive": "Give the archive's path in the project's data."})
        return services.Origin(project_for(request.auth, data.archive.project), data.archive.path)
    if data.clone_of is not None:
        return services.Origin(project_for(request.auth, data.clone_of), generation=data.generation)
    return None


@router.post(
    "/{uuid:project_id}/preparation/again", response={202: Project, **PROBLEMS}, summary="Copy again"
)
def copy_again(request: ApiRequest, project_id: uuid.UUID) -> Status[Project]:
    """Try again to bring the files of a copy, or of an archive; refused with 409 unless that has failed."""
    services.copy_again(request.auth, project_for(request.auth, project_id, Role.MANAGER))
    return Status(202, get_project(request, project_id))


@router.get("/{uuid:project_id}", response={200: Project, **PROBLEMS}, summary="One project")
def get_project(request: ApiRequest, project_id: uuid.UUID) -> Project:
    """One project."""
    return Project.of(project_for(request.auth, project_id), request.auth)


@router.delete("/{uuid:project_id}", response={204: None, **PROBLEMS}, summary="Delete a project")
def delete_project(request: ApiRequest, project_id: uuid.UUID) -> Status[None]:
    """Move the project to the trash; refused with 409 while a run or a desktop is going on in it."""
    services.delete_project(request.auth, project_for(request.auth, project_id, Role.MANAGER))
    return Status(204, None)


@router.get("/{uuid:project_id}/members", response={200: list[Member], **PROBLEMS}, summary="Members")
def list_members(request: ApiRequest, project_id: uuid.UUID) -> list[Member]:
    """The owner, then everybody whom the owner let in."""
    project = project_for(request.auth, project_id)
    return [
        _member(project.owner, Role.MANAGER, owner=True),
        *(
            _member(m.user, Role(m.role))
            for m in project.membership_set.select_related("user").order_by("pk")
        ),
    ]


@router.post("/{uuid:project_id}/members", response={201: Member, **PROBLEMS}, summary="Let somebody in")
def add_member(request: ApiRequest, project_id: uuid.UUID, data: NewMember) -> Status[Member]:
    """Let somebody in who has an account here, or change their role."""
    project = project_for(request.auth, project_id, Role.MANAGER)
    membership = services.add_member(request.auth, project, data.email, data.role)
    return Status(201, _member(membership.user, Role(membership.role)))


@router.delete(
    "/{uuid:project_id}/members/{int:user_id}", response={204: None, **PROBLEMS}, summary="End a membership"
)
def remove_member(request: ApiRequest, project_id: uuid.UUID, user_id: int) -> Status[None]:
    """Send somebody away, or leave the project yourself."""
    services.remove_member(request.auth, project_for(request.auth, project_id), user_id)
    return Status(204, None)


class Protocol(Schema):
    """One box of the Scipion project, from a tool or from the desktop."""

    id: int
    class_name: str
    label: str
    comment: str
    status: str = Field(
        description="Scipion's own word: saved, launched, running, finished, failed, aborted, ..."
    )
    created: datetime | None
    started: datetime | None
    ended: datetime | None
    run_dir: str = Field(description="Relative to the project.")
    job_id: str
    error: str
    parents: tuple[int, ...] = Field(description="Boxes whose outputs it takes.")
    outputs: tuple[str, ...]


class Protocols(Schema):
    """All boxes of a project, and what of it could not be read."""

    protocols: list[Protocol]
    problems: tuple[str, ...]


@router.get(
    "/{uuid:project_id}/protocols", response={200: Protocols, **PROBLEMS}, summary="Boxes of the project"
)
def list_protocols(request: ApiRequest, project_id: uuid.UUID) -> Protocols:
    """Everything that Scipion has in this project, whoever started it."""
    snapshot = read_project(project_for(request.auth, project_id).path)
    rows = [Protocol(**asdict(protocol)) for protocol in snapshot.protocols]
    return Protocols(protocols=rows, problems=snapshot.problems)


def _member(user: models.User, role: Role, *, owner: bool = False) -> Member:
    return Member(id=user.pk, email=user.email, name=str(user), role=role, owner=owner)
