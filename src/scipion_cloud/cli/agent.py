"""`scipion-cloud agent`: one project open on this machine, without a portal."""

import contextlib
import os
import sys
import time
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from scipion_cloud.cli.storages import Duration, Moment, open_option, retention_options, user_name
from scipion_cloud.errors import InvalidInput

if TYPE_CHECKING:
    from scipion_cloud.deployments.client import AgentClient
    from scipion_cloud.sync.retention import Retention

_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
_FOLDER = click.Path(file_okay=False, path_type=Path)
_STATE = click.option(
    "--state",
    type=_FOLDER,
    required=True,
    help="The agent's own folder: .NAME.agent beside the working copy NAME.",
)


@click.group()
def agent() -> None:
    """Open a project: lock it, fetch it, save it every few minutes and at the end.

    The project lives in a storage (a folder, S3, SFTP, WebDAV, Onedata) and is worked on in a folder of this
    machine. `run` is the process that looks after it; the others talk to a running one.
    """


@agent.command()
@click.option("--storage", "url", required=True, metavar="URL", help="Where the project is kept.")
@click.option("--work", type=_FOLDER, required=True, help="Folder to work in: the Scipion project.")
@click.option(
    "--state", type=_FOLDER, help="The agent's own folder, on the same disk; .NAME.agent beside --work."
)
@click.option("--credentials", type=_FILE, help="For --storage; else variables SCIPION_CLOUD_STORAGE_<NAME>.")
@click.option(
    "--source", "source_url", metavar="URL", help="A dataset to read from, such as the microscope's movies."
)
@click.option(
    "--source-credentials", type=_FILE, help="For --source; else variables SCIPION_CLOUD_SOURCE_<NAME>."
)
@click.option(
    "--sealed-with", type=_FILE, help="The key file with which both files of credentials are sealed."
)
@click.option("--source-target", type=_FOLDER, help="Where the source appears; NAME.source beside --work.")
@click.option(
    "--every", type=Duration(), default="120s", show_default=True, help="From one save to the next."
)
@click.option("--deadline", type=Moment(), help="Close by itself then: 2026-11-20T18:00:00Z.")
@click.option("--generation", type=click.IntRange(min=1), help="Begin with this one instead of the newest.")
@click.option("--deployment", metavar="ID", help="Its name in the lock; made once and kept if left out.")
@click.option("--user", help="For whom; shown to others who want to open the project.")
@click.option(
    "--keep-work/--remove-work", default=True, show_default=True, help="Once all is saved and closed."
)
@click.option(
    "--stop-grace",
    type=Duration(),
    default="0s",
    show_default=True,
    help="Let programs finish before the last save.",
)
@click.option(
    "--max-deleted",
    type=click.FloatRange(0, 1),
    default=0.5,
    show_default=True,
    help="A save that would remove more than this share of the files asks first.",
)
@click.option("--take-over", metavar="REASON", default="", help="Break the lock of somebody else; recorded.")
@click.option(
    "--trust-lock", is_flag=True, help="Nobody else opens the project; the storage cannot make sure."
)
@click.option(
    "--import-legacy", is_flag=True, help="Make what a predecessor left there the first generation."
)
@click.option(
    "--lease", type=Duration(), default="5m", show_default=True, help="The lock lasts so long after a crash."
)
@click.option(
    "--longest-wait", type=Duration(), default="5m", show_default=True, help="Between tries after failures."
)
@retention_options
def run(
    url: str,
    work: Path,
    state: Path | None,
    credentials: Path | None,
    source_url: str | None,
    source_credentials: Path | None,
    sealed_with: Path | None,
    source_target: Path | None,
    every: timedelta,
    deadline: datetime | None,
    generation: int | None,
    deployment: str | None,
    user: str | None,
    keep_work: bool,
    stop_grace: timedelta,
    max_deleted: float,
    take_over: str,
    trust_lock: bool,
    import_legacy: bool,
    lease: timedelta,
    longest_wait: timedelta,
    retention: "Retention",
) -> None:
    """Open a project and look after it until it is closed.

    Ctrl-C, SIGTERM or `agent close` close it: copying stops at once, or what is new is saved and the lock is
    released. It never gives up the lock while something is unsaved. Killed at any moment, it goes on when it
    is started again with the same folders.
    """
    from scipion_cloud.deployments.process import run as run_agent
    from scipion_cloud.deployments.session import AgentRuns
    from scipion_cloud.deployments.settings import AgentSettings, default_state
    from scipion_cloud.deployments.states import Exit

    if every < timedelta(seconds=1):
        raise click.BadParameter("saves need a second between them.", param_hint="'--every'")
    work = work.absolute()
    settings = AgentSettings(
        storage=open_option(url, credentials, sealed_with=sealed_with),
        work=work,
        state=(state or default_state(work)).absolute(),
        source=open_option(source_url, source_credentials, source=True, sealed_with=sealed_with)
        if source_url
        else None,
        source_target=source_target and source_target.absolute(),
        every=every,
        deadline=deadline,
        generation=generation,
        deployment=deployment,
        user=user or user_name(),
        remove_work=not keep_work,
        stop_grace=stop_grace,
        max_deleted=max_deleted,
        take_over=take_over,
        trust_lock=trust_lock,
        import_legacy=import_legacy,
        retention=retention,
        lease_ttl=lease,
        longest_wait=longest_wait,
    )
    try:
        code = run_agent(settings, _say)
    except AgentRuns as e:
        click.secho(f"Error: {e}", fg="red", err=True)
        code = Exit.BUSY
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # a request that hangs in some thread must not keep the process


