"""The page of a project's desktop, and the answers that its script asks for."""

import uuid
from typing import Any, cast

from django.contrib.auth.decorators import login_required
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import redirect, render
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_GET, require_POST

from scipion_cloud.controller.desktops import look_at, session_state
from scipion_cloud.errors import Conflict
from scipion_cloud.model import DesktopState, Role
from scipion_cloud.portal import services
from scipion_cloud.portal.rights import project_for
from scipion_cloud.records.models import Desktop, DesktopTicket, Project, User


@login_required
@never_cache
@require_GET
def show(request: HttpRequest, project_id: uuid.UUID) -> HttpResponse:
    """The desktop that fills the window, or the offer to open one."""
    project, may_edit = _project(request, project_id)
    context = {"project": project, "may_edit": may_edit, "state": _state(_latest(project), may_edit)}
    return render(request, "desktops/show.html", context)


@login_required
@require_POST
def open_one(request: HttpRequest, project_id: uuid.UUID) -> HttpResponse:
    """Open the project's desktop, or go to the open one. Its job is submitted before the page is shown."""
    project = project_for(_user(request), project_id, Role.EDITOR)
    services.open_desktop(_user(request), project)
    return redirect("desktop", project.id)


@login_required
@never_cache
@require_GET
def state(request: HttpRequest, project_id: uuid.UUID) -> JsonResponse:
    """How far the desktop is; while it starts, after a look of our own, so that no tick is waited for."""
    project, may_edit = _project(request, project_id)
    desktop = _latest(project)
    if desktop and desktop.status is DesktopState.STARTING and not desktop.stop_requested:
        look_at(desktop)
    return JsonResponse(_state(desktop, may_edit))


@login_required
@require_POST
def ticket(request: HttpRequest, project_id: uuid.UUID) -> JsonResponse:
    """A ticket for one connection. Raises Conflict if no desktop is ready."""
    project, may_edit = _project(request, project_id)
    desktop = _latest(project)
    if desktop is None or desktop.status is not DesktopState.READY:
        raise Conflict("The desktop is not ready; open it or wait a moment.")
    return JsonResponse(
        {
            "ticket": DesktopTicket.issue(desktop, _user(request)),
            "path": f"/desktops/{desktop.pk}/socket",
            "viewOnly": not may_edit,
        }
    )


@login_required
@require_POST
def extend(request: HttpRequest, project_id: uuid.UUID) -> JsonResponse:
    """Start the time that is left afresh."""
    project, may_edit = _project(request, project_id)
    desktop = services.extend_desktop(_user(request), _live(project))
    return JsonResponse(_state(desktop, may_edit))


@login_required
@require_POST
def stop(request: HttpRequest, project_id: uuid.UUID) -> JsonResponse:
    """End the desktop; protocols that it launched go on."""
    project, may_edit = _project(request, project_id)
    desktop = services.stop_desktop(_user(request), _live(project))
    return JsonResponse(_state(desktop, may_edit))


def _user(request: HttpRequest) -> User:
    return cast(User, request.user)


def _project(request: HttpRequest, project_id: uuid.UUID) -> tuple[Project, bool]:
    project = project_for(_user(request), project_id)
    return project, project.allows(_user(request), Role.EDITOR)


def _latest(project: Project) -> Desktop | None:
    return project.desktops.select_related("project", "user").first()


def _live(project: Project) -> Desktop:
    desktop = _latest(project)
    if desktop is None or desktop.status.is_final:
        raise Conflict("No desktop of this project is open.")
    return desktop


def _state(desktop: Desktop | None, may_edit: bool) -> dict[str, Any]:
    if desktop is None:
        return {"state": "none", "phase": "", "deadline": None, "message": "", "viewOnly": not may_edit}
    session = session_state(desktop)
    return {
        "state": desktop.state,
        "phase": "" if desktop.status.is_final else session.phase.value,
        "deadline": desktop.deadline.isoformat(),
        "message": desktop.message or ("" if desktop.status.is_final else session.message),
        "viewOnly": not may_edit,
    }
