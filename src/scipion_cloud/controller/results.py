"""What a run has found so far, movie by movie: numbers into the database at once, pictures as time allows."""

import logging
import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from scipion_cloud.controller.background import Background
from scipion_cloud.controller.painter import Painter, Picture
from scipion_cloud.errors import InvalidInput
from scipion_cloud.model import MovieState, RunState
from scipion_cloud.records.models import Movie, Run
from scipion_cloud.tools.movies.results import Motion, MovieOutputs, read_motion, scan_results

log = logging.getLogger(__name__)

EVERY = 1.0  # s between two looks at a run's files
REST = 1.0  # s between two looks for missing pictures when there were none
AHEAD = 2  # movies that the painter has at a time: one in work, one next
TRIES = 2  # times that the painter may die on a movie


@dataclass(frozen=True)
class Numbers:
    """What `Movie` records of a finished movie; its fields have the same names and units."""

    stem: str
    total: float | None = None
    early: float | None = None
    late: float | None = None
    drift: Sequence[Sequence[float]] = ()
    local: Sequence[Sequence[float]] = ()
    message: str = ""


def new_numbers(
    project: Path, steps: Mapping[str, Any], known: AbstractSet[str], before: Iterable[MovieOutputs] = ()
) -> tuple[tuple[Numbers, ...], list[MovieOutputs]]:
    """The numbers of the finished movies of a run whose stems are not `known`; and all that has been found.

    The latter given as `before` makes the next call quick. Takes milliseconds a movie.
    """
    run_dir = _results_dir(steps)
    found = scan_results(project / run_dir, before) if run_dir else []
    return tuple(_numbers(outputs) for outputs in found if outputs.stem not in known), found


def _results_dir(steps: Mapping[str, Any]) -> str:
    """The folder of the last step that has begun, relative to the project; empty before."""
    begun = [step["run_dir"] for step in steps.values() if step["run_dir"]]
    return begun[-1] if begun else ""


def _numbers(outputs: MovieOutputs) -> Numbers:
    try:
        motion = read_motion(outputs)
    except InvalidInput as e:
        return Numbers(outputs.stem, message=str(e))
    drift = [[round(float(value), 3) for value in place] for place in zip(motion.x, motion.y, strict=True)]
    return Numbers(outputs.stem, motion.total, motion.early, motion.late, drift, _arrows(motion))


def _arrows(motion: Motion) -> list[list[float]]:
    """[x, y, dx, dy] of each patch: its place as a fraction of the field from the lower left, and how far (A)
    it moved over the whole movie in addition to the field.
    """
    local = motion.local
    if local is None:
        return []
    return [
        [round(float(value), 4) for value in (u, v, local.x[-1, j, i], local.y[-1, j, i])]
        for j, v in enumerate(local.v)
        for i, u in enumerate(local.u)
    ]


