"""`scipion-cloud job`: the batch system from a shell. Scipion's own `hosts.conf` calls these commands."""

import json
import os
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from scipion_cloud.jobs import JobBackend, JobId, JobSpec, JobStatus

_KEY = "SCIPION_CLOUD_JOB_KEY"  # for one submission: the job itself does not see it
_INDEX = "SCIPION_CLOUD_JOB_INDEX"
_HERE = ("", "here", "local")  # "local" was the only queue of earlier versions
_as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


@click.group()
def job() -> None:
    """Submit, watch and cancel jobs of the batch system."""


@job.command()
@click.argument("script", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--name", help="A name for people; the script's by default.")
@click.option("--site", default="", help="Where: a site of sites.toml, or 'automatic'; here by default.")
@click.option(
    "--package", multiple=True, help="A Scipion plugin that it needs; only sites with it are chosen."
)
@click.option("--tasks", type=click.IntRange(min=1), default=1, show_default=True, help="Processes of MPI.")
@click.option("--cpus", type=click.IntRange(min=1), default=1, show_default=True, help="Of each task.")
@click.option("--gpus", type=click.IntRange(min=0), default=0, show_default=True)
@click.option(
    "--memory", type=click.FloatRange(min=0, min_open=True), default=1.0, show_default=True, help="GiB."
)
@click.option("--hours", type=click.FloatRange(min=0, min_open=True), help="End the job after this time.")
@click.option("--key", envvar=_KEY, help="Submit once: the same key gives the same job.")
@click.option(
    "--count",
    type=click.IntRange(min=1),
    help=f"Queue that many jobs, an array; each finds its number, from 1, in {_INDEX}.",
)
@click.option("--resumable", is_flag=True, help="Start it again when it is lost with its machine.")
@_as_json
def submit(
    script: Path,
    name: str | None,
    site: str,
    package: tuple[str, ...],
    tasks: int,
    cpus: int,
    gpus: int,
    memory: float,
    hours: float | None,
    key: str | None,
    count: int | None,
    resumable: bool,
    as_json: bool,
) -> None:
    """Queue a shell SCRIPT, run by bash in this folder with this environment; print the job's number.

    A job script of Scipion can go to another site: the broker brings there what its protocol needs, and back
    what it makes.
    """
    from scipion_cloud.errors import InvalidInput
    from scipion_cloud.jobs import JobSpec

    spec = JobSpec(
        argv=("bash", str(script.absolute())),
        cwd=Path.cwd(),
        name=name or script.stem,
        cpus=cpus,
        tasks=tasks,
        gpus=gpus,
        memory_gb=memory,
        hours=hours,
        env={name: value for name, value in os.environ.items() if name != _KEY},
        resumable=resumable,
    )
    if site not in _HERE:
        if count:
            raise InvalidInput("Only one job at a time can go to another site. Leave out --count or --site.")
        spec = _addressed(spec, site, script, package)
    key = key or f"job submit {os.urandom(16).hex()}"
    numbers = _backend().submit_all(_array(spec, key, count) if count else [(spec, key)])
    if as_json:
        click.echo(json.dumps([{"id": number} for number in numbers] if count else {"id": numbers[0]}))
    else:
        click.echo("\n".join(map(str, numbers)))


@job.command(context_settings={"ignore_unknown_options": True})  # whatever it is asked, it answers
@click.argument("ids", nargs=-1, type=click.UNPROCESSED)
@_as_json
def status(ids: tuple[str, ...], as_json: bool) -> None:
    """Print one word for each ID: QUEUED, RUNNING, DONE, FAILED, CANCELLED or UNKNOWN."""
    known: dict[JobId, JobStatus] = {}
    try:
        known = _backend().status(_numbers(ids))
    except Exception as e:  # noqa: BLE001 - Scipion takes silence for the end of the job, so always answer
        click.echo(f"The batch system does not answer: {e}", err=True)
    found = [known.get(number) if (number := _number(text)) else None for text in ids]
    if as_json:
        click.echo(_json([{"id": text, **_fields(s)} for text, s in zip(ids, found, strict=True)]))
    else:
        click.echo("\n".join(s.state if s else "UNKNOWN" for s in found) or "UNKNOWN")


@job.command()
@click.argument("ids", nargs=-1, required=True)
@_as_json
def cancel(ids: tuple[str, ...], as_json: bool) -> None:
    """End jobs with all their processes. Those that have ended are left as they are."""
    backend, numbers = _backend(), _numbers(ids)
    backend.cancel(numbers)
    states = backend.status(numbers)
    if as_json:
        click.echo(_json([{"id": number, **_fields(s)} for number, s in states.items()]))


@job.command("list")
@click.option(
    "--limit", type=click.IntRange(min=0), default=20, show_default=True, help="Jobs that have ended."
)
@_as_json
def list_(limit: int, as_json: bool) -> None:
    """Show the queue, then the jobs that ended last."""
    jobs = _backend().list(limit)
    if as_json:
        click.echo(_json([asdict(info) for info in jobs]))
        return
    for info in jobs:
        name = info.name.encode(errors="replace").decode().replace("\n", " ")
        click.echo(f"{info.id:>7}  {info.status.state:<9}  {info.cpus:>3} CPUs  {name}  {info.status.reason}")


@job.command()
@click.argument("number", metavar="ID", type=click.IntRange(min=1))
@click.option(
    "--bytes", "tail", type=click.IntRange(min=1), default=65536, show_default=True, help="At most; the end."
)
@_as_json
def log(number: int, tail: int, as_json: bool) -> None:
    """Print what a job wrote: its output, and on standard error its errors."""
    from scipion_cloud.jobs import JobId

    logs = _backend().logs(JobId(number), tail)
    if as_json:
        click.echo(_json(asdict(logs)))
        return
    click.echo(logs.stdout, nl=False)
    if logs.stderr_path != logs.stdout_path:
        click.echo(logs.stderr, nl=False, err=True)


def _array(spec: "JobSpec", key: str, count: int) -> "list[tuple[JobSpec, str]]":
    """Equal jobs with names and keys of their own."""
    return [
        (
            replace(spec, name=f"{spec.name} ({number} of {count})", env={**spec.env, _INDEX: str(number)}),
            f"{key}-{number}",
        )
        for number in range(1, count + 1)
    ]


def _addressed(spec: "JobSpec", wish: str, script: Path, packages: tuple[str, ...]) -> "JobSpec":
    """The job for the site that is wished, with what the broker has to know of it."""
    from scipion_cloud.broker.choosing import choose
    from scipion_cloud.broker.known import probably_read, there
    from scipion_cloud.broker.parcel import parcel_of_script
    from scipion_cloud.broker.rank import Needs
    from scipion_cloud.config import get_config
    from scipion_cloud.errors import InvalidInput
    from scipion_cloud.model import AUTOMATIC

    config = get_config()
    needs = Needs(
        packages=packages,
        cpus=spec.cpus,
        tasks=spec.tasks,
        gpus=spec.gpus,
        memory_gb=spec.memory_gb,
        hours=spec.hours,
    )
    if wish == AUTOMATIC:
        with suppress(InvalidInput):  # what is no protocol can still run here
            inputs = probably_read(config, parcel_of_script(script, packages))
            needs = replace(needs, bytes_in=inputs.size, there=there(config, inputs), guessed=True)
    site = choose(wish, needs, config)
    if site.is_home:
        return spec
    parcel = parcel_of_script(script, packages)
    # the site has its own environment; the script, whose paths are ours, is not run there
    return replace(spec, site=site.name, parcel=parcel.to_json(), cwd=parcel.root, env={})


def _backend() -> "JobBackend":
    """The batch system.

    A queue in use knows its own limits, and Scipion asks often: reading the whole configuration would take
    longer than the answer.
    """
    from scipion_cloud.jobs import backend_for
    from scipion_cloud.jobs.systems import backend_at

    if home := os.environ.get("SCIPION_CLOUD_HOME"):
        backend = backend_at(Path(home) / "jobs")
        if backend.is_ready():
            return backend
    from scipion_cloud.config import get_config

    return backend_for(get_config())


def _number(text: str) -> "JobId | None":
    from scipion_cloud.jobs import JobId

    return JobId(int(text)) if text.isascii() and text.isdigit() and 0 < int(text) < 2**63 else None


def _numbers(ids: tuple[str, ...]) -> "list[JobId]":
    return [number for text in ids if (number := _number(text))]


def _fields(status: "JobStatus | None") -> dict[str, Any]:
    return asdict(status) if status else {"state": "UNKNOWN"}


def _json(value: object) -> str:
    return json.dumps(value, default=lambda v: v.isoformat() if hasattr(v, "isoformat") else str(v))
