"""`scipion-cloud project open`, `save`, `extend`, `close`, `history`, `restore`: projects in a storage."""

import time

import click

from scipion_cloud.cli.client import Client, Json, ServerError, with_client
from scipion_cloud.cli.output import moment, show_json, show_table, size, time_left

_LOOK_EVERY = 1.0  # s
_OPEN, _ENDED = ("ready", "saving"), ("released", "failed")


@click.command(name="open")
@click.argument("project")
@click.option("--days", type=float, help="Until it closes by itself, unless it is extended.")
@click.option("--generation", type=int, help="Begin with an earlier generation.")
@click.option("--take-over", default="", metavar="REASON", help="Break the expired lock of somebody else.")
@click.option("--import-legacy", is_flag=True, help="Take up what an earlier system left there.")
@click.option("--no-wait", is_flag=True, help="Do not wait until its files are here.")
@with_client
def open_project(
    client: Client,
    project: str,
    days: float | None,
    generation: int | None,
    take_over: str,
    import_legacy: bool,
    no_wait: bool,
    as_json: bool,
) -> None:
    """Bring PROJECT here from its storage, and wait until people can work in it."""
    path = f"/projects/{client.project(project)['id']}/deployment"
    wish = {"days": days, "generation": generation, "take_over": take_over, "import_legacy": import_legacy}
    row = client.post(path, wish)
    if not no_wait:
        row = _wait(client, path, row, _OPEN, quiet=as_json)
    _tell(row, as_json)


@click.command()
@click.argument("project")
@click.option("--cancel", is_flag=True, help="End its runs and its desktop.")
@click.option("--no-wait", is_flag=True, help="Do not wait for the final save.")
@with_client
def close(client: Client, project: str, cancel: bool, no_wait: bool, as_json: bool) -> None:
    """Save PROJECT a last time and give it free."""
    path = f"/projects/{client.project(project)['id']}/deployment"
    row = client.post(f"{path}/close", {"cancel": cancel})
    if not no_wait:
        row = _wait(client, path, row, ("released",), quiet=as_json)
    _tell(row, as_json)


@click.command()
@click.argument("project")
@with_client
def save(client: Client, project: str, as_json: bool) -> None:
    """Save PROJECT now, beside the saves that come by themselves."""
    row = client.post(f"/projects/{client.project(project)['id']}/deployment/save")
    if as_json:
        show_json(row)
    else:
        click.echo("Saving. `scipion-cloud project history` shows the new generation.")


@click.command()
@click.argument("project")
@click.option("--days", type=float, help="From now.")
@with_client
def extend(client: Client, project: str, days: float | None, as_json: bool) -> None:
    """Let PROJECT stay open longer."""
    _tell(
        client.post(f"/projects/{client.project(project)['id']}/deployment/extend", {"days": days}), as_json
    )


@click.command()
@click.argument("project")
@with_client
def history(client: Client, project: str, as_json: bool) -> None:
    """List the generations of PROJECT, the newest first."""
    rows = client.get(f"/projects/{client.project(project)['id']}/generations")
    if as_json:
        show_json(rows)
        return
    table = [
        [r["number"], moment(r["created"]), r["files"], size(r["bytes"]), r["user"], r["note"]] for r in rows
    ]
    show_table(["generation", "saved", "files", "size", "by", ""], table, "Nothing has been saved yet.")


@click.command()
@click.argument("project")
@click.argument("generation", type=int)
@with_client
def restore(client: Client, project: str, generation: int, as_json: bool) -> None:
    """Make the open PROJECT what it was in GENERATION; what it is now is saved before."""
    row = client.post(f"/projects/{client.project(project)['id']}/generations/{generation}/restore")
    if as_json:
        show_json(row)
    else:
        click.echo(f"Going back to generation {generation}; what was there stays in the history.")


COMMANDS = (open_project, close, save, extend, history, restore)


def _wait(client: Client, path: str, row: Json, wanted: tuple[str, ...], *, quiet: bool) -> Json:
    """Wait for one of the phases. Raises ServerError when the deployment ends in another."""
    told = ""
    while row["phase"] not in wanted:
        if row["phase"] in _ENDED:
            raise ServerError(row["message"] or f"It ended as {row['phase']}.")
        line = _line(row)
        if line != told and not quiet:
            click.echo(line, err=True)
            told = line
        time.sleep(_LOOK_EVERY)
        row = client.get(path)
    return row


def _line(row: Json) -> str:
    copied = row["status"].get("saving" if "out" in row["phase"] else "project") or {}
    if not copied.get("bytes_total"):
        return f"{row['phase']}: {row['message']}"
    return f"{row['phase']}: {size(copied['bytes_done'])} of {size(copied['bytes_total'])}"


def _tell(row: Json, as_json: bool) -> None:
    if as_json:
        show_json(row)
        return
    saved = f", generation {row['generation']}" if row["generation"] else ""
    left = f", closes in {time_left(row['deadline'])}" if row["phase"] in _OPEN else ""
    click.echo(f"The project is {row['phase']}{saved}{left}.")