@agent.command()
@_STATE
@click.option("--follow", is_flag=True, help="Until the agent has ended.")
@click.option("--json", "as_json", is_flag=True, help="As the agent serves it.")
def status(state: Path, follow: bool, as_json: bool) -> None:
    """Show how a deployment stands."""
    client = _client(state)
    while True:
        told = client.last_status()
        if told is None:
            raise InvalidInput(f"Nothing is known about an agent in {state}.")
        if as_json:
            click.echo(told.to_json())
        else:
            _show(told)
        if not follow or told.phase.is_final:
            return
        time.sleep(1)
        if not as_json:
            click.echo()


@agent.command()
@_STATE
@click.option("--wait", is_flag=True, help="Return when it is saved.")
def save(state: Path, wait: bool) -> None:
    """Save now."""
    done = _client(state).save(wait=wait)
    click.echo(_saved(done) if wait else "It will be saved.")


@agent.command()
@_STATE
def close(state: Path) -> None:
    """Save for the last time and release the project."""
    _client(state).close()
    click.echo("The project is being saved and closed; `scipion-cloud agent status --follow` shows it.")


@agent.command()
@_STATE
def confirm(state: Path) -> None:
    """Allow the save that asks, once: it removes much of the project."""
    _client(state).confirm()
    click.echo("It will be saved like this. What it removes can be restored for a while.")


@agent.command()
@_STATE
@click.argument("generation", type=click.IntRange(min=1))
@click.option("--wait", is_flag=True, help="Return when it is done.")
def revert(state: Path, generation: int, wait: bool) -> None:
    """Take the working copy back to GENERATION; what is there now is saved before."""
    done = _client(state).revert(generation, wait=wait)
    click.echo(_saved(done) if wait else f"The project goes back to generation {generation}.")


@agent.command()
@_STATE
@click.argument("moment", type=Moment(), required=False)
def deadline(state: Path, moment: datetime | None) -> None:
    """Close at MOMENT (2026-11-20T18:00:00Z); without it, never."""
    _client(state).set_deadline(moment)
    click.echo(
        f"The project is closed at {moment:%Y-%m-%d %H:%M} UTC." if moment else "It is not closed by itself."
    )


@agent.command()
@_STATE
@click.option(
    "--port", type=click.IntRange(0, 65535), default=0, help="Of 127.0.0.1; any free one if left out."
)
def page(state: Path, port: int) -> None:
    """Show the agent's page in a browser on this machine, until Ctrl-C."""
    from scipion_cloud.deployments.window import window

    try:
        with window(state.absolute(), port) as address:
            click.echo(f"{address}\nCtrl-C ends it; the agent runs on.")
            while True:
                time.sleep(3600)
    except OSError as e:
        raise InvalidInput(
            f"Port {port} of 127.0.0.1 cannot be used: {e.strerror}. Give another --port."
        ) from e
    except KeyboardInterrupt:
        click.echo()


@agent.command()
def schema() -> None:
    """Print the JSON schema of the status."""
    import json

    from scipion_cloud.deployments.status import schema as status_schema

    click.echo(json.dumps(status_schema(), indent=2))


def _client(state: Path) -> "AgentClient":
    from scipion_cloud.deployments.client import AgentClient

    return AgentClient(state.absolute())


def _say(line: str) -> None:
    with contextlib.suppress(OSError):  # whoever read this has gone; the work goes on
        click.echo(f"{datetime.now().astimezone():%H:%M:%S} {line}")


def _saved(done: dict[str, Any]) -> str:
    return f"Saved as generation {done['generation']}." if done["saved"] else "Nothing had changed."


def _show(told: Any) -> None:
    from scipion_cloud.cli.output import moment, show_facts, size
    from scipion_cloud.deployments.process import describe

    def at(when: datetime | None) -> str:
        return moment(when.isoformat() if when else None)

    coming = told.arriving
    show_facts(
        {
            "State": told.phase.replace("_", " "),
            "": told.message,
            "Project": told.storage,
            "Working copy": told.work,
            "Fetching": describe(told.project) if told.project and told.phase == "staging_in" else None,
            "Still arriving": f"{coming.files} files, {size(coming.bytes)}" if coming else None,
            "Source": describe(told.source) if told.source else None,
            "Saving": describe(told.saving) if told.saving else None,
            "Generation": told.generation,
            "Last saved": at(told.last_saved),
            "Last looked": at(told.last_checked),
            "Next save": at(told.next_save),
            "Closes": at(told.deadline),
            "Careful": told.warning,
            "Question": told.question and f"{told.question} (`scipion-cloud agent confirm` says yes)",
        }
    )
    for error in told.errors:
        click.secho(f"{at(error.time)}  {error.text}", fg="red")
    for problem in told.problems:
        click.secho(f"{problem.path}: {problem.text}", fg="yellow")
