"""Desktops: an X session with Scipion in it, shown in the browser."""

import uuid

from ninja import Router, Status

from scipion_cloud.errors import NotFound
from scipion_cloud.model import Role
from scipion_cloud.portal import services
from scipion_cloud.portal.api.auth import ApiRequest
from scipion_cloud.portal.api.problems import PROBLEMS
from scipion_cloud.portal.api.schemas import Desktop
from scipion_cloud.portal.rights import project_for
from scipion_cloud.records import models

router = Router(tags=["desktops"])
_ONE = "/{uuid:project_id}/desktops/{uuid:desktop_id}"


@router.get("/{uuid:project_id}/desktops", response={200: list[Desktop], **PROBLEMS}, summary="Desktops")
def list_desktops(request: ApiRequest, project_id: uuid.UUID) -> list[Desktop]:
    """All desktops that this project has had, the newest first."""
    rows = project_for(request.auth, project_id).desktops.select_related("user")
    return [Desktop.of(row) for row in rows]


@router.post("/{uuid:project_id}/desktops", response={201: Desktop, **PROBLEMS}, summary="Open the desktop")
def open_desktop(request: ApiRequest, project_id: uuid.UUID) -> Status[Desktop]:
    """Open the project's desktop; answers with the one that is open already if there is one."""
    project = project_for(request.auth, project_id, Role.EDITOR)
    desktop = services.open_desktop(request.auth, project)
    desktop.refresh_from_db()
    return Status(201, Desktop.of(desktop))


@router.get(_ONE, response={200: Desktop, **PROBLEMS}, summary="One desktop")
def get_desktop(request: ApiRequest, project_id: uuid.UUID, desktop_id: uuid.UUID) -> Desktop:
    """How it is, and until when."""
    return Desktop.of(_desktop(request, project_id, desktop_id))


@router.post(_ONE + "/extend", response={200: Desktop, **PROBLEMS}, summary="Extend a desktop")
def extend_desktop(request: ApiRequest, project_id: uuid.UUID, desktop_id: uuid.UUID) -> Desktop:
    """Start its time afresh."""
    return Desktop.of(services.extend_desktop(request.auth, _desktop(request, project_id, desktop_id)))


@router.post(_ONE + "/stop", response={200: Desktop, **PROBLEMS}, summary="Stop a desktop")
def stop_desktop(request: ApiRequest, project_id: uuid.UUID, desktop_id: uuid.UUID) -> Desktop:
    """Close it; protocols that it launched go on."""
    return Desktop.of(services.stop_desktop(request.auth, _desktop(request, project_id, desktop_id)))


def _desktop(request: ApiRequest, project_id: uuid.UUID, desktop_id: uuid.UUID) -> models.Desktop:
    project = project_for(request.auth, project_id)
    desktop = project.desktops.select_related("user", "project").filter(pk=desktop_id).first()
    if desktop is None:
        raise NotFound("This project has no such desktop.")
    return desktop
