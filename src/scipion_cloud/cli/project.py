"""`scipion-cloud project`: create, list, show, delete; how one is opened and closed is in `deployment`."""

import time

import click

from scipion_cloud.cli import deployment
from scipion_cloud.cli.client import Client, Json, ServerError, with_client
from scipion_cloud.cli.output import moment, show_facts, show_json, show_table, size

_LOOK_EVERY = 1.0  # s


@click.group()
def project() -> None:
    """Create, list, show and delete projects; open and close those that are kept in a storage.

    PROJECT is a project's name, its id, or the first characters of its id.
    """


for command in deployment.COMMANDS:
    project.add_command(command)


@project.command()
@click.argument("name")
@click.option("--description", default="", help="What it is about.")
@click.option("--demo", is_flag=True, help="With a few example movies in it.")
@click.option("--storage", metavar="STORAGE:FOLDER", help="A connected storage to keep it in, and where.")
@click.option("--existing", is_flag=True, help="Take up the project that lies there already.")
@click.option("--clone-of", metavar="PROJECT", help="A copy of this project, with its boxes and files.")
@click.option("--generation", type=click.IntRange(min=1), help="The copy begins with an earlier generation.")
@click.option("--archive", metavar="PROJECT:PATH", help="The project in an archive that was uploaded there.")
@click.option("--source", metavar="STORAGE:FOLDER", help="A dataset in a storage that it only reads.")
@with_client
def create(
    client: Client,
    name: str,
    description: str,
    demo: bool,
    storage: str | None,
    existing: bool,
    clone_of: str | None,
    generation: int | None,
    archive: str | None,
    source: str | None,
    as_json: bool,
) -> None:
    """Make a project called NAME, on the server's own disk or in a storage."""
    wish: Json = {"name": name, "description": description, "demo": demo, "existing": existing}
    for key, place in (("storage", storage), ("source", source)):
        if place is not None:
            where, _, folder = place.partition(":")
            wish[key] = client.storage(where)["id"]
            wish["folder" if key == "storage" else "source_folder"] = folder
    if clone_of is not None:
        wish |= {"clone_of": client.project(clone_of)["id"], "generation": generation}
    if archive is not None:
        holder, _, path = archive.partition(":")
        wish["archive"] = {"project": client.project(holder)["id"], "path": path}
    made = client.post("/projects", wish)
    if made["preparation"]:
        made = _wait(client, made, quiet=as_json)
    if as_json:
        show_json(made)
    else:
        click.echo(f"Made project '{made['name']}', id {made['id']}.\n{_page(client, made)}")


@project.command(name="list")
@with_client
def list_projects(client: Client, as_json: bool) -> None:
    """List your projects, the newest first."""
    rows = client.get("/projects")
    if as_json:
        show_json(rows)
        return
    table = [[r["id"][:8], r["name"], r["owner"]["name"], r["role"], moment(r["created"])] for r in rows]
    show_table(
        ["id", "name", "owner", "you", "created"],
        table,
        "No projects yet: `scipion-cloud project create NAME`.",
    )


@project.command()
@click.argument("project")
@with_client
def show(client: Client, project: str, as_json: bool) -> None:
    """Show a project: its data, runs and members."""
    row = client.project(project)
    path = f"/projects/{row['id']}"
    data, runs, members = (client.get(f"{path}/{part}") for part in ("data", "runs", "members"))
    if as_json:
        show_json({**row, "data": data, "runs": runs, "members": members})
        return
    movies = [file for file in data if file["kind"] == "movie"]
    show_facts(
        {
            "name": row["name"],
            "id": row["id"],
            "description": row["description"],
            "members": ", ".join(f"{m['name']} ({'owner' if m['owner'] else m['role']})" for m in members),
            "kept in": row["storage"] or "this server",
            "open": "yes" if row["is_open"] else "no",
            "data": f"{len(data)} files, {size(sum(f['size'] for f in data))}; {len(movies)} movies",
            "runs": ", ".join(f"{run['id'][:8]} {run['tool']} {run['state']}" for run in runs) or "none",
            "page": _page(client, row),
        }
    )


@project.command()
@click.argument("project")
@click.option("--yes", is_flag=True, help="Do not ask.")
@with_client
def delete(client: Client, project: str, yes: bool, as_json: bool) -> None:
    """Move a project to the server's trash."""
    row = client.project(project)
    if not yes:
        click.confirm(f"Delete '{row['name']}' ({row['id']}) for everybody?", abort=True, err=True)
    client.delete(f"/projects/{row['id']}")
    if as_json:
        show_json({"id": row["id"], "deleted": True})
    else:
        click.echo(f"Deleted '{row['name']}'. An operator can still bring its folder back from the trash.")


def _wait(client: Client, made: Json, *, quiet: bool) -> Json:
    """Until the files of a copy are here."""
    told = None
    while made["preparation"]["state"] == "copying":
        status = made["preparation"]["status"]
        line = (
            f"Copying: {size(status['bytes_done'])} of {size(status['bytes_total'])}" if status else "Waiting"
        )
        if line != told and not quiet:
            click.echo(line, err=True)
        told = line
        time.sleep(_LOOK_EVERY)
        made = client.get(f"/projects/{made['id']}")
    if made["preparation"]["state"] != "done":
        raise ServerError(
            f"{made['preparation']['message']} Its page lets you try again: {_page(client, made)}"
        )
    return made


def _page(client: Client, row: Json) -> str:
    return f"{client.server}/projects/{row['id']}/"
