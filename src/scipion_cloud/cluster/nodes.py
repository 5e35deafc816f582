"""Elastic nodes: compare what Slurm wants with what the provider has, and act.

Level-triggered: all that is decided is decided by what Slurm and the provider say now. A controller that is
killed anywhere leaves nothing that the next one needs to know.
"""

import logging
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Protocol, TypeVar

from scipion_cloud.cluster.book import Book, Line
from scipion_cloud.cluster.control import Control, SlurmNode, jobs_by_node
from scipion_cloud.cluster.decisions import NOT_MADE, Deed, Step, decide
from scipion_cloud.cluster.elastic import ElasticCluster
from scipion_cloud.cluster.provider import NodeProvider, ProvidedNode
from scipion_cloud.errors import ScipionCloudError

log = logging.getLogger(__name__)

T = TypeVar("T")

PAUSE = timedelta(seconds=60)  # until a node that could not be made is tried again
_HELD = timedelta(seconds=130)  # Slurm keeps a job back at most so long when its node was lost


class Worker(Protocol):
    """Does slow work beside the tick; see `controller.background.Background`."""

    def poll(self, key: Hashable, work: Callable[[], T]) -> T | None:
        """None until the work with this key, begun by the first call, is done; then its result, once."""


@dataclass(frozen=True)
class _Task:
    """Work that goes on with some nodes."""

    deed: Deed
    nodes: tuple[str, ...]
    work: Callable[[], bool]


class Nodes:
    """The nodes of one elastic cluster. At most one of these is at work on a cluster: the controller's lock
    sees to that."""

    def __init__(
        self,
        cluster: ElasticCluster,
        worker: Worker,
        provider: NodeProvider | None = None,
        pause: timedelta = PAUSE,
    ) -> None:
        self._cluster = cluster
        self._control = Control(cluster.conf)
        self._provider = provider or cluster.provider()
        self._worker = worker
        self._pause = pause
        self._book = Book(cluster.folder / "nodes.sqlite")
        self._tasks: dict[str, _Task] = {}  # by node
        self._begun: set[str] = set()  # nodes whose making we began ourselves
        self._hurry_until = _now() + _HELD
        self._warned = ""

    def reconcile(self) -> bool:
        """One look and one step for each node; True if there is nothing more to be done for now.

        Raises JobError while Slurm does not answer, and ScipionCloudError while the provider does not.
        """
        self._collect()
        now = _now()
        names = self._cluster.names
        seen = self._control.nodes()
        slurm = {name: seen[name] for name in names if name in seen}
        provided = self._provider.nodes()
        self._begun &= set(provided)
        steps = decide(slurm, provided, now, begun=self._begun, pause=self._pause)
        steps = [step for step in steps if step.node not in self._tasks]
        self._create([s for s in steps if s.deed is Deed.CREATE])
        self._destroy([s for s in steps if s.deed is Deed.DESTROY])
        for step in steps:
            if step.deed is Deed.FAIL:
                self._fail(step.node, step.why)
        self._control.switch_off([s.node for s in steps if s.deed is Deed.FORGIVE])
        if any(node.down and node.ours for node in slurm.values()):
            self._hurry_until = now + _HELD
        if now < self._hurry_until:
            self._control.hurry()
        self._write_down(slurm, provided, now)
        return not steps and not self._tasks and not any(n.wanted or n.down for n in slurm.values())

    def _create(self, steps: Sequence[Step]) -> None:
        for step in steps:
            self._begun.add(step.node)
            self._tell(step.node, "is being made")
            self._begin(Deed.CREATE, (step.node,), lambda name=step.node: self._provider.create(name))  # type: ignore[misc]

    def _destroy(self, steps: Sequence[Step]) -> None:
        for step in steps:
            self._tell(step.node, f"is removed: {step.why}")
        if names := tuple(step.node for step in steps):
            self._begin(Deed.DESTROY, names, lambda: self._provider.destroy(names))

    def _fail(self, node: str, why: str) -> None:
        self._control.fail([node], why)
        self._tell(node, f"{why}; its jobs go to other nodes")
        self._hurry_until = _now() + _HELD

    def _begin(self, deed: Deed, nodes: tuple[str, ...], work: Callable[[], None]) -> None:
        def done() -> bool:
            work()
            return True

        task = _Task(deed, nodes, done)
        self._tasks.update(dict.fromkeys(nodes, task))
        self._follow(task)

    def _collect(self) -> None:
        """Take note of what has ended since the last look."""
        for task in dict.fromkeys(self._tasks.values()):
            self._follow(task)

    def _follow(self, task: _Task) -> None:
        try:
            if self._worker.poll((task.deed, task.nodes), task.work) is None:
                return
        except (ScipionCloudError, OSError) as e:
            self._failed(task, str(e))
        for node in task.nodes:
            del self._tasks[node]

    def _failed(self, task: _Task, why: str) -> None:
        if task.deed is Deed.CREATE:
            for node in task.nodes:
                self._begun.discard(node)
                self._fail(node, NOT_MADE + why.rstrip("."))
        else:
            self._warn(f"{', '.join(task.nodes)}: {why}")  # what is left is seen at the next look

    def _write_down(
        self, slurm: Mapping[str, SlurmNode], provided: Mapping[str, ProvidedNode], now: datetime
    ) -> None:
        busy = any(node.cpus_used for node in slurm.values())
        jobs = jobs_by_node(self._control.jobs()) if busy else {}
        lines = [_line(node, provided.get(name), jobs.get(name, ())) for name, node in slurm.items()]
        there = {name: node.since for name, node in provided.items()}
        try:
            self._book.look(lines, there, now, self._cluster.elastic.price_per_hour)
        except ScipionCloudError as e:
            self._warn(str(e))

    def _tell(self, node: str, text: str) -> None:
        log.info("node %s %s", node, text)
        try:
            self._book.tell(node, text, _now())
        except ScipionCloudError as e:
            self._warn(str(e))

    def _warn(self, text: str) -> None:
        if text != self._warned:
            log.warning("%s", text)
            self._warned = text


def _line(node: SlurmNode, machine: ProvidedNode | None, jobs: tuple[str, ...]) -> Line:
    return Line(
        name=node.name,
        state=_word(node, machine),
        reason=node.reason if node.down else "",
        jobs=jobs,
        cpus=node.cpus,
        cpus_used=node.cpus_used if node.on else 0,
        memory_gb=node.memory_gb,
    )


def _word(node: SlurmNode, machine: ProvidedNode | None) -> str:
    if node.down:
        return "down"
    if node.off:
        return "stopping" if machine or "POWERING_DOWN" in node.flags else "off"
    if node.wanted:
        return "starting"
    if "DRAIN" in node.flags:
        return "drained"
    if not node.cpus_used:
        return "idle"
    return "full" if node.cpus_used >= node.cpus else "busy"


def _now() -> datetime:
    return datetime.now(UTC)
