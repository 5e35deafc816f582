"""A run's page: the movies as they finish, the log, what can be downloaded."""

import uuid
from typing import Any, cast

from django.contrib.auth.decorators import login_required
from django.db.models import F
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.utils import timezone
from django.views.decorators.http import require_GET, require_POST

from scipion_cloud.model import MovieState, Role, RunState
from scipion_cloud.portal import services
from scipion_cloud.portal.charts import motion_trend
from scipion_cloud.portal.rights import project_for
from scipion_cloud.records.models import Movie, Run, User

_ORDERS = {
    "index": "index",
    "name": "name",
    "total": "total",
    "early": "early",
    "late": "late",
    "state": "state",
}
_STOP_POLLING = 286  # htmx's answer code for "this will not change any more"


def run_for(request: HttpRequest, project_id: uuid.UUID, run_id: uuid.UUID, role: Role = Role.VIEWER) -> Run:
    """The run, if the person may see it (404 otherwise)."""
    project = project_for(cast(User, request.user), project_id, role)
    run = project.runs.filter(pk=run_id).select_related("project").first()
    if run is None:
        raise Http404
    return run


@login_required
@require_GET
def show(request: HttpRequest, project_id: uuid.UUID, run_id: uuid.UUID) -> HttpResponse:
    """The whole page."""
    run = run_for(request, project_id, run_id)
    user = cast(User, request.user)
    context = _live_context(request, run) | {"may_edit": run.project.allows(user, Role.EDITOR)}
    return render(request, "runs/show.html", context)


@login_required
@require_GET
def live(request: HttpRequest, project_id: uuid.UUID, run_id: uuid.UUID) -> HttpResponse:
    """The part that fills while the run goes on. Polling stops when all is there."""
    run = run_for(request, project_id, run_id)
    context = _live_context(request, run)
    over = run.status.is_final and not context["pictures_missing"]
    return render(request, "runs/live.html", context, status=_STOP_POLLING if over else 200)


def _live_context(request: HttpRequest, run: Run) -> dict[str, Any]:
    order = _ORDERS.get(request.GET.get("sort", ""), "index")
    reverse = request.GET.get("dir") == "down"
    only = request.GET.get("show", "")
    every = list(run.movies.all())
    movies = run.movies.order_by(
        F(order).desc(nulls_last=True) if reverse else F(order).asc(nulls_last=True), "index"
    )
    if only in list(MovieState):
        movies = movies.filter(state=only)
    elif only == "rejected":
        movies = movies.filter(accepted=False)
    done = [m for m in every if m.state == MovieState.DONE]
    failed = sum(m.state == MovieState.FAILED for m in every)
    return {
        "project": run.project,
        "run": run,
        "movies": movies,
        "total": len(every),
        "done": len(done),
        "failed": failed,
        "waiting": len(every) - len(done) - failed,
        "rejected": sum(not m.accepted for m in every),
        "site_label": services.site_label(run.site) if run.site else "",
        "left": _time_left(run, len(every), len(done) + failed),
        "pictures_missing": any(not m.thumbnail and not m.message for m in done),
        "trend": motion_trend(every) if len(done) > 1 else None,
        "sort": order,
        "down": reverse,
        "show": only,
    }


def _time_left(run: Run, total: int, ready: int) -> float | None:
    """Seconds until the last movie at the pace so far; None while that is not known."""
    if run.status is not RunState.RUNNING or run.started is None or not ready:
        return None
    return (timezone.now() - run.started).total_seconds() / ready * (total - ready)


@login_required
@require_POST
def cancel(request: HttpRequest, project_id: uuid.UUID, run_id: uuid.UUID) -> HttpResponse:
    """Stop the run at once."""
    run = run_for(request, project_id, run_id, Role.EDITOR)
    services.cancel_run(cast(User, request.user), run)
    return redirect("run", project_id, run_id)


@login_required
@require_GET
def log(request: HttpRequest, project_id: uuid.UUID, run_id: uuid.UUID) -> HttpResponse:
    """The end of the run's log, newest lines last."""
    run = run_for(request, project_id, run_id)
    return render(
        request, "runs/log.html", {"project": run.project, "run": run, "log": services.run_log(run)}
    )


@login_required
@require_GET
def star(request: HttpRequest, project_id: uuid.UUID, run_id: uuid.UUID) -> HttpResponse:
    """The accepted micrographs as RELION's corrected_micrographs.star."""
    run = run_for(request, project_id, run_id)
    response = HttpResponse(services.run_star(run), content_type="text/plain; charset=utf-8")
    response["Content-Disposition"] = 'attachment; filename="corrected_micrographs.star"'
    return response


def neighbours(movie: Movie) -> tuple[Movie | None, Movie | None]:
    """The finished movies before and after this one in the run's order."""
    done = movie.run.movies.filter(state=MovieState.DONE.value)
    before = done.filter(index__lt=movie.index).order_by("-index").first()
    return before, done.filter(index__gt=movie.index).order_by("index").first()
