"""`scipion-cloud storage`: connect, list, look into, forget."""

from pathlib import Path
from urllib.parse import urlencode

import click

from scipion_cloud.cli.client import Client, with_client
from scipion_cloud.cli.output import moment, show_facts, show_json, show_table
from scipion_cloud.errors import InvalidInput


@click.group()
def storage() -> None:
    """Connect the storages in which your projects are kept: S3, SFTP, WebDAV, Onedata or a folder.

    STORAGE is a storage's name, its id, or the first characters of its id.
    """


@storage.command()
@click.argument("name")
@click.argument("url")
@click.option(
    "--credentials",
    "file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="TOML or JSON with access_key, secret_key, password, private_key or token, private to you; "
    "else SCIPION_CLOUD_STORAGE_ACCESS_KEY and so on.",
)
@with_client
def connect(client: Client, name: str, url: str, file: Path | None, as_json: bool) -> None:
    """Connect the storage at URL under a NAME; it is tried out first."""
    import os
    from urllib.parse import urlsplit

    from scipion_cloud.storage.credentials import read_credentials
    from scipion_cloud.storage.kinds import kind_of

    kind = kind_of(urlsplit(url).scheme)
    if kind is None:
        raise InvalidInput(f"{url!r} is not the URL of a storage, as s3+https://host/bucket/folder.")
    credentials = read_credentials(kind, file=file, environ=os.environ)
    made = client.post("/storages", {"name": name, "url": url, "credentials": credentials})
    if as_json:
        show_json(made)
        return
    click.echo(f"Connected '{made['name']}', {made['url']}.")
    _findings(made["findings"])


@storage.command(name="list")
@with_client
def list_storages(client: Client, as_json: bool) -> None:
    """List the storages that you have connected."""
    rows = client.get("/storages")
    if as_json:
        show_json(rows)
        return
    table = [[r["id"][:8], r["name"], r["kind"], r["url"], moment(r["tested"])] for r in rows]
    show_table(
        ["id", "name", "kind", "url", "tested"], table, "None yet: `scipion-cloud storage connect NAME URL`."
    )


@storage.command()
@click.argument("storage")
@click.argument("folder", default="")
@with_client
def look(client: Client, storage: str, folder: str, as_json: bool) -> None:
    """Say what lies in a FOLDER of a storage."""
    row = client.storage(storage)
    found = client.get(f"/storages/{row['id']}/folder?{urlencode({'path': folder})}")
    if as_json:
        show_json(found)
        return
    generation = found["generation"]
    show_facts(
        {
            "url": found["url"],
            "project": f"generation {generation['number']}, saved {moment(generation['created'])}"
            if generation
            else found["legacy"] or "none",
            "lock": found["lock"]["description"] if found["lock"] else "free",
            "folders": ", ".join(found["folders"]) or "none",
        }
    )


@storage.command()
@click.argument("storage")
@with_client
def forget(client: Client, storage: str, as_json: bool) -> None:
    """Forget a storage and its credentials; nothing in it changes."""
    row = client.storage(storage)
    client.delete(f"/storages/{row['id']}")
    if as_json:
        show_json({"id": row["id"], "forgotten": True})
    else:
        click.echo(f"Forgot '{row['name']}'. Its files are as they were.")


def _findings(rows: list[dict[str, object]]) -> None:
    table = [[row["name"], "yes" if row["works"] else "no", row["note"]] for row in rows]
    show_table(["it can", "", ""], table, "")
