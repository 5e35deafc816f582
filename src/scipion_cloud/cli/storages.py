"""What commands that work with storages share: their options, and how values are written."""

import contextlib
import functools
import os
import re
import socket
import uuid
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import click

from scipion_cloud.errors import InvalidInput

if TYPE_CHECKING:
    from scipion_cloud.storage import Storage
    from scipion_cloud.sync.generation import Generation
    from scipion_cloud.sync.lease import Lease
    from scipion_cloud.sync.progress import Problem

_UNITS = {"": 1, "s": 1, "m": 60, "min": 60, "h": 3600, "d": 86400}
_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


class Duration(click.ParamType[timedelta]):
    """A length of time: 120s, 5m, 1.5h, 14d; a bare number counts seconds."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> timedelta:
        """The length of a text."""
        if isinstance(value, timedelta):
            return value
        found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(s|m|min|h|d|)", str(value).strip())
        if found is None:
            self.fail(f"'{value}' is no length of time; such are 120s, 5m, 1.5h and 14d.", param, ctx)
        try:
            return timedelta(seconds=float(found[1]) * _UNITS[found[2]])
        except OverflowError:
            self.fail(f"'{value}' is too long.", param, ctx)


class Moment(click.ParamType[datetime]):
    """A time with its zone: 2026-11-20T18:00:00Z."""

    name = "moment"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        """The time of a text, UTC."""
        if isinstance(value, datetime):
            return value
        try:
            when = datetime.fromisoformat(str(value))
        except ValueError:
            self.fail(f"'{value}' is no time; such is 2026-11-20T18:00:00Z.", param, ctx)
        if when.tzinfo is None:
            self.fail(f"'{value}' lacks its time zone: write {value}Z for UTC.", param, ctx)
        return when.astimezone(UTC)


def open_option(
    url: str, credentials: Path | None, *, source: bool = False, sealed_with: Path | None = None
) -> Any:
    """The storage of an option; a URL or credentials that cannot be right become a usage error.

    With `sealed_with`, a file of keys, the file of credentials is one that they sealed. Raises ConfigError
    for a file that cannot be used.
    """
    from scipion_cloud.storage import open_storage
    from scipion_cloud.storage.credentials import SOURCE, STORAGE, read_credentials
    from scipion_cloud.storage.kinds import kind_of
    from scipion_cloud.storage.sealing import Sealer

    sealer = Sealer(sealed_with) if sealed_with else None
    hint = "'--source'" if source else "'--storage'"
    try:
        given: dict[str, str] = {}
        if (kind := kind_of(urlsplit(url).scheme)) is not None:
            prefix = SOURCE if source else STORAGE
            given = read_credentials(kind, environ=os.environ, file=credentials, sealer=sealer, prefix=prefix)
        return open_storage(url, given)
    except (InvalidInput, ValueError) as e:
        raise click.BadParameter(str(e), param_hint=hint) from e


def with_storage(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command `--storage` and `--credentials`, and call it with `storage`, closed afterwards."""

    @click.option(
        "--storage",
        "url",
        required=True,
        metavar="URL",
        help="Where the project is kept: s3+https://..., sftp://...",
    )
    @click.option(
        "--credentials",
        type=_FILE,
        help="File of names and texts (TOML or JSON, mode 600); else variables SCIPION_CLOUD_STORAGE_<NAME>.",
    )
    @functools.wraps(command)
    def wrapped(*args: Any, url: str, credentials: Path | None, **kwargs: Any) -> Any:
        with open_option(url, credentials) as storage:
            return command(*args, storage=storage, **kwargs)

    return wrapped


as_json_option = click.option("--json", "as_json", is_flag=True, help="Answer with JSON on standard output.")


def retention_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the options for how long earlier generations are kept, as `retention`."""

    @click.option(
        "--keep-all", type=Duration(), default="1h", show_default=True, help="Keep all generations so long."
    )
    @click.option(
        "--keep-hourly", type=Duration(), default="24h", show_default=True, help="Then one an hour."
    )
    @click.option("--keep-daily", type=Duration(), default="14d", show_default=True, help="Then one a day.")
    @functools.wraps(command)
    def wrapped(
        *args: Any, keep_all: timedelta, keep_hourly: timedelta, keep_daily: timedelta, **kwargs: Any
    ) -> Any:
        from scipion_cloud.sync.retention import Retention

        kept = Retention(all_for=keep_all, hourly_for=keep_hourly, daily_for=keep_daily)
        return command(*args, retention=kept, **kwargs)

    return wrapped


trust_option = click.option(
    "--trust-lock", is_flag=True, help="Nobody else opens the project; the storage cannot make sure."
)


@contextlib.contextmanager
def project_locked(
    storage: "Storage", *, state: Path | None = None, work: Path | None = None, trusted: bool = False
) -> Iterator["Lease"]:
    """The project's lock within the block, for one command; that of the deployment of `state` if given."""
    from scipion_cloud.deployments.session import load
    from scipion_cloud.sync.lease import acquire

    deployment = load(state, storage.url).deployment if state else f"command-{uuid.uuid4().hex[:8]}"
    lease = acquire(
        storage,
        deployment=deployment,
        host=socket.gethostname(),
        user=user_name(),
        parameters={"work": str(work.absolute())} if work else {},
        trusted=trusted,
        on_wait=lambda holder: click.echo(f"Waiting for another lock to end. {holder.describe()}", err=True),
    )
    lease.start()
    try:
        yield lease
    finally:
        lease.release(lease.generation)


def generation_values(generation: "Generation | None") -> dict[str, Any] | None:
    """A generation for JSON."""
    if generation is None:
        return None
    names = ("number", "parent", "deployment", "host", "user", "note", "files", "bytes")
    values = {name: getattr(generation, name) for name in names}
    return {**values, "created": generation.created.isoformat()}


def problem_values(found: "Sequence[Problem]") -> list[dict[str, str]]:
    """Problems for JSON."""
    from scipion_cloud.deployments.board import readable

    return [{"path": readable(p.path), "text": p.text} for p in found]


def show_problems(problems: list[dict[str, str]]) -> None:
    """Tell them on standard error."""
    for problem in problems:
        click.secho(f"{problem['path'] or 'the project'}: {problem['text']}", fg="yellow", err=True)


def user_name() -> str:
    """For whom a lock is taken unless somebody says."""
    import getpass

    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a user id without a name, as in containers
        return f"user {os.getuid()}"
