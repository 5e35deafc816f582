"""Runs of tools: start, follow, stop, and fetch what they made."""

import uuid
from datetime import datetime
from typing import Self

from django.db.models import QuerySet
from django.http import HttpResponse, HttpResponseBase
from ninja import Router, Schema, Status
from pydantic import Field, JsonValue

from scipion_cloud.errors import NotFound
from scipion_cloud.model import AUTOMATIC, MovieState, Role, RunState
from scipion_cloud.portal import services
from scipion_cloud.portal.api.auth import ApiRequest
from scipion_cloud.portal.api.problems import PROBLEMS
from scipion_cloud.portal.api.schemas import Person
from scipion_cloud.portal.rights import project_for
from scipion_cloud.portal.services.outputs import STAR_NAME, run_outputs
from scipion_cloud.portal.services.runs import with_movie_counts
from scipion_cloud.records import models
from scipion_cloud.tools import catalogue

router = Router(tags=["runs"])
_ALL = "/{uuid:project_id}/runs"
_OFFERS = "/{uuid:project_id}/offers"
_ONE = _ALL + "/{uuid:run_id}"


class NewRun(Schema):
    """What to run, with which values, on which movies."""

    tool: str
    parameters: dict[str, JsonValue] = Field(
        default={}, description="By the tool's form; the rest has defaults."
    )
    movies: str = Field(
        "", description="A folder of the data or a pattern as day1/*.tiff; all movies if empty."
    )
    label: str = Field("", max_length=120)
    where: str = Field(
        AUTOMATIC, max_length=30, description="automatic, here, or the name of a site that offers it."
    )


class SiteOffer(Schema):
    """What a site offers for a run, or why it refuses."""

    where: str = Field(description="To be sent as `where` of a new run.")
    title: str
    possible: bool
    reasons: list[str] = Field(description="All that speaks against it; else what is to be known about it.")
    wait: float = Field(description="Seconds until the run would start, once its files are there.")
    transfer: float = Field(description="Seconds for its files, there and back.")
    bytes: int = Field(description="That go there and come back.")
    end: float = Field(description="Seconds until the results are here.")
    cost: float | None
    currency: str

    @classmethod
    def of(cls, found: services.SiteOffer) -> Self:
        """From the broker's answer."""
        offer = found.offer
        return cls(
            where=found.name,
            title=found.site.label,
            possible=offer.possible,
            reasons=list(offer.reasons),
            wait=offer.wait,
            transfer=offer.transfer,
            bytes=found.size,
            end=offer.end,
            cost=offer.cost,
            currency=found.currency,
        )


class MovieCount(Schema):
    """How many movies there are, are done, have failed."""

    total: int
    done: int
    failed: int


class Run(Schema):
    """One execution of a tool."""

    id: uuid.UUID
    project: uuid.UUID
    tool: str
    label: str
    parameters: dict[str, JsonValue]
    started_by: Person | None
    state: RunState
    message: str = Field(description="Why it failed or waits, if it does.")
    where: str = Field(description="As wished: automatic, here, or a site's name.")
    site: str = Field(description="The site that it was given to; empty if it runs here.")
    phase: str = Field(description="What is being done about the part of it that runs at a site.")
    movies: MovieCount
    created: datetime
    started: datetime | None
    ended: datetime | None

    @classmethod
    def of(cls, run: models.Run) -> Self:
        """From the record, which carries its counts (`with_movie_counts`)."""
        total, done, failed = (getattr(run, name) for name in MovieCount.model_fields)
        return cls(
            id=run.id,
            project=run.project_id,
            tool=run.tool,
            label=run.label,
            parameters=run.parameters,
            started_by=Person.of(run.user) if run.user else None,
            state=run.status,
            message=run.message,
            where=run.where,
            site=run.site,
            phase="" if run.status.is_final else run.phase,
            movies=MovieCount(total=total, done=done, failed=failed),
            created=run.created,
            started=run.started,
            ended=run.ended,
        )


class MovieResult(Schema):
    """One movie of a run. Motions in A; null where there is no number."""

    index: int = Field(description="Place in the set, from 1.")
    name: str = Field(description="Relative to the data folder.")
    state: MovieState
    message: str
    total: float | None
    early: float | None = Field(description="Within the first 4 e/A2.")
    late: float | None
    drift: list[list[float]] = Field(description="[x, y] of each frame in A from the first; x right, y up.")
    local: list[list[float]] = Field(
        description="[x, y, dx, dy] of each patch: where, as fractions from the lower left, and how far it "
        "moved in addition to the field, in A."
    )
    accepted: bool = Field(description="Whether the STAR file lists its micrograph.")


class OutputFile(Schema):
    """A file that a run has made."""

    name: str
    size: int | None = Field(description="Bytes; null for a file that is written as it is fetched.")
    url: str


class Log(Schema):
    """The end of a run's log."""

    log: str


@router.get(_ALL, response={200: list[Run], **PROBLEMS}, summary="Runs")
def list_runs(request: ApiRequest, project_id: uuid.UUID) -> list[Run]:
    """The runs of the project, the newest first."""
    return [Run.of(row) for row in _rows(project_for(request.auth, project_id))]


