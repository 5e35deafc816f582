"""`scipion-cloud example`: example data to try things with, made on this machine."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from scipion_cloud.cli.output import show_json


@click.group()
def example() -> None:
    """Make example data."""


@example.command()
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path))
@click.option("--count", default=6, show_default=True, help="Number of movies.")
@click.option("--size", default=1024, show_default=True, help="Columns and rows of a frame (px).")
@click.option("--frames", default=16, show_default=True, help="Frames of a movie.")
@click.option("--pixel-size", default=1.5, show_default=True, help="Pixel size (A).")
@click.option(
    "--format", "kind", type=click.Choice(["tiff", "mrc", "mrcs"]), default="tiff", show_default=True
)
@click.option(
    "--gain/--no-gain", default=True, show_default=True, help="A camera that needs a gain reference."
)
@click.option("--seed", default=1, show_default=True, help="The same seed gives the same movies.")
@click.option("--json", "as_json", is_flag=True, help="As one JSON object.")
def movies(
    folder: Path,
    count: int,
    size: int,
    frames: int,
    pixel_size: float,
    kind: str,
    gain: bool,
    seed: int,
    as_json: bool,
) -> None:
    """Write movies of ribosomes in ice into FOLDER.

    Real 70S ribosomes at random orientations, with contrast transfer, shot noise, radiation damage and a
    drift that is known: truth.json beside the movies tells it. 300 kV, Cs 2.7 mm, 1.25 e/A2 per frame.
    """
    from scipion_cloud.examples import MovieSpec, write_movies

    spec = MovieSpec(size=size, frames=frames, pixel_size=pixel_size, format=kind, gain=gain)  # type: ignore[arg-type]
    with _bar("Frames", count * frames) as done:
        paths = write_movies(folder, count, spec, seed, done)
    reference = folder / "gain.mrc" if gain else None
    if as_json:
        show_json(
            {
                "movies": [str(path) for path in paths],
                "gain": str(reference) if reference else None,
                "truth": str(folder / "truth.json"),
                "pixel_size_A": spec.pixel_size,
                "dose_per_frame_e_A2": spec.dose_per_frame,
                "voltage_kV": spec.voltage,
                "cs_mm": spec.cs,
                "amplitude_contrast": spec.amplitude_contrast,
            }
        )
        return
    with_gain = f", the gain reference {reference.name}" if reference else ""
    click.echo(f"{len(paths)} movies{with_gain} and truth.json are in {folder}.")


@example.command()
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path))
@click.option("--count", default=500, show_default=True, help="Number of particles.")
@click.option("--pixel-size", default=6.0, show_default=True, help="Pixel size (A).")
@click.option("--snr", default=0.1, show_default=True, help="Variance of the signal to that of the noise.")
@click.option("--seed", default=1, show_default=True, help="The same seed gives the same particles.")
@click.option("--json", "as_json", is_flag=True, help="As one JSON object.")
def particles(folder: Path, count: int, pixel_size: float, snr: float, seed: int, as_json: bool) -> None:
    """Write images of single ribosomes into FOLDER, for a classification or a refinement.

    particles.mrcs and, to be imported in Scipion or RELION, particles.star: it tells the true orientation and
    place of each. Matter is white, the background has mean 0 and standard deviation 1. 300 kV, Cs 2.7 mm.
    """
    from scipion_cloud.examples.particles import STACK, ParticleSpec, write_particles

    spec = ParticleSpec(pixel_size=pixel_size, snr=snr)
    with _bar("Particles", count) as done:
        star = write_particles(folder, count, spec, seed, done)
    if as_json:
        show_json(
            {
                "star": str(star),
                "stack": str(folder / STACK),
                "particles": count,
                "pixel_size_A": spec.pixel_size,
                "voltage_kV": spec.voltage,
                "cs_mm": spec.cs,
                "amplitude_contrast": spec.amplitude_contrast,
            }
        )
        return
    click.echo(f"{count} particles are in {folder}: import {star.name}.")


@contextmanager
def _bar(what: str, total: int) -> Iterator[Callable[[int, int], None]]:
    """A bar on a terminal, gone when the block ends; what it yields moves it."""
    console = Console(stderr=True, highlight=False)
    columns = (TextColumn(what), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("", total=total)
        yield lambda done, _: progress.update(task, completed=done)
