"""`scipion-cloud desktop`: open, list, stop."""

import time

import click

from scipion_cloud.cli.client import Client, Json, ServerError, with_client
from scipion_cloud.cli.output import moment, show_json, show_table, time_left
from scipion_cloud.model import LIVE_DESKTOPS

_START_TIMEOUT = 120.0  # s


@click.group()
def desktop() -> None:
    """Open, list and stop desktops: Scipion itself, in the browser.

    PROJECT is a project's name, its id, or the first characters of its id.
    """


@desktop.command(name="open")
@click.argument("project")
@with_client
def open_desktop(client: Client, project: str, as_json: bool) -> None:
    """Open the desktop of PROJECT, wait until it is ready and print its address."""
    path = f"/projects/{client.project(project)['id']}/desktops"
    row = client.post(path)
    give_up = time.monotonic() + _START_TIMEOUT
    while row["state"] == "starting" and time.monotonic() < give_up:
        time.sleep(0.5)
        row = client.get(f"{path}/{row['id']}")
    if row["state"] == "failed":
        raise ServerError(f"The desktop could not be started: {row['message']}")
    row["url"] = client.server + row["url"]
    if as_json:
        show_json(row)
    else:
        click.echo(
            f"{row['url']}\nIt is {row['state']} and closes in {time_left(row['deadline'])} unless extended."
        )


@desktop.command(name="list")
@click.argument("project", required=False)
@click.option("--all", "everything", is_flag=True, help="Ended ones too.")
@with_client
def list_desktops(client: Client, project: str | None, everything: bool, as_json: bool) -> None:
    """List the desktops of PROJECT, or of all your projects."""
    projects = [client.project(project)] if project else client.get("/projects")
    found: list[tuple[Json, Json]] = []
    for each in projects:
        rows = client.get(f"/projects/{each['id']}/desktops")
        found += [(each, row) for row in rows if everything or row["state"] in LIVE_DESKTOPS]
    if as_json:
        show_json([row for _, row in found])
        return
    table = [
        [each["name"], row["state"], row["opened_by"]["name"], moment(row["created"]), _left(row)]
        for each, row in found
    ]
    show_table(["project", "state", "opened by", "opened", "time left"], table, "No desktop is open.")


@desktop.command()
@click.argument("project")
@with_client
def stop(client: Client, project: str, as_json: bool) -> None:
    """Stop the desktop of PROJECT; protocols that it launched go on."""
    found = client.project(project)
    path = f"/projects/{found['id']}/desktops"
    live = [row for row in client.get(path) if row["state"] in LIVE_DESKTOPS]
    stopped = [client.post(f"{path}/{row['id']}/stop") for row in live]
    if as_json:
        show_json(stopped)
    else:
        click.echo("The desktop is closing." if stopped else f"No desktop is open in '{found['name']}'.")


def _left(row: Json) -> str:
    return time_left(row["deadline"]) if row["state"] in LIVE_DESKTOPS else ""
