"""The data page: the uploader, the server's own list of what has arrived, and the files."""

import json
import uuid
from typing import Any, cast

from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.core.paginator import Paginator
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import redirect, render
from django.views.decorators.http import require_GET, require_POST

from scipion_cloud.errors import InvalidInput, ScipionCloudError
from scipion_cloud.model import Role
from scipion_cloud.portal.rights import project_for
from scipion_cloud.portal.uploads import plan
from scipion_cloud.portal.uploads.files import DataFile, Kind, delete_file, list_data
from scipion_cloud.portal.uploads.folder import NoSpace
from scipion_cloud.portal.uploads.names import human
from scipion_cloud.records.models import Project, User

_PAGE = 100  # files on one page of the list


@login_required
@require_GET
def show(request: HttpRequest, project_id: uuid.UUID) -> HttpResponse:
    """The whole page."""
    context = _context(request, project_id)
    context |= _state(context["project"]) | _files(context["project"], request.GET.get("page"))
    context["server"] = request.build_absolute_uri("/").rstrip("/")
    return render(request, "uploads/data.html", context)


@login_required
@require_GET
def state(request: HttpRequest, project_id: uuid.UUID) -> HttpResponse:
    """How much of what was announced has arrived: a part of the page, fetched again and again."""
    context = _context(request, project_id)
    return render(request, "uploads/state.html", context | _state(context["project"]))


@login_required
@require_GET
def files(request: HttpRequest, project_id: uuid.UUID) -> HttpResponse:
    """The list of files: a part of the page, fetched when some have arrived."""
    context = _context(request, project_id)
    return render(
        request, "uploads/files.html", context | _files(context["project"], request.GET.get("page"))
    )


@login_required
@require_POST
def announce(request: HttpRequest, project_id: uuid.UUID) -> JsonResponse:
    """Takes {"files": [{"path", "size"}, ...]} and answers, in the same order, what to do with each."""
    user = cast(User, request.user)
    project = project_for(user, project_id, Role.EDITOR)
    try:
        planned = plan.announce(project, user, _announced(request.body))
    except InvalidInput as e:
        return JsonResponse({"detail": str(e)}, status=422)
    except NoSpace as e:
        return JsonResponse({"detail": str(e)}, status=507)
    files = [
        {"path": p.path, "state": p.state, "id": p.id, "offset": p.offset, "reason": p.reason}
        for p in planned
    ]
    return JsonResponse({"tus": f"/projects/{project.id}/tus", "files": files})


@login_required
@require_POST
def forget(request: HttpRequest, project_id: uuid.UUID) -> HttpResponse:
    """Give up the files that have not arrived."""
    project = project_for(cast(User, request.user), project_id, Role.EDITOR)
    count = plan.forget(project)
    messages.success(
        request, f"{count} missing file{'s are' if count != 1 else ' is'} not expected any more."
    )
    return redirect("project-data", project.id)


@login_required
@require_POST
def delete(request: HttpRequest, project_id: uuid.UUID) -> HttpResponse:
    """Delete one file."""
    project = project_for(cast(User, request.user), project_id, Role.EDITOR)
    path = request.POST.get("path", "")
    try:
        delete_file(project, path)
    except ScipionCloudError as e:
        messages.error(request, str(e))
    else:
        messages.success(request, f"“{path}” was deleted.")
    return redirect("project-data", project.id)


def _announced(body: bytes) -> list[tuple[str, int]]:
    try:
        files = json.loads(body)["files"]
        pairs = [(file["path"], file["size"]) for file in files]
    except (ValueError, KeyError, TypeError, RecursionError) as e:
        raise InvalidInput('Send {"files": [{"path": ..., "size": ...}, ...]} as JSON.') from e
    if any(not isinstance(path, str) or type(size) is not int for path, size in pairs):
        raise InvalidInput("Each file needs a path (text) and a size (a whole number of bytes).")
    return pairs


def _context(request: HttpRequest, project_id: uuid.UUID) -> dict[str, Any]:
    user = cast(User, request.user)
    project = project_for(user, project_id)
    return {"project": project, "may_edit": project.allows(user, Role.EDITOR)}


def _state(project: Project) -> dict[str, Any]:
    now = plan.progress(project)
    missing = now.announced - now.present
    return {
        "uploads": now,
        "arrived": human(now.bytes),
        "total": human(now.bytes_total),
        "missing_count": missing,
        "missing_more": missing - len(now.missing),
    }


def _files(project: Project, page: str | None) -> dict[str, Any]:
    rows = list_data(project)
    return {
        "page": Paginator(rows, _PAGE).get_page(page),
        "count": len(rows),
        "summary": _summary(rows),
        "bytes": human(sum(file.size for file in rows)),
    }


def _summary(files: list[DataFile]) -> str:
    """As '300 movies, 1 gain reference, 2 others'."""
    words = {Kind.MOVIE: ("movie", "movies"), Kind.GAIN: ("gain reference", "gain references")}
    words[Kind.OTHER] = ("other file", "other files")
    counts = {kind: sum(file.kind == kind for file in files) for kind in Kind}
    return ", ".join(f"{n:,} {words[kind][n != 1]}" for kind, n in counts.items() if n)
