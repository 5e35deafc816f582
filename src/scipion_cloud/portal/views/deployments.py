"""Opening, saving and closing a project that is kept in a storage, and its history."""

import uuid
from typing import Any, cast

from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_GET, require_POST

from scipion_cloud.config import get_config
from scipion_cloud.errors import InvalidInput, NotFound, ScipionCloudError
from scipion_cloud.model import Role
from scipion_cloud.portal import services
from scipion_cloud.portal.rights import project_for
from scipion_cloud.records.models import Project, User

_DAYS = (1, 2, 3, 7, 14, 30)


@login_required
@never_cache
@require_GET
def state(request: HttpRequest, project_id: uuid.UUID) -> HttpResponse:
    """The part of the project's page that tells where the deployment stands.

    The page says in `open` what it was made for; when that has changed it is told to load itself anew.
    """
    project = _project(request, project_id, Role.VIEWER)
    if project.is_open != (request.GET.get("open") == "yes") or project.deployment is None:
        return HttpResponse(headers={"HX-Refresh": "true"})
    name = "strip" if project.is_open else "panel"
    return render(request, f"deployments/{name}.html", context_of(request, project))


@login_required
@never_cache
@require_GET
def expectation(request: HttpRequest, project_id: uuid.UUID) -> HttpResponse:
    """A part of the page: size, time and lock as the storage tells them, and the form that opens."""
    project = _project(request, project_id, Role.VIEWER)
    context = context_of(request, project)
    try:
        context["expected"] = services.expectation(project)
    except ScipionCloudError as e:
        context["trouble"] = str(e)
    return render(request, "deployments/expectation.html", context)


@login_required
@require_POST
def open_one(request: HttpRequest, project_id: uuid.UUID) -> HttpResponse:
    """Bring the project here."""
    project = _project(request, project_id, Role.EDITOR)

    def act() -> None:
        services.open_project(
            _user(request),
            project,
            days=_number(request.POST.get("days")),
            generation=_whole(request.POST.get("generation")),
            take_over=" ".join(request.POST.get("take_over", "").split())[:500],
            import_legacy=request.POST.get("import_legacy") == "yes",
        )

    return _do(request, project, act)


@login_required
@require_POST
def close(request: HttpRequest, project_id: uuid.UUID) -> HttpResponse:
    """Save a last time and give the project free."""
    project = _project(request, project_id, Role.EDITOR)
    cancel = request.POST.get("cancel") == "yes"
    return _do(request, project, lambda: services.close_project(_user(request), project, cancel=cancel))


@login_required
@require_POST
def save(request: HttpRequest, project_id: uuid.UUID) -> HttpResponse:
    """Save now."""
    project = _project(request, project_id, Role.EDITOR)
    return _do(request, project, lambda: services.save_now(_user(request), project))


@login_required
@require_POST
def extend(request: HttpRequest, project_id: uuid.UUID) -> HttpResponse:
    """Let the time begin afresh."""
    project = _project(request, project_id, Role.EDITOR)
    days = _number(request.POST.get("days"))
    return _do(request, project, lambda: services.extend_project(_user(request), project, days))


@login_required
@require_POST
def confirm(request: HttpRequest, project_id: uuid.UUID) -> HttpResponse:
    """Allow the save that would delete much."""
    project = _project(request, project_id, Role.MANAGER)
    return _do(request, project, lambda: services.confirm_deletions(_user(request), project))


@login_required
@require_POST
def discard(request: HttpRequest, project_id: uuid.UUID) -> HttpResponse:
    """Put work that could not be saved into the trash."""
    project = _project(request, project_id, Role.MANAGER)
    return _do(request, project, lambda: services.discard_work(_user(request), project))


@login_required
@never_cache
@require_GET
def history(request: HttpRequest, project_id: uuid.UUID) -> HttpResponse:
    """All generations that can be restored."""
    project = _project(request, project_id, Role.VIEWER)
    context = context_of(request, project)
    try:
        context["generations"] = services.history(project)
    except ScipionCloudError as e:
        context["trouble"] = str(e)
    return render(request, "deployments/history.html", context)


@login_required
@require_POST
def restore(request: HttpRequest, project_id: uuid.UUID, generation: int) -> HttpResponse:
    """Make the project what it was: in the open working copy, else by opening it as it was."""
    project = _project(request, project_id, Role.EDITOR)
    user = _user(request)
    if project.is_open:
        return _do(request, project, lambda: services.go_back(user, project, generation))
    return _do(request, project, lambda: services.open_project(user, project, generation=generation))


def context_of(request: HttpRequest, project: Project) -> dict[str, Any]:
    """What the parts of a page about a project's deployment show."""
    user = _user(request)
    last = project.deployments.first()
    days = sorted({d for d in _DAYS if d <= get_config().project_max_days} | {get_config().project_days})
    return {
        "project": project,
        "deployment": last,
        "told": last.status if last else {},
        "unsaved": services.unsaved(project),
        "at_work": services.at_work(project) if last and last.is_usable else "",
        "may_edit": project.allows(user, Role.EDITOR),
        "may_manage": project.allows(user, Role.MANAGER),
        "days": days,
        "usual_days": get_config().project_days,
    }


def _do(request: HttpRequest, project: Project, act: Any) -> HttpResponse:
    """Do something that may be refused, and go back to the project's page with the words for it."""
    try:
        act()
    except ScipionCloudError as e:
        messages.error(request, str(e))
    return redirect("project", project.id)


def _user(request: HttpRequest) -> User:
    return cast(User, request.user)


def _project(request: HttpRequest, project_id: uuid.UUID, role: Role) -> Project:
    project = project_for(_user(request), project_id, role)
    if not project.has_storage:
        raise NotFound("This project is kept on this machine: it is always open.")
    return project


def _number(text: str | None) -> float | None:
    try:
        return float(text) if text else None
    except ValueError as e:
        raise InvalidInput(errors={"days": "Give the time as a number of days."}) from e


def _whole(text: str | None) -> int | None:
    try:
        return int(text) if text else None
    except ValueError as e:
        raise InvalidInput(errors={"generation": "Give the generation by its number."}) from e
