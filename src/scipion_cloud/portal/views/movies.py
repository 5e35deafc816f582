"""One aligned movie: its drift, before and after, power spectra, the micrograph itself."""

import uuid

from django.contrib.auth.decorators import login_required
from django.http import FileResponse, Http404, HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.shortcuts import redirect, render
from django.views.decorators.cache import cache_control
from django.views.decorators.http import require_GET, require_POST

from scipion_cloud.model import MovieState, Role
from scipion_cloud.portal import services
from scipion_cloud.portal.charts import drift_chart, local_chart
from scipion_cloud.portal.views.runs import neighbours, run_for
from scipion_cloud.records.models import Movie, Run

_KINDS = {"thumb", "before", "after", "psd_before", "psd_after"}


def _movie(run: Run, index: int) -> Movie:
    movie = run.movies.filter(index=index).first()
    if movie is None:
        raise Http404
    return movie


@login_required
@require_GET
def show(request: HttpRequest, project_id: uuid.UUID, run_id: uuid.UUID, index: int) -> HttpResponse:
    """The movie's page."""
    run = run_for(request, project_id, run_id)
    movie = _movie(run, index)
    if movie.state == MovieState.DONE and not movie.details and not movie.wanted:
        run.movies.filter(pk=movie.pk).update(wanted=True)
    before, after = neighbours(movie)
    context = {
        "project": run.project,
        "run": run,
        "movie": movie,
        "previous": before,
        "next": after,
        "drift": drift_chart(movie.drift) if movie.drift else None,
        "local": local_chart(movie.local) if movie.local else None,
        "may_edit": run.project.allows(request.user, Role.EDITOR),  # type: ignore[arg-type]
    }
    return render(request, "runs/movie.html", context)


@login_required
@require_GET
@cache_control(private=True, max_age=3600)
def picture(
    request: HttpRequest, project_id: uuid.UUID, run_id: uuid.UUID, index: int, kind: str
) -> HttpResponseBase:
    """One of the movie's pictures, made by the controller."""
    run = run_for(request, project_id, run_id)
    if kind not in _KINDS:
        raise Http404
    try:
        return FileResponse((run.pictures / _movie(run, index).stem / f"{kind}.webp").open("rb"))
    except FileNotFoundError as e:
        raise Http404 from e


@login_required
@require_POST
def set_accepted(request: HttpRequest, project_id: uuid.UUID, run_id: uuid.UUID, index: int) -> HttpResponse:
    """Accept or reject the micrograph for the STAR file."""
    run = run_for(request, project_id, run_id, Role.EDITOR)
    movie = _movie(run, index)
    movie.accepted = request.POST.get("accepted") == "yes"
    movie.save(update_fields=["accepted"])
    if request.headers.get("HX-Request"):
        return render(
            request,
            "runs/accepted.html",
            {"project": run.project, "run": run, "movie": movie, "may_edit": True},
        )
    return redirect("movie", project_id, run_id, index)


@login_required
@require_GET
def micrograph(
    request: HttpRequest, project_id: uuid.UUID, run_id: uuid.UUID, index: int
) -> HttpResponseBase:
    """Download the aligned micrograph (MRC)."""
    run = run_for(request, project_id, run_id)
    movie = _movie(run, index)
    if movie.state != MovieState.DONE:
        raise Http404
    return services.micrograph_response(request, run, movie)
