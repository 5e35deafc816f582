"""Check a set of movies and its gain reference before anything runs on them."""

from collections import Counter
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from scipion_cloud.errors import InvalidInput
from scipion_cloud.tools.movies.info import MovieInfo, read_image_info, read_info

T = TypeVar("T", bound=Hashable)


@dataclass(frozen=True)
class SetReport:
    """What a set of movies has in common, and what is wrong with which file.

    size (columns, rows; px), frames and pixel_size (A) are those of most movies, None if there are none (or,
    for pixel_size, if the files are silent). A movie with a problem is not in `movies`.
    """

    movies: tuple[MovieInfo, ...]
    problems: dict[Path, str]
    size: tuple[int, int] | None
    frames: int | None
    pixel_size: float | None
    gain: MovieInfo | None
    gain_problem: str | None
    warnings: tuple[str, ...]

    @property
    def is_good(self) -> bool:
        """True if there are movies and nothing is wrong with any of them or the gain reference."""
        return bool(self.movies) and not self.problems and self.gain_problem is None


def check_set(
    paths: Iterable[Path],
    gain: Path | None = None,
    inside: Path | None = None,
    report: Callable[[int], None] | None = None,
) -> SetReport:
    """Read the headers of movies and of the gain reference and compare them. Never raises for a bad file.

    inside: a folder that links must not lead out of. report: called with the number of movies read so far.
    """
    read: list[MovieInfo] = []
    problems: dict[Path, str] = {}
    for number, path in enumerate(paths, 1):
        try:
            read.append(read_info(path, inside))
        except InvalidInput as e:
            problems[path] = str(e)
        if report:
            report(number)
    size = _most_common(movie.size for movie in read)
    good = [movie for movie in read if movie.size == size]
    for movie in read:
        if size and movie.size != size:
            problems[movie.path] = (
                f"{movie.path.name} has {_times(movie.size)} pixels, most movies of this set have "
                f"{_times(size)}. Process it in a run of its own."
            )
    known = [movie.pixel_size for movie in good if movie.pixel_size is not None]
    gain_info, gain_problem = _check_gain(gain, size, inside)
    return SetReport(
        tuple(good),
        problems,
        size,
        _most_common(movie.frames for movie in good),
        _most_common(known),
        gain_info,
        gain_problem,
        tuple(_warnings(good, known)),
    )


def _check_gain(
    path: Path | None, size: tuple[int, int] | None, inside: Path | None
) -> tuple[MovieInfo | None, str | None]:
    if path is None:
        return None, None
    if path.suffix.lower() in (".dm4", ".dm3"):
        return None, f"{path.name} is a DigitalMicrograph file. Convert it to MRC, as with IMOD's dm2mrc."
    try:
        gain = read_image_info(path, inside)
    except InvalidInput as e:
        return None, f"Gain reference: {e}"
    return gain, _misfit(gain, size)


def _misfit(gain: MovieInfo, size: tuple[int, int] | None) -> str | None:
    """Why this gain reference does not fit movies of `size`, or None if it does."""
    name = gain.path.name
    if gain.frames > 1:
        return f"{name} has {gain.frames} frames: it is a movie. Choose the gain reference."
    if size is None or gain.size == size:
        return None
    problem = f"The gain reference {name} has {_times(gain.size)} pixels, the movies have {_times(size)}."
    if gain.size == size[::-1]:
        return f"{problem} It fits when turned: set the gain rotation to 90 or 270 degrees."
    factors = {a / b for a, b in zip(gain.size, size, strict=True)}
    if factors in ({2.0}, {0.5}):
        other = "super-resolution" if factors == {2.0} else "physical"
        return f"{problem} It is for {other} pixels; use the reference of the movies' mode."
    return f"{problem} Choose the reference of this camera and session."


def _warnings(movies: list[MovieInfo], pixel_sizes: list[float]) -> Iterable[str]:
    frames = Counter(movie.frames for movie in movies)
    if len(frames) > 1:
        said = ", ".join(f"{number} with {count}" for count, number in frames.most_common(5))
        yield f"The movies differ in their number of frames ({said}). Short ones may be incomplete copies."
    if len(set(pixel_sizes)) > 1:
        said = ", ".join(f"{size:g}" for size in sorted(set(pixel_sizes))[:5])
        yield f"The movies tell different pixel sizes ({said} A). Process one magnification at a time."
    stems = Counter(movie.path.stem for movie in movies)
    for stem in [stem for stem, number in stems.items() if number > 1][:5]:
        yield f"{stems[stem]} movies are called {stem}: their results would have one name. Rename them."
    texts = Counter(text for movie in movies for text in movie.warnings)
    for text, number in texts.items():
        yield f"{text} ({number} movies)" if number > 1 else text


def _most_common(values: Iterable[T]) -> T | None:
    common = Counter(values).most_common(1)
    return common[0][0] if common else None


def _times(size: tuple[int, int]) -> str:
    return f"{size[0]} x {size[1]}"
