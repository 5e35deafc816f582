"""`scipion-cloud data lock`, `unlock` and `import-legacy`."""

import socket
import uuid
from typing import TYPE_CHECKING, Any

import click

from scipion_cloud.cli.storages import (
    as_json_option,
    generation_values,
    problem_values,
    project_locked,
    show_problems,
    trust_option,
    user_name,
    with_storage,
)
from scipion_cloud.errors import Conflict, InvalidInput

if TYPE_CHECKING:
    from scipion_cloud.storage import Storage
    from scipion_cloud.sync.lease import LockInfo
    from scipion_cloud.sync.progress import Problem


@click.command()
@with_storage
@as_json_option
def lock(storage: "Storage", as_json: bool) -> None:
    """Show who has the project open, and who had it before."""
    from scipion_cloud.cli.output import show_json
    from scipion_cloud.sync.lease import history

    found = history(storage)
    if as_json:
        show_json([lock_values(info) for info in found])
        return
    for info in found:
        click.echo(info.describe())
        if by := info.took_over:
            click.echo(f"  It took over from {by.user} on {by.host} (deployment {by.deployment}): {by.why}")
    if not found:
        click.echo("Nobody has opened the project yet.")


@click.command()
@with_storage
@click.option("--force", is_flag=True, help="Also if the lock has not expired: its holder stops.")
@click.option("--reason", default="", help="Why; recorded in the storage.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@trust_option
@as_json_option
def unlock(storage: "Storage", force: bool, reason: str, yes: bool, trust_lock: bool, as_json: bool) -> None:
    """Break the lock of a deployment that is gone.

    What that deployment has not saved stays in its own working copy only. With --force the lock of one that
    may still be at work is broken too; it stops as soon as it notices, and this waits until it has.
    """
    from scipion_cloud.cli.output import show_json
    from scipion_cloud.sync.lease import look, take_over

    held = look(storage)
    if held is None or held.released is not None:
        if as_json:
            show_json({"unlocked": False, "lock": lock_values(held)})
        else:
            click.echo("The project is not locked.")
        return
    if held.live and not force:
        raise Conflict(f"{held.describe()} Close it there; if it is gone, wait until the lock has expired.")
    if force and not reason.strip():
        raise click.BadParameter("say why the lock is to be broken.", param_hint="'--reason'")
    if not yes:
        click.echo(held.describe(), err=True)
        name = storage.url.rstrip("/").rpartition("/")[2]
        if (
            click.prompt(f"Type '{name}' to break this lock", err=True, default="", show_default=False)
            != name
        ):
            raise InvalidInput("The lock was left as it is.")
    lease = take_over(
        storage,
        deployment=f"unlock-{uuid.uuid4().hex[:8]}",
        host=socket.gethostname(),
        user=user_name(),
        parameters={},
        reason=reason,
        force=force,
        trusted=trust_lock,
        on_wait=lambda holder: click.echo(f"Waiting for its end. {holder.describe()}", err=True),
    )
    lease.release(lease.generation)
    if as_json:
        show_json({"unlocked": True, "lock": lock_values(held)})
    else:
        click.echo("The project is unlocked.")


@click.command("import-legacy")
@with_storage
@click.option("--stale-ok", is_flag=True, help="The predecessor's lock is left over: nobody works there.")
@click.option(
    "--old-source", multiple=True, metavar="FOLDER", help="Where read-only data was on the old machine."
)
@trust_option
@as_json_option
def import_legacy(
    storage: "Storage", stale_ok: bool, old_source: tuple[str, ...], trust_lock: bool, as_json: bool
) -> None:
    """Take up what an earlier system left.

    It becomes the first generation, and no file is moved. A Scipion project that a person copied there is
    taken up in the same way.
    """
    from scipion_cloud.cli.bars import progress_bar
    from scipion_cloud.cli.output import show_json, size
    from scipion_cloud.sync import legacy

    problems: list[Problem] = []
    with (
        project_locked(storage, trusted=trust_lock) as lease,
        progress_bar("Reading", quiet=as_json) as progress,
    ):
        made = legacy.import_legacy(
            storage, lease, stale_too=stale_ok, sources=old_source, progress=progress, tell=problems.append
        )
        lease.generation = made.number
    if as_json:
        show_json({**(generation_values(made) or {}), "problems": problem_values(problems)})
    else:
        click.echo(f"Generation {made.number}: {made.files} files, {size(made.bytes)}. It can be opened now.")
        show_problems(problem_values(problems))


def lock_values(lock: "LockInfo | None") -> dict[str, Any] | None:
    """A lock for JSON."""
    if lock is None:
        return None
    return {
        "deployment": lock.deployment,
        "user": lock.user,
        "host": lock.host,
        "parameters": dict(lock.parameters),
        "epoch": lock.epoch,
        "generation": lock.generation,
        "acquired": lock.acquired.isoformat(),
        "renewed": lock.renewed.isoformat(),
        "released": lock.released.isoformat() if lock.released else None,
        "live": lock.live,
        "expired": lock.expired,
        "took_over": lock.took_over.why if lock.took_over else None,
    }
