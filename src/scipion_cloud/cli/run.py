"""`scipion-cloud run`: start, list, show, wait, log, cancel, outputs."""

import time
from pathlib import Path, PurePosixPath

import click
import httpx
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from scipion_cloud.cli.client import Client, Json, ServerError, refusal, unreachable, with_client
from scipion_cloud.cli.output import moment, show_facts, show_json, show_table, size
from scipion_cloud.errors import InvalidInput

_FINAL = ("finished", "failed", "cancelled")
_POLL = 1.0  # s
_PATIENCE = 300.0  # s that a server may be away while we wait
_CHUNK = 1 << 20
_PARTIAL = 206


@click.group()
def run() -> None:
    """Start tools, follow them, fetch their results.

    PROJECT is a project's name, its id, or the first characters of its id. RUN is a run's id or the first
    characters of it; the newest run if left out.
    """


@run.command()
@click.argument("project")
@click.argument("tool")
@click.argument("values", nargs=-1, metavar="[KEY=VALUE]...")
@click.option(
    "--movies", default="", metavar="GLOB", help="Only the movies whose names in the data folder match."
)
@click.option("--label", default="", help="A name for the run.")
@click.option(
    "--where", default="automatic", show_default=True, help="automatic, here, or a site (see `run offers`)."
)
@click.option("--wait", "waits", is_flag=True, help="Follow it to its end; exit code 1 unless it finishes.")
@with_client
def start(
    client: Client,
    project: str,
    tool: str,
    values: tuple[str, ...],
    movies: str,
    label: str,
    where: str,
    waits: bool,
    as_json: bool,
) -> None:
    """Start TOOL (as movie-alignment) in PROJECT with values such as voltage=300."""
    given = dict(_pair(value) for value in values)
    path = f"/projects/{client.project(project)['id']}/runs"
    wanted = {"tool": tool, "parameters": given, "movies": movies, "label": label, "where": where}
    row = client.post(path, wanted)
    if waits:
        if not as_json:
            click.echo(f"Started run {row['id']}.", err=True)
        _finish(_follow(client, row), as_json)
    elif as_json:
        show_json(row)
    else:
        place = f" at {row['site']}" if row["site"] else ""
        click.echo(f"Started run {row['id']} on {row['movies']['total']} movies{place}.")


@run.command()
@click.argument("project")
@click.argument("tool")
@click.argument("values", nargs=-1, metavar="[KEY=VALUE]...")
@click.option("--movies", default="", metavar="GLOB", help="As of `run start`.")
@with_client
def offers(
    client: Client, project: str, tool: str, values: tuple[str, ...], movies: str, as_json: bool
) -> None:
    """Show where TOOL in PROJECT could compute: wait, transfer, cost, or why a site refuses."""
    path = f"/projects/{client.project(project)['id']}/offers"
    given = dict(_pair(value) for value in values)
    found = client.post(path, {"tool": tool, "parameters": given, "movies": movies})
    if as_json:
        show_json(found)
        return
    table = [
        [o["where"], *(_offered(o) if o["possible"] else ["", "", "", "refused"]), "; ".join(o["reasons"])]
        for o in found
    ]
    heads = ["where", "wait", "transfer", "cost", "results in", ""]
    show_table(heads, table, "This service computes on its own machine only.")


def _offered(offer: Json) -> list[str]:
    cost = f"{offer['cost']:.2f} {offer['currency']}" if offer["cost"] else "free"
    times = [f"{offer[name] / 60:.0f} min" for name in ("wait", "transfer", "end")]
    return [times[0], f"{size(offer['bytes'])}, {times[1]}" if offer["bytes"] else "none", cost, times[2]]


def _pair(text: str) -> tuple[str, str]:
    key, sign, value = text.partition("=")
    if not sign or not key:
        raise click.UsageError(f"'{text}' is no value; write KEY=VALUE, as voltage=300.")
    return key, value


@run.command(name="list")
@click.argument("project")
@with_client
def list_runs(client: Client, project: str, as_json: bool) -> None:
    """List the runs of PROJECT, the newest first."""
    rows = client.get(f"/projects/{client.project(project)['id']}/runs")
    if as_json:
        show_json(rows)
        return
    table = [
        [r["id"][:8], r["label"] or r["tool"], r["state"], _count(r), moment(r["created"]), r["message"]]
        for r in rows
    ]
    show_table(["id", "run", "state", "movies", "started", ""], table, "Nothing has been run here yet.")


@run.command()
@click.argument("project")
@click.argument("run_id", metavar="[RUN]", required=False)
@with_client
def show(client: Client, project: str, run_id: str | None, as_json: bool) -> None:
    """Show a run and its movies."""
    row = client.run(client.project(project), run_id)
    movies = client.get(f"{_path(row)}/movies")
    if as_json:
        show_json({**row, "results": movies})
        return
    show_facts(
        {
            "run": row["id"],
            "tool": row["tool"],
            "state": row["state"],
            "message": row["message"],
            **({"site": row["site"], "phase": row["phase"]} if row["site"] else {}),
            "movies": _count(row),
            "created": moment(row["created"]),
            "ended": moment(row["ended"]),
            **row["parameters"],
        }
    )
    table = [
        [m["index"], m["name"], m["state"], *(_angstrom(m[k]) for k in ("total", "early", "late"))]
        for m in movies
    ]
    show_table(["", "movie", "state", "total (A)", "early (A)", "late (A)"], table, "It has no movies.")


