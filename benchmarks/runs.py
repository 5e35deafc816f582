"""A run through Scipion Cloud against RELION by hand, on the same movies.

    python benchmarks/runs.py [--movies 20] [--size 2048] [--frames 24] [--rounds 1]

All use all cores. Through Scipion Cloud means: from the click (the row of the request) to the moment
when the page says finished; a real controller beside it stores numbers and makes thumbnails meanwhile. It is
done with one movie at a time and a thread for each core, and with a movie at a time for each core.
By hand means one `relion_run_motioncorr` for all movies. Prints the ratios, and where the time went.
"""

# ruff: noqa: PLC0415 - what needs Django is imported when the home is there

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

from scipion_cloud.config import get_config
from scipion_cloud.examples import MovieSpec, write_movies

if TYPE_CHECKING:
    from scipion_cloud.records.models import Project

_OPTICS = """
data_optics

loop_
_rlnOpticsGroupName #1
_rlnOpticsGroup #2
_rlnMicrographOriginalPixelSize #3
_rlnVoltage #4
_rlnSphericalAberration #5
_rlnAmplitudeContrast #6
opticsGroup1 1 {spec.pixel_size} {spec.voltage} {spec.cs} {spec.amplitude_contrast}

data_movies

loop_
_rlnMicrographMovieName #1
_rlnOpticsGroup #2
"""


@dataclass(frozen=True)
class Timing:
    """Seconds of one run through Scipion Cloud."""

    total: float  # from the click to "finished"
    waiting: float  # until the job ran
    job: float
    pictures: float  # from the click to the last picture; not a part of `total`


def main(argv: Sequence[str] | None = None) -> float:
    """Run the benchmark and return the ratio with one movie at a time."""
    parser = argparse.ArgumentParser(description="A run through Scipion Cloud against RELION by hand.")
    parser.add_argument("--movies", type=int, default=20)
    parser.add_argument("--size", type=int, default=2048, help="pixels")
    parser.add_argument("--frames", type=int, default=24)
    parser.add_argument("--rounds", type=int, default=1)
    given = parser.parse_args(argv)
    spec = MovieSpec(size=given.size, frames=given.frames)
    cores = len(os.sched_getaffinity(0))
    with _fresh_home():
        project = _project()
        print(
            f"{given.movies} movies of {given.size} x {given.size} x {given.frames}, {cores} cores",
            flush=True,
        )
        movies = write_movies(project.data, given.movies, spec, seed=1)
        by_hand, through, several = [], [], []
        with _controller():
            for number in range(given.rounds):
                for way in ("hand", "cloud", "several")[:: 1 if number % 2 == 0 else -1]:
                    if way == "hand":
                        by_hand.append(_by_hand(movies, spec, cores))
                        print(f"by hand                 {by_hand[-1]:7.1f} s", flush=True)
                    else:
                        threads, at_a_time = (cores, 1) if way == "cloud" else (1, 0)
                        timing = _through_cloud(project, spec, threads, at_a_time)
                        (through if way == "cloud" else several).append(timing)
                        _tell(timing, "one movie at a time" if way == "cloud" else f"{cores} at a time")
    ratio, shared = (median(t.total for t in way) / median(by_hand) for way in (through, several))
    print(f"ratio                   {ratio:7.3f}   (overhead {100 * (ratio - 1):+.1f} %)")
    print(f"ratio, {cores:3} at a time     {shared:7.3f}   (overhead {100 * (shared - 1):+.1f} %)")
    return ratio


def _by_hand(movies: Sequence[Path], spec: MovieSpec, cores: int) -> float:
    """Seconds that RELION takes for all movies."""
    folder = movies[0].parent
    star = folder / "by_hand.star"
    star.write_text(_OPTICS.format(spec=spec) + "".join(f"{movie.name} 1\n" for movie in movies))
    command = (
        f"relion_run_motioncorr --i {star.name} --o by_hand/ --use_own --j {cores} --gainref gain.mrc "
        f"--angpix {spec.pixel_size} --voltage {spec.voltage} --patch_x 5 --patch_y 5 --bfactor 150 "
        f"--dose_weighting --dose_per_frame {spec.dose_per_frame} --preexposure 0"
    )
    began = time.monotonic()
    subprocess.run(
        command.split(), cwd=folder, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    took = time.monotonic() - began
    shutil.rmtree(folder / "by_hand")
    star.unlink()
    return took


def _through_cloud(project: "Project", spec: MovieSpec, threads: int, at_a_time: int) -> Timing:
    """A run as the page starts it. Raises RuntimeError if it does not finish with every movie."""
    from scipion_cloud.portal import services
    from scipion_cloud.records.models import Run

    values = {
        "pixel_size": spec.pixel_size,
        "dose_per_frame": spec.dose_per_frame,
        "gain": "gain.mrc",
        "patch_x": 5,
        "patch_y": 5,
        "threads": threads,
        "at_a_time": at_a_time,
    }
    began = time.monotonic()
    run = services.start_run(project.owner, project, "movie-alignment", values)
    while not (run := Run.objects.get(pk=run.pk)).status.is_final:
        time.sleep(0.1)
    total = time.monotonic() - began
    if run.state != "finished" or run.message or run.started is None or run.ended is None:
        raise RuntimeError(f"The run is {run.state}: {run.message}")
    while run.movies.filter(details=False).exists():
        time.sleep(0.1)
    waiting = (run.started - run.created).total_seconds()
    return Timing(total, waiting, (run.ended - run.started).total_seconds(), time.monotonic() - began)


def _tell(timing: Timing, how: str) -> None:
    rest = timing.total - timing.waiting - timing.job
    print(
        f"through Scipion Cloud   {timing.total:7.1f} s   until the job ran {timing.waiting:.1f}, "
        f"job {timing.job:.1f} with {how}, afterwards {rest:.1f}; all pictures after {timing.pictures:.1f}",
        flush=True,
    )


def _project() -> "Project":
    import django
    from django.core.management import call_command

    django.setup()
    from scipion_cloud.portal import services
    from scipion_cloud.portal.administrator import first_administrator

    call_command("migrate", verbosity=0, run_syncdb=True)
    return services.create_project(first_administrator(), "Benchmark")


@contextmanager
def _fresh_home() -> Iterator[None]:
    software = get_config().software
    with tempfile.TemporaryDirectory(prefix="scb-") as home:
        os.environ |= {"SCIPION_CLOUD_HOME": home, "SCIPION_CLOUD_SOFTWARE": str(software)}
        os.environ.setdefault("DJANGO_SETTINGS_MODULE", "scipion_cloud.portal.settings")
        get_config.cache_clear()
        yield


@contextmanager
def _controller() -> Iterator[None]:
    with (get_config().home / "controller.log").open("wb") as log:
        process = subprocess.Popen([sys.executable, "-m", "scipion_cloud.controller"], stderr=log)
        try:
            yield
        finally:
            process.terminate()
            process.wait()


if __name__ == "__main__":
    main()
