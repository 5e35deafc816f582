"""A new project whose files are on their way: copied from another one, or unpacked."""

import uuid
from typing import cast

from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_GET, require_POST

from scipion_cloud.errors import ScipionCloudError
from scipion_cloud.model import Role
from scipion_cloud.portal import services
from scipion_cloud.portal.rights import project_for
from scipion_cloud.records.models import Preparing, Project, User

_STOP = 286  # tells htmx to ask no more


def page(request: HttpRequest, project: Project) -> HttpResponse:
    """The project's page until its files are here."""
    return render(request, "projects/preparing.html", _context(request, project))


@login_required
@never_cache
@require_GET
def state(request: HttpRequest, project_id: uuid.UUID) -> HttpResponse:
    """The part of that page that changes; once all is here, the page is told to load itself anew."""
    project = project_for(_user(request), project_id)
    if project.is_prepared:
        return HttpResponse(headers={"HX-Refresh": "true"})
    going = project.preparation.state == Preparing.COPYING
    status = 200 if going else _STOP
    return render(request, "projects/preparation.html", _context(request, project), status=status)


@login_required
@require_POST
def again(request: HttpRequest, project_id: uuid.UUID) -> HttpResponse:
    """Try again after a failure."""
    project = project_for(_user(request), project_id, Role.MANAGER)
    try:
        services.copy_again(_user(request), project)
    except ScipionCloudError as e:
        messages.error(request, str(e))
    return redirect("project", project.id)


def _context(request: HttpRequest, project: Project) -> dict[str, object]:
    preparation = project.preparation
    return {
        "project": project,
        "preparation": preparation,
        "told": preparation.status,
        "may_manage": project.allows(_user(request), Role.MANAGER),
    }


def _user(request: HttpRequest) -> User:
    return cast(User, request.user)
