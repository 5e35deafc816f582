"""`scipion-cloud project`: create, list, show, delete."""

import click

from scipion_cloud.cli.client import Client, Json, with_client
from scipion_cloud.cli.output import moment, show_facts, show_json, show_table, size


@click.group()
def project() -> None:
    """Create, list, show and delete projects.

    PROJECT is a project's name, its id, or the first characters of its id.
    """


@project.command()
@click.argument("name")
@click.option("--description", default="", help="What it is about.")
@click.option("--demo", is_flag=True, help="With a few example movies in it.")
@with_client
def create(client: Client, name: str, description: str, demo: bool, as_json: bool) -> None:
    """Make a project called NAME."""
    made = client.post("/projects", {"name": name, "description": description, "demo": demo})
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


def _page(client: Client, row: Json) -> str:
    return f"{client.server}/projects/{row['id']}/"
