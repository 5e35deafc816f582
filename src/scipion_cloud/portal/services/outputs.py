"""What a run has made: its log, its micrographs, a STAR file of them."""

from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from django.http import HttpRequest, HttpResponseBase

from scipion_cloud.config import get_config
from scipion_cloud.errors import JobError, NotFound
from scipion_cloud.jobs import JobId, backend_for
from scipion_cloud.model import MovieState
from scipion_cloud.portal.downloads import file_response, safe_open
from scipion_cloud.records.models import Movie, Run
from scipion_cloud.tools.movies.results import MovieOutputs, scan_results
from scipion_cloud.tools.movies.star import MicrographRow, Optics, movies_star

STAR_NAME = "corrected_micrographs.star"
_LOG_BYTES = 128 * 1024  # of each stream: what a person still reads


@dataclass(frozen=True)
class Output:
    """A micrograph that can be fetched: of which movie, under which name, bytes."""

    index: int
    name: str
    size: int


def run_log(run: Run) -> str:
    """The end of what the run has written: its job, then its steps in their order. Empty before it began."""
    parts = []
    if run.job_id is not None:
        try:
            logs = backend_for(get_config()).logs(JobId(run.job_id), _LOG_BYTES)
            parts = [logs.stdout, logs.stderr]
        except (NotFound, JobError) as e:
            parts = [f"The log of the job cannot be read: {e}"]
    for step in run.steps.values():
        if step.get("run_dir"):
            folder = f"{step['run_dir']}/logs"
            parts += [_tail(run.project.path, f"{folder}/{name}") for name in ("run.stdout", "run.stderr")]
    return "\n".join(part.strip("\n") for part in parts if part.strip())


def _tail(root: Path, relative: str) -> str:
    """The last lines of a text in the project; empty if there is none."""
    try:
        with safe_open(root, relative) as file:
            size = file.seek(0, 2)
            file.seek(max(0, size - _LOG_BYTES))
            text = file.read(_LOG_BYTES).decode(errors="replace")
    except NotFound:
        return ""
    return text if size <= _LOG_BYTES else "[...]\n" + text.partition("\n")[2]


def run_outputs(run: Run) -> list[Output]:
    """The micrographs that are done, in the order of the set, under the names of their movies."""
    found = _by_stem(run)
    return [
        Output(movie.index, _download_name(movie), found[movie.stem].micrograph.stat().st_size)
        for movie in _done(run)
        if movie.stem in found
    ]


def run_star(run: Run) -> str:
    """A STAR file of the accepted micrographs with their motions, in the order of the set.

    Its paths are relative to the project, as RELION and Scipion want them. Raises NotFound while empty.
    """
    project, found = run.project.path, _by_stem(run)
    accepted = [movie for movie in _done(run) if movie.accepted and movie.stem in found]
    if not accepted:
        raise NotFound("No micrograph of this run is done and accepted yet.")
    rows = [_row(movie, found[movie.stem], project) for movie in accepted]
    return movies_star(rows, _optics(run))


def _row(movie: Movie, outputs: MovieOutputs, project: Path) -> MicrographRow:
    micrograph, star = (path.relative_to(project).as_posix() for path in (outputs.micrograph, outputs.star))
    return MicrographRow(micrograph, star, movie.total, movie.early, movie.late)


def _optics(run: Run) -> Optics:
    given = run.parameters
    pixel_size = float(given["pixel_size"])
    return Optics(
        pixel_size=pixel_size * float(given.get("binning", 1)),
        original_pixel_size=pixel_size,
        voltage=float(given["voltage"]),
        cs=float(given["cs"]),
        amplitude_contrast=float(given["amplitude_contrast"]),
    )


def micrograph_response(request: HttpRequest, run: Run, movie: Movie) -> HttpResponseBase:
    """The aligned micrograph (MRC) as a download under the movie's name. Raises NotFound if there is none."""
    found = _by_stem(run).get(movie.stem) if movie.state == MovieState.DONE else None
    if found is None:
        raise NotFound("This movie has no aligned micrograph.")
    relative = found.micrograph.relative_to(run.project.path).as_posix()
    return file_response(request, run.project.path, relative, name=_download_name(movie))


def _done(run: Run) -> list[Movie]:
    return list(run.movies.filter(state=MovieState.DONE.value))


def _by_stem(run: Run) -> dict[str, MovieOutputs]:
    """The files of all movies that are done, from the run's last step that has a folder."""
    folders = [step["run_dir"] for step in run.steps.values() if step.get("run_dir")]
    return {o.stem: o for o in scan_results(run.project.path / folders[-1])} if folders else {}


def _download_name(movie: Movie) -> str:
    return f"{PurePosixPath(movie.name).stem}_aligned.mrc"