@router.post(_ALL, response={201: Run, **PROBLEMS}, summary="Start a run")
def start_run(request: ApiRequest, project_id: uuid.UUID, data: NewRun) -> Status[Run]:
    """Start a tool. Values and movies are checked before; 422 tells by field what is wrong."""
    project = project_for(request.auth, project_id, Role.EDITOR)
    extra = {"movies": data.movies, "label": data.label, "where": data.where}
    row = services.start_run(request.auth, project, data.tool, data.parameters, **extra)
    return Status(201, Run.of(_run(request, project_id, row.id)))


@router.post(_OFFERS, response={200: list[SiteOffer], **PROBLEMS}, summary="Where a run can compute")
def list_offers(request: ApiRequest, project_id: uuid.UUID, data: NewRun) -> list[SiteOffer]:
    """What each site offers for this run, the best first; empty where there is no site but this one."""
    project = project_for(request.auth, project_id, Role.EDITOR)
    chosen = catalogue.tool(data.tool)
    values = chosen.validate(data.parameters)
    return [SiteOffer.of(found) for found in services.choice(project, chosen, values, data.movies)]


@router.get(_ONE, response={200: Run, **PROBLEMS}, summary="One run")
def get_run(request: ApiRequest, project_id: uuid.UUID, run_id: uuid.UUID) -> Run:
    """How it is."""
    return Run.of(_run(request, project_id, run_id))


@router.post(_ONE + "/cancel", response={200: Run, **PROBLEMS}, summary="Cancel a run")
def cancel_run(request: ApiRequest, project_id: uuid.UUID, run_id: uuid.UUID) -> Run:
    """Stop it at once; what it has finished stays. 409 if it has ended already."""
    services.cancel_run(request.auth, _run(request, project_id, run_id))
    return Run.of(_run(request, project_id, run_id))


@router.get(_ONE + "/movies", response={200: list[MovieResult], **PROBLEMS}, summary="Results by movie")
def list_movies(request: ApiRequest, project_id: uuid.UUID, run_id: uuid.UUID) -> list[MovieResult]:
    """What is known of each movie so far, in the order of the set."""
    fields = MovieResult.model_fields
    rows = _run(request, project_id, run_id).movies.values(*fields)
    return [MovieResult(**row) for row in rows]


@router.get(_ONE + "/log", response={200: Log, **PROBLEMS}, summary="Log of a run")
def get_log(request: ApiRequest, project_id: uuid.UUID, run_id: uuid.UUID) -> Log:
    """The end of what the run has written."""
    return Log(log=services.run_log(_run(request, project_id, run_id)))


@router.get(_ONE + "/outputs", response={200: list[OutputFile], **PROBLEMS}, summary="Files of a run")
def list_outputs(request: ApiRequest, project_id: uuid.UUID, run_id: uuid.UUID) -> list[OutputFile]:
    """The micrographs that are done, and a STAR file of those that are accepted."""
    run = _run(request, project_id, run_id)
    base = f"/api/v1/projects/{project_id}/runs/{run_id}"
    files = [
        OutputFile(name=o.name, size=o.size, url=f"{base}/movies/{o.index}/micrograph")
        for o in run_outputs(run)
    ]
    if files and run.movies.filter(state=MovieState.DONE.value, accepted=True).exists():
        files.append(OutputFile(name=STAR_NAME, size=None, url=f"{base}/star"))
    return files


@router.get(_ONE + "/star", response={200: str, **PROBLEMS}, summary="STAR file of a run")
def get_star(request: ApiRequest, project_id: uuid.UUID, run_id: uuid.UUID) -> HttpResponse:
    """The accepted micrographs as RELION's corrected_micrographs.star."""
    text = services.run_star(_run(request, project_id, run_id))
    headers = {"Content-Disposition": f'attachment; filename="{STAR_NAME}"'}
    return HttpResponse(text, content_type="text/plain; charset=utf-8", headers=headers)


@router.get(
    _ONE + "/movies/{int:index}/micrograph", response={200: bytes, **PROBLEMS}, summary="A micrograph"
)
def get_micrograph(
    request: ApiRequest, project_id: uuid.UUID, run_id: uuid.UUID, index: int
) -> HttpResponseBase:
    """The aligned micrograph of one movie (MRC), dose-weighted if there is one; ranges are served."""
    run = _run(request, project_id, run_id)
    movie = run.movies.filter(index=index).first()
    if movie is None:
        raise NotFound("This run has no such movie.")
    return services.micrograph_response(request, run, movie)


def _rows(project: models.Project) -> QuerySet[models.Run]:
    return with_movie_counts(project.runs.select_related("user", "project"))


def _run(request: ApiRequest, project_id: uuid.UUID, run_id: uuid.UUID) -> models.Run:
    run = _rows(project_for(request.auth, project_id)).filter(pk=run_id).first()
    if run is None:
        raise NotFound("This project has no such run.")
    return run
