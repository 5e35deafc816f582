"""`scipion-cloud soak`: agents are killed, starved and cut off while people work; is anything ever lost?"""

import secrets
import shutil
import tempfile
from pathlib import Path

import click

_STORAGES = ("posix", "s3", "sftp", "all")


@click.command()
@click.option(
    "--kills", type=click.IntRange(min=1), default=200, show_default=True, help="Of agents, in all."
)
@click.option("--storage", type=click.Choice(_STORAGES), default="all", show_default=True, help="Where.")
@click.option(
    "--rounds", type=click.IntRange(min=0), default=10, show_default=True, help="Of each of the other faults."
)
@click.option(
    "--jobs",
    type=click.IntRange(min=1),
    help="Instead, so many jobs at a far site, while everything is killed.",
)
@click.option("--seed", help="What happens follows from it, but for the moments. Made if left out.")
@click.option(
    "--folder",
    type=click.Path(file_okay=False, path_type=Path),
    help="Where to work; the system's temporary folder if left out.",
)
def soak(
    kills: int, storage: str, rounds: int, jobs: int | None, seed: str | None, folder: Path | None
) -> None:
    """Set up, then try for an hour or so to lose data of projects in real storages, or jobs at a far site.

    Exit code 1 if any was lost, or a job computed twice; all that there is to see is kept then.
    """
    from scipion_cloud.cli.output import show_table
    from scipion_cloud.cli.quality import set_up
    from scipion_cloud.testing.soak.plan import COLUMNS, shares
    from scipion_cloud.testing.soak.plan import soak as run

    set_up()
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
    seed = seed or secrets.token_hex(4)
    place = Path(tempfile.mkdtemp(prefix="soak-", dir=folder))
    click.echo(f"--seed {seed}, in {place}")
    if jobs:
        _jobs(jobs, seed, place)
        return
    rows = run(shares(kills, storage), rounds, place, seed, click.echo)
    show_table(COLUMNS, [row.cells() for row in rows], "")
    for row in rows:
        happened = ", ".join(f"{what} {count}" for what, count in sorted(row.events.items()))
        click.echo(f"{row.storage}, {row.what}: {happened}")
    bad = [row for row in rows if row.loss or row.trouble]
    for row in bad:
        click.secho(f"{row.storage}, {row.what}: {row.loss or row.trouble}", fg="red", err=True)
    if bad:
        click.secho(f"All that there is to see is in {place}.", fg="red", err=True)
        raise click.exceptions.Exit(1)
    shutil.rmtree(place, ignore_errors=True)


def _jobs(count: int, seed: str, place: Path) -> None:
    """Jobs at a far site while the controller, agent, connections and the program there are killed."""
    from scipion_cloud.testing.offload.loop import offload

    outcome = offload(place, count, seed, click.echo)
    faults = ", ".join(f"{what} {n}" for what, n in sorted(outcome.faults.items()))
    often = ", ".join(f"{n} jobs {times} times" for times, n in sorted(outcome.executed.items()))
    saved = f"{outcome.results} results of {outcome.jobs} jobs, {outcome.saved} of them saved"
    click.echo(f"{saved}, in {outcome.seconds:.0f} s.")
    click.echo(f"Computed: {often}. Faults: {faults}.")
    if not outcome.is_good:
        for wrong in outcome.wrong:
            click.secho(wrong, fg="red", err=True)
        click.secho(f"All that there is to see is in {place}.", fg="red", err=True)
        raise click.exceptions.Exit(1)
    shutil.rmtree(place, ignore_errors=True)
