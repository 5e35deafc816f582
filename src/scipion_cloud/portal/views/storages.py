"""Connecting storages, and looking into them."""

import uuid
from typing import Any, cast
from urllib.parse import quote

from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_GET, require_http_methods, require_POST

from scipion_cloud.config import get_config
from scipion_cloud.errors import InvalidInput, NotFound, ScipionCloudError
from scipion_cloud.portal import services
from scipion_cloud.records.models import User
from scipion_cloud.storage import KINDS, StorageKind

_LABELS = {
    "write": "Write",
    "read": "Read",
    "list": "List",
    "delete": "Delete",
    "exclusive_create": "Locks",
    "rename": "Rename",
    "symlinks": "Symlinks",
    "folders": "Empty folders",
    "ranges": "Parts of files",
    "mtime": "Times of files",
    "byte_names": "Any file name",
    "round trip": "Round trip",
}


@login_required
@require_GET
def index(request: HttpRequest) -> HttpResponse:
    """The storages that this person has connected."""
    return render(request, "storages/index.html", {"connections": services.connections_of(_user(request))})


@login_required
@require_GET
def kinds(request: HttpRequest) -> HttpResponse:
    """The first step of the wizard: what kind of storage it is."""
    return render(request, "storages/kinds.html", {"kinds": _offered(request)})


@login_required
@never_cache
@require_http_methods(["GET", "POST"])
def connect(request: HttpRequest, kind_id: str) -> HttpResponse:
    """The second step: where it is and what is needed to be let in. It is tried out before it is kept."""
    kind = next((k for k in _offered(request) if k.id == kind_id), None)
    if kind is None:
        raise NotFound(f"There is no kind of storage {kind_id!r}.")
    errors: dict[str, str] = {}
    trouble = ""
    if request.method == "POST":
        given = {c.name: request.POST.get(c.name, "") for c in kind.credentials}
        name, url = request.POST.get("name", ""), _url(request)
        try:
            connection = services.connect_storage(_user(request), name, url, given)
        except InvalidInput as e:
            errors, trouble = e.errors, "" if e.errors else str(e)
        except ScipionCloudError as e:
            trouble = str(e)
        else:
            return redirect("storage", connection.pk)
    context = {"kind": kind, "fields": _fields(kind, request, errors), "trouble": trouble}
    return render(request, "storages/connect.html", context, status=422 if errors or trouble else 200)


@login_required
@never_cache
@require_POST
def spaces(request: HttpRequest) -> HttpResponse:
    """A part of the form for Onedata: the spaces that a token opens."""
    context: dict[str, Any] = {}
    try:
        context["spaces"] = services.onedata_spaces(
            request.POST.get("url", ""), request.POST.get("token", "")
        )
    except ScipionCloudError as e:
        context["trouble"] = str(e)
    return render(request, "storages/spaces.html", context)


@login_required
@require_GET
def show(request: HttpRequest, storage_id: uuid.UUID) -> HttpResponse:
    """The last step, and later the storage's own page: what it can do, and the projects in it."""
    connection = services.connection_for(_user(request), storage_id)
    projects = connection.projects.filter(deleted=None).order_by("name")
    findings = [{**f, "label": _LABELS.get(f["name"], f["name"])} for f in connection.findings]
    context = {"connection": connection, "projects": projects, "findings": findings}
    return render(request, "storages/show.html", context)


@login_required
@never_cache
@require_GET
def folder(request: HttpRequest, storage_id: uuid.UUID) -> HttpResponse:
    """A part of a form: the folders in a folder, and what lies there."""
    connection = services.connection_for(_user(request), storage_id)
    path = request.GET.get("path", "")
    name = request.GET.get("name", "folder")
    context: dict[str, Any] = {"connection": connection, "name": name, "parts": _crumbs(path)}
    try:
        context |= {"folders": services.folders_in(connection, path)}
        context |= {"contents": services.look_inside(connection, path), "path": path.strip("/")}
    except ScipionCloudError as e:
        context["trouble"] = str(e)
    return render(request, "storages/folder.html", context)


@login_required
@require_POST
def forget(request: HttpRequest, storage_id: uuid.UUID) -> HttpResponse:
    """Forget a storage and its credentials."""
    connection = services.connection_for(_user(request), storage_id)
    try:
        services.forget_storage(_user(request), connection)
    except ScipionCloudError as e:
        messages.error(request, str(e))
        return redirect("storage", storage_id)
    messages.success(request, f"{connection.name} has been forgotten. Its files are as they were.")
    return redirect("storages")


def _user(request: HttpRequest) -> User:
    return cast(User, request.user)


def _offered(request: HttpRequest) -> list[StorageKind]:
    """Folders of this machine are offered only where there are any to use."""
    local = bool(get_config().folders) or _user(request).is_superuser
    return [kind for kind in KINDS if kind.id != "posix" or local]


def _fields(kind: StorageKind, request: HttpRequest, errors: dict[str, str]) -> list[dict[str, Any]]:
    """The form's fields; secrets are never sent back."""
    name = {"name": "name", "label": "Name", "required": True, "example": f"Our {kind.label}"}
    url = {"name": "url", "label": "Address", "required": True, "help": kind.help, "example": kind.example}
    rest = [
        {
            "name": c.name,
            "label": c.label,
            "secret": c.secret,
            "required": c.required,
            "multiline": c.multiline,
            "help": c.help,
        }
        for c in kind.credentials
    ]
    fields: list[dict[str, Any]] = [name, url, *rest]
    for field in fields:
        field["error"] = errors.get(str(field["name"]), "")
        field["value"] = "" if field.get("secret") else request.POST.get(str(field["name"]), "")
    return fields


def _url(request: HttpRequest) -> str:
    """The address; a space that was chosen from the list takes the place of the one in it."""
    url, space = request.POST.get("url", ""), request.POST.get("space", "")
    return f"{'/'.join(url.split('/')[:3])}/{quote(space, safe='')}" if space else url


def _crumbs(path: str) -> list[tuple[str, str]]:
    parts = [part for part in path.split("/") if part]
    return [(part, "/".join(parts[: i + 1])) for i, part in enumerate(parts)]