class Results:
    """Takes in what runs have found. All that it remembers can be lost."""

    def __init__(self) -> None:
        self._painter = Painter()
        self._known: dict[object, set[str]] = {}  # run -> stems that need no reading any more
        self._found: dict[object, list[MovieOutputs]] = {}
        self._next: dict[object, float] = {}
        self._look_again = 0.0
        self._mended = False
        self._deaths: dict[int, int] = {}

    def harvest(self, run: Run, steps: Mapping[str, Any], background: Background) -> None:
        """Store the numbers of movies that have been finished since the last call; returns at once."""
        if time.monotonic() < self._next.get(run.pk, 0.0):
            return

        def begin() -> Callable[[], tuple[tuple[Numbers, ...], list[MovieOutputs]]]:
            if run.pk not in self._known:
                settled = run.movies.exclude(state=MovieState.WAITING.value)
                self._known[run.pk] = set(settled.values_list("stem", flat=True))
            known, before = frozenset(self._known[run.pk]), self._found.get(run.pk, [])
            return partial(new_numbers, run.project.path, steps, known, before)

        answer = background.poll_with(("harvest", run.pk), begin)
        if answer is None:
            return
        numbers, self._found[run.pk] = answer
        self._next[run.pk] = time.monotonic() + EVERY
        if numbers:
            self.store(run, numbers)

    def store(self, run: Run, found: Iterable[Numbers]) -> None:
        """Record finished movies; those whose fate is known already stay as they are."""
        numbers = {n.stem: n for n in found}
        movies = list(run.movies.filter(state=MovieState.WAITING.value, stem__in=list(numbers)))
        for movie in movies:
            new = numbers[movie.stem]
            movie.state = MovieState.DONE.value
            movie.total, movie.early, movie.late = new.total, new.early, new.late
            movie.drift, movie.local, movie.message = list(new.drift), list(new.local), new.message
        fields = ["state", "total", "early", "late", "drift", "local", "message"]
        Movie.objects.bulk_update(movies, fields, batch_size=50)
        self._known.setdefault(run.pk, set()).update(numbers)
        self._look_again = 0.0

    def forget(self, run: Run) -> None:
        """Nothing more will come from this run."""
        self._known.pop(run.pk, None)
        self._found.pop(run.pk, None)
        self._next.pop(run.pk, None)

    def reconcile(self) -> None:
        """Record the pictures that have been made, and have the next ones made."""
        if not self._mended:
            mend_pictures()
            self._mended = True
        for picture, error, died in self._painter.collect():
            self._record(picture, error, died=died)
        room = AHEAD - len(self._painter.asked)
        if room <= 0 or time.monotonic() < self._look_again:
            return
        missing = self._missing(room)
        for movie in missing:
            self._painter.ask(picture_of(movie))
        if not missing:
            self._look_again = time.monotonic() + REST

    def _missing(self, room: int) -> list[Movie]:
        """The movies to paint next: those that somebody waits for, then thumbnails, newest run first.

        The details of the others, which take a tenth of an alignment's work, wait until nothing runs.
        """
        ready = (
            Movie.objects.filter(state=MovieState.DONE.value, message="", run__project__deleted=None)
            .exclude(pk__in=[p.movie for p in self._painter.asked])
            .select_related("run__project")
            .order_by("-run__created", "index")
        )
        found = list(ready.filter(wanted=True, details=False)[:room])
        found += ready.filter(thumbnail=False).exclude(pk__in=[m.pk for m in found])[: room - len(found)]
        if not found and not Run.objects.filter(state=RunState.RUNNING.value).exists():
            found = list(ready.filter(details=False)[:room])
        return found

    def close(self) -> None:
        """End the painter; what it was about is done again later."""
        self._painter.close()

    def _record(self, picture: Picture, error: str | None, *, died: bool) -> None:
        movie = Movie.objects.filter(pk=picture.movie)
        if error is None:
            movie.update(thumbnail=True, **({"details": True, "wanted": False} if picture.details else {}))
            return
        deaths = self._deaths[picture.movie] = self._deaths.get(picture.movie, 0) + 1
        if not died or deaths >= TRIES:
            log.warning("no pictures of %s: %s", picture.stem, error)
            movie.update(message=f"Its pictures could not be made: {error}")


def picture_of(movie: Movie) -> Picture:
    """The request for what is missing next of a movie's pictures."""
    run, given = movie.run, movie.run.parameters
    data = run.project.data
    run_dir = _results_dir(run.steps)
    return Picture(
        movie=movie.pk,
        stem=movie.stem,
        run_dir=str(run.project.path / run_dir) if run_dir else "",
        source=str(data / movie.name),
        gain=str(data / given["gain"]) if given.get("gain") else "",
        pixel_size=float(given["pixel_size"]),
        binning=float(given.get("binning") or 1),
        gain_rotation=int(given.get("gain_rotation") or 0),
        gain_flip=int(given.get("gain_flip") or 0),
        folder=str(run.pictures / movie.stem),
        details=movie.thumbnail or movie.wanted,
    )


def mend_pictures() -> None:
    """Note which pictures have gone from the disk, and give those that failed another chance."""
    lost = []
    folders: dict[Path, set[str]] = {}
    drawn = Movie.objects.filter(thumbnail=True).select_related("run").only("pk", "stem", "run")
    for movie in drawn.iterator():
        folder = movie.run.pictures
        if folder not in folders:
            folders[folder] = set(os.listdir(folder)) if folder.is_dir() else set()  # noqa: PTH208
        if movie.stem not in folders[folder]:
            lost.append(movie.pk)
    for start in range(0, len(lost), 500):
        Movie.objects.filter(pk__in=lost[start : start + 500]).update(thumbnail=False, details=False)
    Movie.objects.filter(state=MovieState.DONE.value, details=False).exclude(message="").update(message="")
