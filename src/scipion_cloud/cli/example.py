"""`scipion-cloud example`: example data to try things with, made on this machine."""

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
    console = Console(stderr=True, highlight=False)
    columns = (TextColumn("Frames"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("", total=count * frames)
        paths = write_movies(folder, count, spec, seed, lambda done, _: progress.update(task, completed=done))
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