@run.command()
@click.argument("project")
@click.argument("run_id", metavar="[RUN]", required=False)
@with_client
def wait(client: Client, project: str, run_id: str | None, as_json: bool) -> None:
    """Follow a run to its end; exit code 1 unless it finishes."""
    _finish(_follow(client, client.run(client.project(project), run_id)), as_json)


@run.command()
@click.argument("project")
@click.argument("run_id", metavar="[RUN]", required=False)
@with_client
def log(client: Client, project: str, run_id: str | None, as_json: bool) -> None:
    """Print the end of a run's log."""
    answer = client.get(f"{_path(client.run(client.project(project), run_id))}/log")
    if as_json:
        show_json(answer)
    else:
        click.echo(answer["log"])


@run.command()
@click.argument("project")
@click.argument("run_id", metavar="[RUN]", required=False)
@with_client
def cancel(client: Client, project: str, run_id: str | None, as_json: bool) -> None:
    """Stop a run at once; what is finished of it stays."""
    row = client.post(f"{_path(client.run(client.project(project), run_id))}/cancel")
    if as_json:
        show_json(row)
    else:
        click.echo(f"Run {row['id']} is {row['state']}.")


@run.command()
@click.argument("project")
@click.argument("run_id", metavar="[RUN]", required=False)
@click.option(
    "--download", type=click.Path(file_okay=False, path_type=Path), help="Fetch the files into this folder."
)
@with_client
def outputs(client: Client, project: str, run_id: str | None, download: Path | None, as_json: bool) -> None:
    """List the files that a run has made, or fetch them; fetching goes on where it stopped."""
    path = f"{_path(client.run(client.project(project), run_id))}/outputs"
    files = client.get(path)
    if download:
        for file in files:
            _fetch(client, file, download / _safe(file["name"]))
    if as_json:
        show_json(files)
    elif download:
        click.echo(f"{len(files)} files are in {download}.")
    else:
        show_table(
            ["file", "size"],
            [[f["name"], f["size"] and size(f["size"])] for f in files],
            "There are no files yet.",
        )


def _path(row: Json) -> str:
    return f"/projects/{row['project']}/runs/{row['id']}"


def _count(row: Json) -> str:
    movies = row["movies"]
    failed = f", {movies['failed']} failed" if movies["failed"] else ""
    return f"{movies['done']} of {movies['total']}{failed}"


def _angstrom(value: float | None) -> str:
    return "" if value is None else f"{value:.1f}"


def _follow(client: Client, row: Json) -> Json:
    """Poll a run until it has ended; a server that is away for some minutes is waited for."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("movies"))
    times = (TimeElapsedColumn(), TimeRemainingColumn())
    away_since: float | None = None
    with Progress(*columns, *times, console=Console(stderr=True)) as progress:
        task = progress.add_task(row["state"], total=None)
        while row["state"] not in _FINAL:
            time.sleep(_POLL)
            try:
                row = client.get(_path(row))
                away_since = None
            except ServerError as e:
                now = time.monotonic()
                away_since = away_since or now
                if (
                    e.status and e.status < httpx.codes.INTERNAL_SERVER_ERROR
                ) or now - away_since > _PATIENCE:
                    raise
            movies = row["movies"]
            ended = movies["done"] + movies["failed"]
            progress.update(task, description=row["state"], total=movies["total"] or None, completed=ended)
    return row


def _finish(row: Json, as_json: bool) -> None:
    """Tell how a run ended; exit code 1 unless it finished."""
    if as_json:
        show_json(row)
    else:
        click.echo(f"Run {row['id']} {row['state']}: {_count(row)} movies. {row['message']}".strip())
    if row["state"] != "finished":
        raise SystemExit(1)


def _safe(name: str) -> PurePosixPath:
    """The name of a file to be written here: a server must not choose a place outside the folder."""
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or not path.parts or "\0" in name:
        raise InvalidInput(f"The server offers a file called {name!r}, which is not written for safety.")
    return path


def _fetch(client: Client, file: Json, target: Path) -> None:
    """Fetch one file beside its place, then move it there; a whole one is kept, unless it has no size."""
    whole: int = file["size"] or 0
    if whole and target.is_file() and target.stat().st_size == whole:
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f".{target.name}.part")
    have = part.stat().st_size if part.is_file() else 0
    headers = {"Range": f"bytes={have}-"} if 0 < have < whole else {}
    try:
        with client.http.stream("GET", file["url"], headers=headers) as answer:
            if not answer.is_success:
                answer.read()
                raise refusal(client.server, answer)
            with part.open("ab" if answer.status_code == _PARTIAL else "wb") as stream:
                for chunk in answer.iter_bytes(_CHUNK):
                    stream.write(chunk)
    except httpx.TransportError as e:
        raise unreachable(client.server, e) from e
    part.replace(target)
