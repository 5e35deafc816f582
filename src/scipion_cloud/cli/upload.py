"""`scipion-cloud upload`: files and folders into a project, only what is missing, resumed after any break."""

import os
import threading
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path

import click
from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TaskProgressColumn,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from scipion_cloud.cli.client import Client, Json, with_client
from scipion_cloud.cli.output import show_json
from scipion_cloud.cli.tus import Job, Sender
from scipion_cloud.errors import InvalidInput, ScipionCloudError

_BATCH = 1000  # files in one announcement
_INTERRUPTED = 130  # the shell's code for Ctrl-C


@dataclass(frozen=True)
class Found:
    """A file to be sent."""

    file: Path
    path: str  # its name in the data folder
    size: int  # bytes


@click.command()
@click.argument("project")
@click.argument("paths", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path))
@click.option(
    "--jobs", default=4, show_default=True, type=click.IntRange(1, 16), help="Files sent at the same time."
)
@with_client
def upload(client: Client, project: str, paths: tuple[Path, ...], jobs: int, as_json: bool) -> None:
    """Send files and folders to the data folder of PROJECT.

    A folder is sent with its name and all that is in it. Files that are there already are left out, and
    unfinished ones go on where they stopped: after a break, give the same command again.
    """
    found = list(_collect(paths))
    if not found:
        raise InvalidInput("There are no files in what you named.")
    row = client.project(project)
    todo, here, failed = _plan(client, row, found)
    try:
        sent = _send_all(client, todo, failed, jobs)
    except KeyboardInterrupt:
        click.echo("\nStopped. The same command goes on from here.", err=True)
        raise SystemExit(_INTERRUPTED) from None
    if as_json:
        show_json({"project": row["id"], "present": here, "sent": sent, "failed": failed})
    else:
        count = f"{here + sent} of {len(found)} files"
        click.echo(f"{count} are in '{row['name']}': {sent} sent now, {here} there before.")
        for name, reason in failed.items():
            click.secho(f"{name}: {reason}", fg="red", err=True)
    if failed:
        raise SystemExit(1)


def _collect(paths: tuple[Path, ...]) -> Iterator[Found]:
    """All regular files below the paths, each with its name there: that of the folder, then what is below."""
    for path in paths:
        if not path.is_dir():
            yield _found(path, path.name)
            continue
        top = path.resolve().name
        for folder, folders, names in os.walk(path):
            folders.sort()
            for name in sorted(names):
                file = Path(folder, name)
                if file.is_file():
                    yield _found(file, (Path(top) / file.relative_to(path)).as_posix())


def _found(file: Path, path: str) -> Found:
    try:
        path.encode()
    except UnicodeEncodeError as e:
        shown = os.fsencode(path).decode(errors="backslashreplace")
        raise InvalidInput(f"The name '{shown}' is not UTF-8 text; rename the file and try again.") from e
    return Found(file, path, file.stat().st_size)


def _plan(client: Client, project: Json, found: list[Found]) -> tuple[list[Job], int, dict[str, str]]:
    """Announce the files: what is to be sent, how many are there already, and why which are refused."""
    todo: list[Job] = []
    here, refused = 0, {}
    for start in range(0, len(found), _BATCH):
        batch = found[start : start + _BATCH]
        body = {"files": [{"path": f.path, "size": f.size} for f in batch]}
        plan = client.post(f"/projects/{project['id']}/uploads/plan", body)
        for file, planned in zip(batch, plan["files"], strict=True):
            if planned["state"] == "refused":
                refused[file.path] = planned["reason"]
            elif planned["state"] == "present":
                here += 1
            else:
                address = f"{plan['tus']}/{planned['id']}"
                todo.append(Job(file.file, file.path, file.size, address, planned["offset"]))
    return todo, here, refused


def _send_all(client: Client, todo: list[Job], failed: dict[str, str], jobs: int) -> int:
    """Send files side by side, with a progress line; returns how many arrived, adds the rest to `failed`."""
    stop = threading.Event()
    sender = Sender(client, stop)
    total = sum(job.size for job in todo)
    sent = 0
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as progress, ThreadPoolExecutor(jobs) as pool:
        task = progress.add_task("", total=total)

        def send(job: Job) -> None:
            arrived = job.offset
            progress.advance(task, arrived)

            def report(now: int) -> None:
                nonlocal arrived
                progress.advance(task, now - arrived)
                arrived = now

            sender.send(job, report)

        waiting: dict[Future[None], Job] = {pool.submit(send, job): job for job in todo}
        try:
            while waiting:
                progress.update(task, description=f"{sent} of {len(todo)} files")
                for future in wait(waiting, return_when=FIRST_COMPLETED).done:
                    job = waiting.pop(future)
                    try:
                        future.result()
                        sent += 1
                    except ScipionCloudError as e:
                        failed[job.path] = str(e)
            progress.update(task, description=f"{sent} of {len(todo)} files")
        except BaseException:
            stop.set()
            pool.shutdown(cancel_futures=True)
            raise
    return sent
