"""What we change in Scipion's movie protocols, and why. Applied by `patches`."""

import functools
import json
import os
import sys
import time
from pathlib import Path

from pwem.protocols import ProtAlignMovies, ProtProcessMovies

from scipion_cloud_em import lanes
from scipion_cloud_em.motion_plot import ShiftPlot

RECORD_NAME = "movies.jsonl"
original_step = ProtProcessMovies.processMovieStep
_RELION_MODULE = "relion.protocols.protocol_motioncor"
_TAIL = 2000  # characters of a program's complaints that are kept
_NOISE = ("gs:", "logfile.pdf")  # RELION cannot draw a PDF without ghostscript; nobody looks at it


def apply_movie_patches() -> None:
    """Wrap the steps of the protocols' common bases; subclasses keep their own work."""
    ProtProcessMovies.processMovieStep = _process_movie(original_step)
    ProtAlignMovies._updateOutputSets = _update_outputs(ProtAlignMovies._updateOutputSets)


def _process_movie(original):
    @functools.wraps(original)
    def processMovieStep(self, movieDict, *args, **kwargs):
        """As before, but keeps a record of each movie, which protocols that swallow a failure do not."""
        relion = sys.modules.get(_RELION_MODULE)
        if relion is not None:
            relion.createGlobalAlignmentPlot = ShiftPlot
        find_gain(self)
        elsewhere = lanes.active.take_over(movie_name(movieDict["object.id"])) if lanes.active else None
        began, complaints = time.monotonic(), _size(self.getStderrLog())
        original(self, movieDict, *args, **kwargs)
        _record(self, movieDict, time.monotonic() - began + (elsewhere or 0), complaints)

    return processMovieStep


def _update_outputs(original):
    @functools.wraps(original)
    def _updateOutputSets(self, *args, **kwargs):
        """As before, but the outputs name the gain reference relative to the project, which may move."""
        _set_gain(self, _relative)
        original(self, *args, **kwargs)

    return _updateOutputSets


def movie_name(number: int) -> str:
    """What Scipion calls the folder of a movie."""
    return f"movie_{number:06d}"


def first_ready(executor, steps: list) -> list:
    """The step to run next, in a list, which is empty if none can be run now.

    Where other lanes work on movies as well, it is the first one that they have finished or that nobody has.
    """
    shared = lanes.active
    ready = executor._getRunnable(steps, shared.ahead if shared else 1)
    if shared is None or any(step.funcName != "processMovieStep" for step in ready):
        return ready[:1]
    names = {movie_name(step._args[0]["object.id"]): step for step in ready}
    return [names[shared.choose(list(names))]] if names else []


def find_gain(protocol) -> None:
    """Make its path absolute, as programs in other folders need it; a resumed run skips the step that did."""
    _set_gain(protocol, os.path.abspath)


def _set_gain(protocol, change) -> None:
    movies = protocol.inputMovies.get()
    gain = movies.getGain() if movies is not None and hasattr(movies, "getGain") else None
    if gain:
        movies.setGain(change(gain))


def _relative(path: str) -> str:
    relative = os.path.relpath(path)
    return path if relative.startswith(os.pardir) else relative


def _record(protocol, movie: dict, seconds: float, complaints: int) -> None:
    """Append {"id", "name", "ok", "seconds", "error"} to `extra/movies.jsonl`; `name` is the input's."""
    name = Path(movie.get("_filename", "")).name
    ok = not isinstance(protocol, ProtAlignMovies) or _aligned(protocol, name)
    line = {
        "id": movie.get("object.id"),
        "name": name,
        "ok": ok,
        "seconds": round(seconds, 3),
        "error": "" if ok else _complaints(protocol.getStderrLog(), complaints),
    }
    with Path(protocol._getExtraPath(RECORD_NAME)).open("a") as file:
        file.write(json.dumps(line) + "\n")


def _aligned(protocol, name: str) -> bool:
    """True if the alignment left anything for this movie."""
    return any(Path(protocol._getExtraPath()).glob(f"{Path(name).stem}_*.mrc*"))


def _size(file: str) -> int:
    try:
        return Path(file).stat().st_size
    except OSError:
        return 0


def _complaints(file: str, start: int) -> str:
    """What was written to the error log since it had `start` bytes."""
    try:
        with Path(file).open("rb") as log:
            log.seek(start)
            text = log.read().decode(errors="replace")
    except OSError:
        return ""
    lines = [line for line in text.splitlines() if line.strip() and not any(n in line for n in _NOISE)]
    return "\n".join(lines)[-_TAIL:]
