"""A project's data: what is there, what is announced, and where to send it."""

import uuid
from datetime import datetime

from ninja import Router, Schema, Status
from pydantic import Field

from scipion_cloud.model import Role
from scipion_cloud.portal.api.auth import ApiRequest
from scipion_cloud.portal.api.problems import PROBLEMS
from scipion_cloud.portal.rights import project_for
from scipion_cloud.portal.uploads import files, plan

router = Router(tags=["data"])


class DataFile(Schema):
    """A whole file in the data folder."""

    path: str = Field(description="Relative to the data folder, with forward slashes.")
    size: int
    modified: datetime
    kind: str = Field(description="movie, gain or other.")


class Announced(Schema):
    """A file that is to be sent."""

    path: str
    size: int = Field(ge=0)


class Announcement(Schema):
    """All files that are to be sent."""

    files: list[Announced]


class PlannedFile(Schema):
    """What to do with one announced file."""

    path: str
    state: plan.State = Field(description="Send it if it is missing, or partial (from `offset` on).")
    id: uuid.UUID | None = Field(description="Of the upload; PATCH goes to `tus`/`id`.")
    offset: int
    reason: str = Field(description="Why it is refused, if it is.")


class Plan(Schema):
    """The answer to an announcement, in its order."""

    tus: str = Field(description="Address of the tus 1.0 endpoint.")
    files: list[PlannedFile]


class Progress(Schema):
    """The server's own count of what was announced."""

    present: int = Field(description="Files.")
    announced: int = Field(description="Files.")
    bytes: int
    bytes_total: int
    missing: list[str] = Field(description="The first of the files that have not arrived.")


@router.get("/{uuid:project_id}/data", response={200: list[DataFile], **PROBLEMS}, summary="Data files")
def list_data(request: ApiRequest, project_id: uuid.UUID) -> list[DataFile]:
    """All whole files in the data folder, in order of their names."""
    rows = files.list_data(project_for(request.auth, project_id))
    return [DataFile(path=r.path, size=r.size, modified=r.modified, kind=r.kind) for r in rows]


@router.delete("/{uuid:project_id}/data", response={204: None, **PROBLEMS}, summary="Delete a data file")
def delete_data(request: ApiRequest, project_id: uuid.UUID, path: str) -> Status[None]:
    """Delete one file of the data folder, for good."""
    files.delete_file(project_for(request.auth, project_id, Role.EDITOR), path)
    return Status(204, None)


@router.post("/{uuid:project_id}/uploads/plan", response={200: Plan, **PROBLEMS}, summary="Announce files")
def plan_uploads(request: ApiRequest, project_id: uuid.UUID, data: Announcement) -> Plan:
    """Announce files and learn which of them need to be sent, and from which byte on."""
    project = project_for(request.auth, project_id, Role.EDITOR)
    planned = plan.announce(project, request.auth, [(file.path, file.size) for file in data.files])
    rows = [
        PlannedFile(path=p.path, state=p.state, id=p.id, offset=p.offset, reason=p.reason) for p in planned
    ]
    return Plan(tus=f"/projects/{project.id}/tus", files=rows)


@router.get("/{uuid:project_id}/uploads", response={200: Progress, **PROBLEMS}, summary="Progress of uploads")
def get_progress(request: ApiRequest, project_id: uuid.UUID) -> Progress:
    """How much of what was announced has arrived."""
    done = plan.progress(project_for(request.auth, project_id))
    return Progress(
        present=done.present,
        announced=done.announced,
        bytes=done.bytes,
        bytes_total=done.bytes_total,
        missing=done.missing,
    )


@router.delete("/{uuid:project_id}/uploads", response={204: None, **PROBLEMS}, summary="Forget missing files")
def forget_uploads(request: ApiRequest, project_id: uuid.UUID) -> Status[None]:
    """Take back the announcement of all files that have not arrived; what came of them is deleted."""
    plan.forget(project_for(request.auth, project_id, Role.EDITOR))
    return Status(204, None)
