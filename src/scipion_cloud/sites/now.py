"""How a site is now, as far as we know: what the broker decides by and the operators look at."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import Any

from scipion_cloud.jobs.batch_system import Node
from scipion_cloud.jobs.spec import JobInfo
from scipion_cloud.sites.model import Flavour, Site

_GONE = ("down", "drained")
TYPICAL = 600.0  # s that a job takes where none has ended yet


@dataclass(frozen=True)
class SiteNow:
    """A site, and what was last seen of it. Numbers of jobs are of ours; nodes are everybody's."""

    site: Site
    seen: datetime | None = None  # when all this was seen; None if it never was
    drained: str = ""  # why it takes no new jobs; empty if it takes them
    drained_since: datetime | None = None
    unreachable: str = ""  # why it could not be asked the last time; empty if it could
    unreachable_since: datetime | None = None
    nodes: tuple[Node, ...] = ()
    jobs: tuple[JobInfo, ...] = ()  # of ours: those that live, and some that have ended
    queued: int = 0
    running: int = 0
    typical: float = TYPICAL  # s that the last jobs took, in the middle
    used_gb: float | None = None  # in its area
    free_gb: float | None = None  # on the disk of its area
    bytes_per_second: float | None = None  # of the last transfers
    version: str = ""  # of our program there
    use: tuple[tuple[float, ...], ...] = ()  # of the last day: (time, CPUs used, CPUs), s since 1970
    tested: Mapping[str, Any] | None = None  # the last `site test`: `when`, `ok`, `steps`

    @property
    def name(self) -> str:
        """The site's name."""
        return self.site.name

    @property
    def state(self) -> str:
        """One word: ready, drained, unreachable, or unknown before the first look."""
        if self.unreachable:
            return "unreachable"
        if self.drained:
            return "drained"
        return "ready" if self.seen else "unknown"

    @cached_property
    def flavours(self) -> tuple[Flavour, ...]:
        """Those that are configured, else one for each size of node that was seen."""
        sizes = {(n.cpus, n.memory_gb, n.gpus) for n in self.nodes if n.cpus > 0 and n.memory_gb > 0}
        return self.site.flavours or tuple(
            Flavour(name=f"c{c}-m{m:.0f}{f'-g{g}' if g else ''}", cpus=c, memory_gb=m, gpus=g)
            for c, m, g in sorted(sizes)
        )

    @property
    def usable(self) -> tuple[Node, ...]:
        """Nodes that work or can be made to."""
        return tuple(node for node in self.nodes if node.state not in _GONE)

    @property
    def cpus(self) -> int:
        """CPUs of all nodes that work or can be made to."""
        return sum(node.cpus for node in self.usable)

    @property
    def cpus_used(self) -> int:
        """CPUs that jobs have, anybody's."""
        return sum(node.cpus_used for node in self.usable)
