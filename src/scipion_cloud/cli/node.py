"""`scipion-cloud node`: the home's elastic nodes."""

import json
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from scipion_cloud.cluster.control import Control
    from scipion_cloud.cluster.history import NodesNow

_as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
_names = click.argument("names", metavar="HOSTLIST")


@click.group()
def node() -> None:
    """Show the nodes that come with the work and go when it is done; bring some, send some away."""


@node.command("list")
@click.option("--events", type=click.IntRange(min=0), default=0, show_default=True, help="The last ones too.")
@_as_json
def list_(events: int, as_json: bool) -> None:
    """Show all nodes, and the hours used and saved in the last 30 days."""
    now = _now()
    if as_json:
        click.echo(
            json.dumps({**asdict(now), "cost": now.cost, "saved": now.saved}, default=lambda t: t.isoformat())
        )
        return
    for line in now.nodes:
        since = f"{line.since:%Y-%m-%d %H:%M:%S}" if line.since else ""
        jobs = f"{len(line.jobs)} jobs" if line.jobs else ""
        text = f"{line.name:<16} {line.state:<9} since {since}  {jobs}  {line.reason}"
        click.echo(text.rstrip())
    click.echo(
        f"{now.hours_used:.1f} h used ({now.hours_busy:.1f} h of them with jobs), "
        f"{now.hours_saved:.1f} h saved against nodes that are always on"
    )
    for event in now.events[:events]:
        click.echo(f"{event.at:%Y-%m-%d %H:%M:%S}  {event.node} {event.text}")


@node.command()
@_names
def resume(names: str) -> None:
    """Bring the nodes of HOSTLIST (as n-[1-3,7]) although no job wants them; the idle ones go again."""
    _control().resume(_expanded(names))


@node.command()
@_names
def suspend(names: str) -> None:
    """Send the nodes of HOSTLIST (as n-[1-3,7]) away as soon as their jobs have ended."""
    _control().suspend(_expanded(names))


def _now() -> "NodesNow":
    from scipion_cloud.cluster.history import overview
    from scipion_cloud.config import get_config
    from scipion_cloud.errors import NotFound

    now = overview(get_config().home)
    if now is None:
        raise NotFound(
            "No elastic nodes are known here. Give the home site in sites.toml a table `elastic`, "
            "and start `scipion-cloud up`."
        )
    return now


def _expanded(names: str) -> tuple[str, ...]:
    """The nodes of a list. Raises NotFound for one that there cannot be."""
    from scipion_cloud.cluster.hostlist import expand
    from scipion_cloud.errors import NotFound

    known = {line.name for line in _now().nodes}
    found = expand(names)
    if unknown := [name for name in found if name not in known]:
        raise NotFound(f"There is no elastic node {unknown[0]!r}; `scipion-cloud node list` shows all.")
    return found


def _control() -> "Control":
    from scipion_cloud.cluster.control import Control
    from scipion_cloud.cluster.history import FOLDER
    from scipion_cloud.config import get_config

    return Control(get_config().home / FOLDER / "slurm.conf")
