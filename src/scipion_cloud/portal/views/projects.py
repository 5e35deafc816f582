"""The list of projects, and a project's own page."""

import uuid
from typing import Any, cast

from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.db.models import Count, Q
from django.http import HttpRequest, HttpResponse, QueryDict
from django.shortcuts import redirect, render
from django.views.decorators.http import require_GET, require_http_methods, require_POST

from scipion_cloud.errors import InvalidInput, ScipionCloudError, SetupError
from scipion_cloud.model import LIVE_DESKTOPS, LIVE_RUNS, Role
from scipion_cloud.portal import services
from scipion_cloud.portal.rights import project_for
from scipion_cloud.portal.uploads.files import list_data
from scipion_cloud.portal.uploads.plan import progress
from scipion_cloud.portal.views import deployments, preparations
from scipion_cloud.records.models import Project, User
from scipion_cloud.tools.catalogue import tools
from scipion_cloud.tools.snapshot import read_project


@login_required
@require_GET
def index(request: HttpRequest) -> HttpResponse:
    """The person's projects, the newest first."""
    projects = (
        Project.objects.visible_to(cast(User, request.user))
        .select_related("owner", "preparation")
        .annotate(
            run_count=Count("runs", distinct=True),
            live_runs=Count("runs", filter=Q(runs__state__in=LIVE_RUNS), distinct=True),
        )
        .order_by("-created")
    )
    return render(request, "projects/index.html", {"projects": projects})


@login_required
@require_http_methods(["GET", "POST"])
def new(request: HttpRequest) -> HttpResponse:
    """The form for a new project, and its making."""
    user = cast(User, request.user)
    error = ""
    if request.method == "POST":
        try:
            project = _make(user, request.POST)
        except ScipionCloudError as e:
            error = str(e)
        else:
            return redirect("project", project.id)
    context = {
        "error": error,
        "values": request.POST,
        "connections": services.connections_of(user),
        "originals": services.can_be_copied(user),
        "archives": services.archives(user),
        "chosen": _uuid(request.POST.get("storage") or request.GET.get("storage")),
    }
    return render(request, "projects/new.html", context, status=422 if error else 200)


def _make(user: User, form: QueryDict) -> Project:
    """What the form asks for. Raises ScipionCloudError."""
    name, description = form.get("name", ""), form.get("description", "")
    origin = _origin(user, form)
    if not form.get("storage"):
        if origin is not None:
            return services.copy_project(user, name, description, origin=origin)
        return services.create_project(user, name, description, demo=form.get("start") == "demo")
    connection = services.connection_for(user, _uuid(form.get("storage")))
    if form.get("existing") == "yes":
        if origin is not None:
            raise InvalidInput(errors={"folder": "A project lies in this folder already; choose another."})
        place = services.Place(connection, form.get("folder-here", ""))
        return services.adopt_project(user, name, description, place=place)
    folder = "/".join(
        part for part in (form.get("folder-here", ""), form.get("new-folder", "").strip()) if part
    )
    place = services.Place(connection, folder)
    if origin is not None:
        return services.copy_project(user, name, description, origin=origin, place=place)
    return services.create_project(user, name, description, demo=form.get("start") == "demo", place=place)


def _origin(user: User, form: QueryDict) -> services.Origin | None:
    """What the project is to be made of. Raises NotFound, InvalidInput if nothing was chosen."""
    match form.get("start"):
        case "copy":
            chosen, archive = form.get("original", ""), ""
        case "archive":
            chosen, _, archive = form.get("archive", "").partition("/")
        case _:
            return None
    project_id = _uuid(chosen)
    if project_id is None or (form.get("start") == "archive" and not archive):
        raise InvalidInput(errors={"start": "Choose what the project is to be made from."})
    return services.Origin(project_for(user, project_id), archive)


def _uuid(text: str | None) -> uuid.UUID | None:
    try:
        return uuid.UUID(text) if text else None
    except ValueError:
        return None


@login_required
@require_GET
def show(request: HttpRequest, project_id: uuid.UUID) -> HttpResponse:
    """A project: its tools, runs, boxes, data and members."""
    user = cast(User, request.user)
    project = project_for(user, project_id)
    if not project.is_prepared:
        return preparations.page(request, project)
    context = deployments.context_of(request, project) if project.has_storage else {}
    if not project.is_open:
        return render(request, "projects/closed.html", context)
    context |= _status(project) | {
        "members": project.membership_set.select_related("user").order_by("user__email"),
        "desktop_live": project.desktops.filter(state__in=LIVE_DESKTOPS).exists(),
        "may_edit": project.allows(user, Role.EDITOR),
        "may_manage": project.allows(user, Role.MANAGER),
        "uploads": progress(project),
    }
    try:
        context["tools"] = tools()
    except SetupError as e:  # the data and the members can still be seen
        context["setup_error"] = str(e)
    return render(request, "projects/show.html", context)


@login_required
@require_GET
def status(request: HttpRequest, project_id: uuid.UUID) -> HttpResponse:
    """The part of the project's page that changes while things run."""
    project = project_for(cast(User, request.user), project_id)
    if not project.is_open:  # closed a moment ago; the page is about to load itself anew
        return HttpResponse(status=204)
    return render(request, "projects/status.html", _status(project))


def _status(project: Project) -> dict[str, Any]:
    snapshot = read_project(project.path)
    files = list_data(project)
    return {
        "project": project,
        "runs": services.with_movie_counts(project.runs.all()),
        "protocols": snapshot.protocols,
        "problems": snapshot.problems,
        "movie_count": sum(file.kind == "movie" for file in files),
        "data_bytes": sum(file.size for file in files),
    }


@login_required
@require_http_methods(["GET", "POST"])
def settings(request: HttpRequest, project_id: uuid.UUID) -> HttpResponse:
    """Name and description; the way to delete."""
    project = project_for(cast(User, request.user), project_id, Role.MANAGER)
    error = ""
    if request.method == "POST":
        try:
            services.rename_project(
                cast(User, request.user),
                project,
                request.POST.get("name", ""),
                request.POST.get("description", ""),
            )
        except InvalidInput as e:
            error = str(e)
        else:
            return redirect("project", project.id)
    return render(request, "projects/settings.html", {"project": project, "error": error})


@login_required
@require_POST
def delete(request: HttpRequest, project_id: uuid.UUID) -> HttpResponse:
    """Put the project away."""
    user = cast(User, request.user)
    project = project_for(user, project_id, Role.MANAGER)
    try:
        services.delete_project(user, project)
    except ScipionCloudError as e:
        messages.error(request, str(e))
        return redirect("project-settings", project.id)
    messages.success(request, f"The project {project.name} has been deleted.")
    return redirect("projects")


@login_required
@require_POST
def add_member(request: HttpRequest, project_id: uuid.UUID) -> HttpResponse:
    """Let somebody in, or change their role."""
    user = cast(User, request.user)
    project = project_for(user, project_id, Role.MANAGER)
    try:
        role = Role(request.POST.get("role", ""))
        services.add_member(user, project, request.POST.get("email", ""), role)
    except ValueError:
        messages.error(request, "Choose one of the roles viewer, editor and manager.")
    except InvalidInput as e:
        messages.error(request, str(e))
    return redirect("project", project.id)


@login_required
@require_POST
def remove_member(request: HttpRequest, project_id: uuid.UUID, user_id: int) -> HttpResponse:
    """End a membership."""
    user = cast(User, request.user)
    project = project_for(user, project_id)
    services.remove_member(user, project, user_id)
    return redirect("project", project.id) if user.pk != user_id else redirect("projects")
