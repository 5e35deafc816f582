"""`scipion-cloud data`: a project in its storage, without an agent."""

import contextlib
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from scipion_cloud.cli.locks import import_legacy, lock, lock_values, unlock
from scipion_cloud.cli.measuring import bench
from scipion_cloud.cli.storages import (
    as_json_option,
    generation_values,
    problem_values,
    project_locked,
    show_problems,
    trust_option,
    with_storage,
)
from scipion_cloud.errors import Conflict, NotFound

if TYPE_CHECKING:
    from scipion_cloud.storage import Storage
    from scipion_cloud.sync.copy import WorkingCopy
    from scipion_cloud.sync.lease import LockInfo

_FOLDER = click.Path(file_okay=False, path_type=Path)
_generation = click.option(
    "--generation", type=click.IntRange(min=1), help="Which one; the newest if left out."
)


@click.group()
def data() -> None:
    """A project in its storage: what is there, fetch it, save it, check it, its lock."""


@data.command()
@with_storage
@as_json_option
def status(storage: "Storage", as_json: bool) -> None:
    """Show who has the project open, and what was saved last."""
    from scipion_cloud.cli.output import show_facts, show_json, size
    from scipion_cloud.sync.lease import look
    from scipion_cloud.sync.legacy import inspect
    from scipion_cloud.sync.repository import Repository

    latest, lock = Repository(storage).latest(), look(storage)
    legacy = inspect(storage) if latest is None else None
    if as_json:
        show_json({"storage": storage.url, "lock": lock_values(lock), "latest": generation_values(latest)})
        return
    show_facts(
        {
            "Storage": storage.url,
            "Generation": latest and f"{latest.number}, saved {_when(latest.created)}",
            "By": latest and f"{latest.user} on {latest.host}",
            "Size": latest and f"{latest.files} files, {size(latest.bytes)}",
            "Lock": _describe(lock),
            "Empty": None if latest or legacy else "nothing was ever saved here",
            "Legacy": legacy and legacy.describe(),
        }
    )


@data.command()
@with_storage
@as_json_option
def generations(storage: "Storage", as_json: bool) -> None:
    """List what can be restored, newest first."""
    from scipion_cloud.cli.output import show_json, show_table, size
    from scipion_cloud.sync.repository import Repository

    found = Repository(storage).generations()
    if as_json:
        show_json([generation_values(g) for g in found])
        return
    rows = [
        (g.number, _when(g.created), g.files, size(g.bytes), f"{g.user} on {g.host}", g.note) for g in found
    ]
    show_table(("generation", "saved", "files", "size", "by", "why"), rows, "Nothing was ever saved here.")


@data.command()
@with_storage
@click.option(
    "--to", "folder", type=_FOLDER, required=True, help="An empty folder, or one that this began to fill."
)
@_generation
@as_json_option
def restore(storage: "Storage", folder: Path, generation: int | None, as_json: bool) -> None:
    """Fetch a project into a folder. It is not locked; give the command again to go on after a break."""
    from scipion_cloud.cli.bars import progress_bar
    from scipion_cloud.cli.output import show_json, size
    from scipion_cloud.deployments.opening import check_strangers
    from scipion_cloud.sync.repository import Repository
    from scipion_cloud.sync.restore import restore as bring

    repository = Repository(storage)
    wanted = repository.latest() if generation is None else repository.generation(generation)
    if wanted is None:
        raise NotFound(f"Nothing was ever saved in {storage.url}.")
    with _working_copy(folder, storage) as copy:
        check_strangers(copy)
        with progress_bar("Fetching", quiet=as_json) as progress:
            bring(repository, wanted, copy, progress=progress)
    if as_json:
        show_json({"folder": str(folder.absolute()), **(generation_values(wanted) or {})})
    else:
        click.echo(
            f"Generation {wanted.number} of {_when(wanted.created)} is in {folder}: {wanted.files} files, "
            f"{size(wanted.bytes)}."
        )


