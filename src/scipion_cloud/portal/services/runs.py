"""Starting and stopping runs. The controller submits what the rows ask for."""

import re
from collections.abc import Iterable, Mapping
from pathlib import PurePosixPath

from django.db import transaction
from django.db.models import Count, Q, QuerySet

from scipion_cloud.controller.runs import request_cancel
from scipion_cloud.errors import Conflict, InvalidInput
from scipion_cloud.model import AUTOMATIC, MovieState, Role
from scipion_cloud.portal.services.choosing import movie_names
from scipion_cloud.portal.services.guards import lock, need, need_open
from scipion_cloud.portal.services.where import settle
from scipion_cloud.portal.uploads.files import list_data
from scipion_cloud.records.models import Movie, Project, Run, User
from scipion_cloud.tools.catalogue import tool
from scipion_cloud.tools.form import Value
from scipion_cloud.tools.movies.checks import SetReport, check_set

_QUARTER_TURNS = ("1", "3")  # of the gain reference, as RELION counts them
_NAMED = 3  # movies with a problem that a message names
_UNSAFE = re.compile(r"[^A-Za-z0-9_-]+")
_LONGEST_STEM = 120  # programs add their own endings; a name has 255 bytes at most


def start_run(
    user: User,
    project: Project,
    tool_id: str,
    values: Mapping[str, object],
    *,
    movies: str = "",
    label: str = "",
    where: str = AUTOMATIC,
) -> Run:
    """Check everything that can be known beforehand and ask for a run.

    `values` are as typed or as JSON; `movies` takes a folder of the data or a pattern as `day1/*.tiff`, and
    all movies if it is empty; `where` is automatic, here, or a site's name. Raises NotFound for a tool that
    is not there, PermissionDenied unless `user` is an editor, InvalidInput with messages by field for values,
    movies, a gain reference or a site that cannot be used.
    """
    need(user, project, Role.EDITOR)
    need_open(project)
    chosen = tool(tool_id)
    parameters = chosen.validate(values)
    names = movie_names(project, movies)
    _check_movies(project, names, parameters)
    site = settle(where, project, chosen, parameters, names)
    longest = Run._meta.get_field("label").max_length or 0
    with transaction.atomic():
        lock(project)
        need_open(project)
        run = Run.objects.create(
            project=project,
            user=user,
            tool=tool_id,
            parameters=parameters,
            where=where.strip() or AUTOMATIC,
            site=site,
            label=_printable(label)[:longest] or f"{chosen.title} {project.runs.count() + 1}",
        )
        rows = zip(names, stems(names), strict=True)
        Movie.objects.bulk_create(
            [Movie(run=run, index=index, name=name, stem=stem) for index, (name, stem) in enumerate(rows, 1)],
            batch_size=500,
        )
    return run


def cancel_run(user: User, run: Run) -> Run:
    """Stop a run at once; what it has finished stays.

    Raises PermissionDenied unless `user` is an editor, Conflict if it has ended already.
    """
    need(user, run.project, Role.EDITOR)
    if not request_cancel(run):
        raise Conflict(f"This run is {run.state} already.")
    return run


def with_movie_counts(runs: QuerySet[Run]) -> QuerySet[Run]:
    """The runs, each with how many movies it has in `total`, `done` and `failed`."""
    return runs.annotate(
        total=Count("movies"),
        done=Count("movies", filter=Q(movies__state=MovieState.DONE.value)),
        failed=Count("movies", filter=Q(movies__state=MovieState.FAILED.value)),
    )


def _check_movies(project: Project, names: list[str], parameters: Mapping[str, Value]) -> None:
    """Read all headers. Raises InvalidInput for what could only fail later."""
    odd = [name for name in names if not name.isprintable() or not _is_utf8(name)]
    if odd:
        text = f"Rename {odd[0]!a}: its name holds characters that programs lose."
        raise InvalidInput(errors={"movies": text})
    gain = str(parameters.get("gain") or "")
    if gain and gain not in {file.path for file in list_data(project)}:
        text = f"There is no file {gain!r} in this project's data; upload the gain reference first."
        raise InvalidInput(errors={"gain": text})
    inside = project.data
    report = check_set([inside / name for name in names], inside / gain if gain else None, inside)
    errors = {
        "movies": _problems(report, len(names)) if report.problems else None,
        "gain": _gain_problem(report, turned=parameters.get("gain_rotation") in _QUARTER_TURNS),
        "first_frame": _frame_problem(parameters.get("first_frame"), report.frames),
        "last_frame": _frame_problem(parameters.get("last_frame"), report.frames),
    }
    if found := {field: text for field, text in errors.items() if text}:
        raise InvalidInput(errors=found)


def _gain_problem(report: SetReport, *, turned: bool) -> str | None:
    """Why the gain reference cannot be used as it will be turned."""
    if not turned or report.gain is None or report.size is None or report.gain.frames > 1:
        return report.gain_problem
    if report.gain.size == report.size[::-1]:
        return None
    if report.gain.size == report.size:
        return "This gain reference fits as it is: set its rotation to none or 180 degrees."
    return report.gain_problem


def _frame_problem(number: Value, frames: int | None) -> str | None:
    """Why this frame cannot be asked for."""
    if frames is None or not isinstance(number, int) or number <= frames:
        return None
    return f"The movies have {frames} frames only."


def _problems(report: SetReport, total: int) -> str:
    texts = list(report.problems.values())
    if total == 1:
        return texts[0]
    more = f" And {len(texts) - _NAMED} more." if len(texts) > _NAMED else ""
    remedy = "Delete or replace these files, or choose the others by a folder or a pattern."
    return f"{len(texts)} of {total} movies cannot be used. {' '.join(texts[:_NAMED])}{more} {remedy}"


def _is_utf8(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _printable(text: str) -> str:
    """One line of readable characters."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


def stems(names: Iterable[str]) -> list[str]:
    """For each movie a name that is safe in shells, STAR files and Scipion, and that no other movie has.

    Dots go too: Scipion would take what follows one for an ending.
    """
    taken: set[str] = set()
    found = []
    for name in names:
        base = _UNSAFE.sub("_", PurePosixPath(name).stem).strip("_-")[:_LONGEST_STEM] or "movie"
        stem, number = base, 1
        while stem in taken:
            number += 1
            stem = f"{base}_{number}"
        taken.add(stem)
        found.append(stem)
    return found
