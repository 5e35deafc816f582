"""The form of a web tool."""

import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

from django.contrib.auth.decorators import login_required
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.http import require_GET, require_http_methods

from scipion_cloud.errors import InvalidInput
from scipion_cloud.model import AUTOMATIC, Role
from scipion_cloud.portal import services
from scipion_cloud.portal.rights import project_for
from scipion_cloud.portal.uploads.files import Kind, list_data
from scipion_cloud.records.models import Project, User
from scipion_cloud.tools import catalogue
from scipion_cloud.tools.form import Field
from scipion_cloud.tools.movies.info import MovieInfo, read_info
from scipion_cloud.tools.tool import Tool

_EXTRA = ("movies", "label", "where")  # what is asked for besides the tool's own fields


@dataclass(frozen=True)
class ShownField:
    """A field as the template draws it: with a value, an error, and choices."""

    field: Field
    value: object
    error: str
    choices: tuple[tuple[str, str], ...]

    def __getattr__(self, name: str) -> Any:
        return getattr(self.field, name)


@login_required
@require_http_methods(["GET", "POST"])
def start(request: HttpRequest, project_id: uuid.UUID, tool_id: str) -> HttpResponse:
    """Show the form; start a run, or say beside each field what is wrong."""
    user = cast(User, request.user)
    project = project_for(user, project_id, Role.EDITOR)
    tool = catalogue.tool(tool_id)
    values: dict[str, Any] = _first_values(request, project, tool)
    errors: dict[str, str] = {}
    if request.method == "POST":
        values = _typed(request, tool)
        parameters = {field.name: values[field.name] for field in tool.fields}
        try:
            extra = {name: values[name] for name in _EXTRA}
            run = services.start_run(user, project, tool_id, parameters, **extra)
        except InvalidInput as e:
            errors = e.errors or {"form": str(e)}
        else:
            return redirect("run", project.id, run.id)
    context = _context(project, tool, values, errors)
    return render(request, "tools/start.html", context, status=422 if errors else 200)


@login_required
@require_GET
def where(request: HttpRequest, project_id: uuid.UUID, tool_id: str) -> HttpResponse:
    """The choice of a site, for what is typed into the form now."""
    project = project_for(cast(User, request.user), project_id, Role.EDITOR)
    tool = catalogue.tool(tool_id)
    values = {field.name: request.GET.get(field.name) for field in tool.fields}
    typed = {name: request.GET.get(name, "") for name in _EXTRA}
    context = {"project": project, "tool": tool, **_where(project, tool, values | typed)}
    return render(request, "tools/where.html", context)


def _where(project: Project, tool: Tool, values: Mapping[str, Any]) -> dict[str, Any]:
    """What the choice of a site shows; nothing where there is none."""
    try:
        offers = services.choice(project, tool, values, values.get("movies") or "")
    except InvalidInput as e:
        return {"offers": [], "no_offers": str(e), "where": values.get("where") or AUTOMATIC}
    wish = values.get("where") or AUTOMATIC
    best = next((o for o in offers if o.offer.possible), None)
    return {"offers": offers, "best": best, "where": wish, "choice": services.has_choice()}


def _typed(request: HttpRequest, tool: Tool) -> dict[str, Any]:
    """What the browser sent; a box that is not ticked sends nothing."""
    typed = {field.name: request.POST.get(field.name, "") for field in tool.fields}
    return typed | {name: request.POST.get(name, "") for name in _EXTRA}


def _first_values(request: HttpRequest, project: Project, tool: Tool) -> dict[str, Any]:
    """Defaults, then what the movies tell, or the values of an earlier run (`?from=`)."""
    values: dict[str, Any] = {field.name: field.default for field in tool.fields}
    try:
        earlier = project.runs.filter(tool=tool.id, pk=uuid.UUID(request.GET.get("from", ""))).first()
    except ValueError:
        earlier = None
    if earlier is not None:
        again = {name: value for name, value in earlier.parameters.items() if name in values}
        return values | again | {"where": earlier.where}
    facts = _facts(project)
    if facts is not None and facts.pixel_size is not None:
        values["pixel_size"] = facts.pixel_size
    gains = _gains(project)
    return values | {"gain": gains[0][0] if len(gains) == 1 else None}


def _context(project: Project, tool: Tool, values: dict[str, Any], errors: dict[str, str]) -> dict[str, Any]:
    gains = (("", "None: the movies are corrected"), *_gains(project))
    shown = [
        ShownField(
            field,
            _shown(field, values.get(field.name)),
            errors.get(field.name, ""),
            gains if field.kind == "file" else field.choices,
        )
        for field in tool.fields
    ]
    return {
        "project": project,
        "tool": tool,
        "values": values,
        "errors": errors,
        "basic": [f for f in shown if not f.field.advanced],
        "advanced": [f for f in shown if f.field.advanced],
        "advanced_wrong": any(f.error for f in shown if f.field.advanced),
        "movie_count": sum(file.kind is Kind.MOVIE for file in list_data(project)),
        "facts": _facts(project),
        **_where(project, tool, values),
    }


def _shown(field: Field, value: object) -> object:
    if field.kind == "bool":
        return field.read(value) if isinstance(value, str) else value
    if isinstance(value, float):
        return f"{value:.6g}"
    return "" if value is None else value


def _gains(project: Project) -> tuple[tuple[str, str], ...]:
    gains = (file for file in list_data(project) if file.kind is Kind.GAIN)
    return tuple((file.path, file.name) for file in gains if file.path.isprintable())  # no stray bytes


def _facts(project: Project) -> MovieInfo | None:
    """What the first movie's header tells."""
    first = next((file for file in list_data(project) if file.kind is Kind.MOVIE), None)
    try:
        return read_info(project.data / first.path, project.data) if first else None
    except InvalidInput:
        return None