@data.command()
@with_storage
@click.option(
    "--from", "folder", type=_FOLDER, required=True, help="A folder that was restored, or a new project."
)
@click.option("--note", default="", help="A word for the list of generations.")
@click.option("--allow-deletions", is_flag=True, help="Also if this removes much of the project.")
@trust_option
@as_json_option
def save(
    storage: "Storage", folder: Path, note: str, allow_deletions: bool, trust_lock: bool, as_json: bool
) -> None:
    """Save a folder as the next generation.

    The project is locked for that time.
    """
    from scipion_cloud.cli.bars import progress_bar
    from scipion_cloud.cli.output import show_json, size
    from scipion_cloud.sync.manifest import Manifest
    from scipion_cloud.sync.repository import Repository
    from scipion_cloud.sync.save import save as put

    if not folder.is_dir():
        raise click.BadParameter(f"there is no folder {folder}.", param_hint="'--from'")
    repository = Repository(storage)
    with (
        _working_copy(folder, storage) as copy,
        project_locked(storage, state=copy.state, work=folder, trusted=trust_lock) as lease,
    ):
        if copy.marker is None and repository.latest() is None:
            _refuse_legacy(storage)
            copy.begin(storage.url, None, Manifest())
            copy.complete()
        with progress_bar("Saving", quiet=as_json) as progress:
            done = put(
                copy,
                repository,
                lease,
                note=note or "data save",
                allow_deletions=allow_deletions,
                progress=progress,
            )
    problems = problem_values(done.problems)
    if as_json:
        made = {"files": done.files, "bytes": done.bytes, "problems": problems}
        show_json({"generation": generation_values(done.generation), **made})
        return
    if done.generation is None:
        click.echo("Nothing has changed since the last generation.")
    else:
        click.echo(
            f"Saved as generation {done.generation.number}: {done.files} files, {size(done.bytes)} were new."
        )
    show_problems(problems)


@data.command()
@with_storage
@_generation
@click.option(
    "--contents/--no-contents", default=True, show_default=True, help="Read all files, or only look for them."
)
@click.option("--repair", is_flag=True, help="Put right what can be, under the project's lock.")
@trust_option
@as_json_option
def verify(
    storage: "Storage", generation: int | None, contents: bool, repair: bool, trust_lock: bool, as_json: bool
) -> None:
    """Check that a generation is whole in the storage. Exit code 1 if it is not."""
    from scipion_cloud.cli.bars import progress_bar
    from scipion_cloud.cli.output import show_json
    from scipion_cloud.sync import verify as checking
    from scipion_cloud.sync.repository import Repository

    repository = Repository(storage)
    wanted = repository.latest() if generation is None else repository.generation(generation)
    if wanted is None:
        raise NotFound(f"Nothing was ever saved in {storage.url}.")
    if repair:
        with project_locked(storage, trusted=trust_lock) as lease:
            checking.repair(repository, lease)
    with progress_bar("Checking", quiet=as_json) as progress:
        problems = problem_values(
            checking.verify(repository, wanted.number, contents=contents, progress=progress)
        )
    if as_json:
        show_json({"generation": wanted.number, "contents": contents, "problems": problems})
    elif not problems:
        click.echo(
            f"Generation {wanted.number} is whole: {wanted.files} files{'' if contents else ' (not read)'}."
        )
    show_problems([] if as_json else problems)
    if problems:
        raise SystemExit(1)


@contextlib.contextmanager
def _working_copy(folder: Path, storage: "Storage") -> Iterator["WorkingCopy"]:
    """The working copy in a folder, while no agent has it."""
    from scipion_cloud.deployments.session import load, locked
    from scipion_cloud.deployments.settings import default_state
    from scipion_cloud.sync.copy import WorkingCopy

    state = default_state(folder)
    with locked(state):
        if load(state, storage.url).open:
            raise Conflict(
                f"An agent was ended before it had saved what is in {folder}: start it again, and close it."
            )
        copy = WorkingCopy(folder.absolute(), state)
        try:
            yield copy
        finally:
            copy.close()


def _refuse_legacy(storage: "Storage") -> None:
    from scipion_cloud.sync.legacy import inspect

    if found := inspect(storage):
        raise Conflict(f"{found.describe()} Run `scipion-cloud data import-legacy` first.")


def _describe(lock: "LockInfo | None") -> str:
    if lock is None:
        return "nobody has opened the project yet"
    return lock.describe()


def _when(moment: datetime) -> str:
    return moment.astimezone().strftime("%Y-%m-%d %H:%M")


for command in (lock, unlock, import_legacy, bench):
    data.add_command(command)
