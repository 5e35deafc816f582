"""Projects that are kept in a storage: opening, saving, closing, and their generations."""

import uuid

from ninja import Router, Schema, Status
from pydantic import Field

from scipion_cloud.errors import NotFound
from scipion_cloud.model import Role
from scipion_cloud.portal import services
from scipion_cloud.portal.api.auth import ApiRequest
from scipion_cloud.portal.api.problems import PROBLEMS
from scipion_cloud.portal.api.schemas import Deployment, Generation, Lock
from scipion_cloud.portal.rights import project_for
from scipion_cloud.records import models

router = Router(tags=["deployments"])
_ONE = "/{uuid:project_id}/deployment"


class Expectation(Schema):
    """What opening a project will take."""

    generation: Generation | None
    lock: Lock | None
    free_bytes: int
    seconds: float


class Opening(Schema):
    """How a project is to be opened."""

    days: float | None = Field(None, description="Until it closes by itself, unless it is extended.")
    generation: int | None = Field(None, description="An earlier one to begin with.")
    take_over: str = Field("", description="Why the expired lock of somebody else may be broken.")
    import_legacy: bool = Field(False, description="Take up what an earlier system left there.")


class Closing(Schema):
    """How a project is to be closed."""

    cancel: bool = Field(False, description="End runs and the desktop; else they refuse with 409.")


class Extension(Schema):
    """How long a project is to stay open."""

    days: float | None = None


@router.get(_ONE, response={200: Deployment, **PROBLEMS}, summary="The project's deployment")
def get_deployment(request: ApiRequest, project_id: uuid.UUID) -> Deployment:
    """The one that is live, or the last one."""
    deployment = project_for(request.auth, project_id).deployments.first()
    if deployment is None:
        raise NotFound("This project has never been opened here.")
    return Deployment.of(deployment)


@router.get(_ONE + "/expectation", response={200: Expectation, **PROBLEMS}, summary="Before opening")
def get_expectation(request: ApiRequest, project_id: uuid.UUID) -> Expectation:
    """Size, time and lock, before anything is started. Asks the storage."""
    found = services.expectation(_stored(request, project_id, Role.VIEWER))
    return Expectation(
        generation=Generation.of(found.generation) if found.generation else None,
        lock=Lock.of(found.lock) if found.lock else None,
        free_bytes=found.free,
        seconds=found.seconds,
    )


@router.post(_ONE, response={201: Deployment, **PROBLEMS}, summary="Open the project")
def open_project(request: ApiRequest, project_id: uuid.UUID, data: Opening) -> Status[Deployment]:
    """Bring the project here; answers with the deployment that is live already if there is one."""
    deployment = services.open_project(request.auth, _stored(request, project_id), **data.dict())
    return Status(201, Deployment.of(deployment))


@router.post(_ONE + "/save", response={202: Deployment, **PROBLEMS}, summary="Save now")
def save_project(request: ApiRequest, project_id: uuid.UUID) -> Status[Deployment]:
    """Ask for a save beside those that come by themselves."""
    project = _stored(request, project_id)
    services.save_now(request.auth, project)
    return Status(202, get_deployment(request, project_id))


@router.post(_ONE + "/extend", response={200: Deployment, **PROBLEMS}, summary="Extend")
def extend_project(request: ApiRequest, project_id: uuid.UUID, data: Extension) -> Deployment:
    """Let the time that is left begin afresh."""
    return Deployment.of(services.extend_project(request.auth, _stored(request, project_id), data.days))


@router.post(_ONE + "/close", response={202: Deployment, **PROBLEMS}, summary="Close the project")
def close_project(request: ApiRequest, project_id: uuid.UUID, data: Closing) -> Status[Deployment]:
    """Save it a last time and give it free."""
    project = _stored(request, project_id)
    return Status(202, Deployment.of(services.close_project(request.auth, project, cancel=data.cancel)))


@router.get("/{uuid:project_id}/generations", response={200: list[Generation], **PROBLEMS}, summary="History")
def list_generations(request: ApiRequest, project_id: uuid.UUID) -> list[Generation]:
    """What can be restored, the newest first. Asks the storage."""
    return [Generation.of(g) for g in services.history(_stored(request, project_id, Role.VIEWER))]


@router.post(
    "/{uuid:project_id}/generations/{int:number}/restore",
    response={202: Deployment, **PROBLEMS},
    summary="Go back",
)
def restore_generation(request: ApiRequest, project_id: uuid.UUID, number: int) -> Status[Deployment]:
    """Make the open project what it was. What it is now is saved before; the result is a new generation."""
    services.go_back(request.auth, _stored(request, project_id), number)
    return Status(202, get_deployment(request, project_id))


def _stored(request: ApiRequest, project_id: uuid.UUID, role: Role = Role.EDITOR) -> models.Project:
    project = project_for(request.auth, project_id, role)
    if not project.has_storage:
        raise NotFound("This project is kept on this machine: it is always open and has no generations.")
    return project
