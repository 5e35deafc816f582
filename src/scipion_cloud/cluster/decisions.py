"""What is to be done, from what Slurm wants and what the provider has. Pure: no I/O, no clock, no memory."""

from collections.abc import Container, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from scipion_cloud.cluster.control import OURS, SlurmNode
from scipion_cloud.cluster.provider import NodeState, ProvidedNode

NOT_MADE = "not made: "
"""Follows `OURS` in the reason of a node that the provider did not make; others can come back at once."""

_PAUSED = (OURS + NOT_MADE, "ResumeTimeout")


class Deed(StrEnum):
    """What can be done about a node."""

    CREATE = "create"
    DESTROY = "destroy"
    FAIL = "fail"  # tell Slurm that it is not there, so that its jobs run elsewhere
    FORGIVE = "forgive"  # let Slurm ask for it again


@dataclass(frozen=True)
class Step:
    """One deed, and why."""

    deed: Deed
    node: str
    why: str = ""


def decide(
    slurm: Mapping[str, SlurmNode],
    provided: Mapping[str, ProvidedNode],
    now: datetime,
    *,
    begun: Container[str] = (),
    pause: timedelta,
) -> list[Step]:
    """The next step for each node that needs one.

    `begun`: the half made nodes that somebody is at work on; others are finished. `pause`: for how long a
    node that could not be made is not asked for again.
    """
    steps = [_step(node, provided.get(name), now, begun, pause) for name, node in slurm.items()]
    orphans = [
        Step(Deed.DESTROY, name, "nobody owns it")
        for name, node in provided.items()
        if name not in slurm and node.state is not NodeState.STOPPING
    ]
    return [step for step in steps if step is not None] + orphans


def _step(
    node: SlurmNode, machine: ProvidedNode | None, now: datetime, begun: Container[str], pause: timedelta
) -> Step | None:
    if machine is not None and machine.state is NodeState.STOPPING:
        return None
    if node.wanted:
        return _for_wanted(node, machine, begun)
    if node.on:
        if machine is None:
            return Step(Deed.FAIL, node.name, "its machine is gone")
        # its processes are ended before Slurm hears of it: the job never runs twice at a time
        return Step(Deed.DESTROY, node.name, machine.message) if machine.state is NodeState.FAILED else None
    if node.down and not node.ours:
        return None  # a person's business
    if machine is not None:
        why = "Slurm has given it up: " + node.reason if node.down else "it is not wanted any more"
        return Step(Deed.DESTROY, node.name, why)
    if node.down and (not node.reason.startswith(_PAUSED) or _over(node.reason_at, now, pause)):
        return Step(Deed.FORGIVE, node.name)
    return None


def _for_wanted(node: SlurmNode, machine: ProvidedNode | None, begun: Container[str]) -> Step | None:
    if machine is None:
        return Step(Deed.CREATE, node.name)
    if machine.state is NodeState.FAILED:
        return Step(Deed.FAIL, node.name, NOT_MADE + machine.message)
    if machine.state is NodeState.STARTING and node.name not in begun:
        return Step(Deed.CREATE, node.name)
    return None  # it comes up, or Slurm loses patience


def _over(since: datetime | None, now: datetime, pause: timedelta) -> bool:
    return since is None or now - since >= pause
