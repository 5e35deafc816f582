"""A site in the words and numbers of its pages. No I/O."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from scipion_cloud.jobs.batch_system import Node
from scipion_cloud.jobs.spec import JobInfo
from scipion_cloud.sites.model import Batch, SiteKind, software_label
from scipion_cloud.sites.now import SiteNow

SIDE = 16  # units of a node's square
WIDTH, HEIGHT = 288.0, 40.0  # units of the drawing of a day's use
DAY = 86400.0  # s
_KINDS = {SiteKind.HOME: "home", SiteKind.STORAGE: "with storage", SiteKind.COMPUTE: "computes only"}
_BATCH = {Batch.LOCAL: "one machine", Batch.SLURM: "Slurm", Batch.SGE: "Grid Engine"}
_ORDER = ("full", "busy", "idle", "starting", "stopping", "off", "drained", "down")


@dataclass(frozen=True)
class Square:
    """A node as a square that is filled as far as its CPUs are taken."""

    node: Node
    top: int  # of the filled part, from above
    filled: int

    @property
    def label(self) -> str:
        """What a person hears or reads of it."""
        used = f", {self.node.cpus_used} of {self.node.cpus} CPUs" if self.node.cpus_used else ""
        return (
            f"{self.node.name}: {self.node.state}{used}{f' ({self.node.reason})' if self.node.reason else ''}"
        )


@dataclass(frozen=True)
class Use:
    """The CPUs that were used in the last day, as an area in WIDTH x HEIGHT units; the right edge is now."""

    line: str
    area: str


@dataclass(frozen=True)
class SiteView:
    """What a page shows of a site."""

    now: SiteNow

    @property
    def badge(self) -> str:
        """The colour of its state."""
        return {"ready": "ready", "drained": "stopping", "unreachable": "failed"}.get(self.now.state, "")

    @property
    def about(self) -> str:
        """What kind of place it is."""
        site = self.now.site
        parts = (
            _KINDS[site.kind],
            _BATCH[site.batch],
            site.partition and f"partition {site.partition}",
            site.host,
        )
        return " · ".join(part for part in parts if part)

    @property
    def squares(self) -> list[Square]:
        """Its nodes."""
        return [_square(node) for node in self.now.nodes]

    @property
    def census(self) -> str:
        """How many nodes there are in which state."""
        if not self.now.nodes:
            return "no nodes have been seen yet"
        counts = Counter(node.state for node in self.now.nodes)
        words = sorted(counts, key=lambda s: _ORDER.index(s) if s in _ORDER else len(_ORDER))
        total = len(self.now.nodes)
        return f"{total} node{'' if total == 1 else 's'}: " + ", ".join(f"{counts[s]} {s}" for s in words)

    @property
    def software(self) -> list[str]:
        """What it offers; the home has all that this installation has."""
        return [software_label(name) for name in self.now.site.software]

    @property
    def gpus(self) -> int:
        """GPUs of all its nodes."""
        return sum(node.gpus for node in self.now.usable)

    @property
    def has_prices(self) -> bool:
        """Whether anything costs."""
        return any(flavour.price_per_hour for flavour in self.now.flavours)

    @property
    def live_jobs(self) -> list[JobInfo]:
        """Ours that wait or run."""
        return [job for job in self.now.jobs if not job.status.state.is_final]

    @property
    def ended_jobs(self) -> list[JobInfo]:
        """The last of ours that have ended."""
        return [job for job in self.now.jobs if job.status.state.is_final][:10]

    @property
    def use(self) -> Use | None:
        """Its last day; None with fewer than two points."""
        return day_of_use(self.now.use)


def day_of_use(points: Sequence[tuple[float, ...]]) -> Use | None:
    """The drawing of (time, CPUs used, CPUs), oldest first."""
    if len(points) < 2 or not (most := max(cpus for _, _, cpus in points)):
        return None
    end = points[-1][0]
    shown = [(when, used) for when, used, _ in points if when > end - DAY]
    places = [
        f"{WIDTH * (1 - (end - when) / DAY):.1f} {HEIGHT - 1 - (HEIGHT - 2) * min(1.0, used / most):.1f}"
        for when, used in shown
    ]
    line = "M" + " L".join(places)
    first, last = places[0].split()[0], places[-1].split()[0]
    return Use(line, f"{line} L{last} {HEIGHT:g} L{first} {HEIGHT:g}Z")


def _square(node: Node) -> Square:
    share = node.cpus_used / node.cpus if node.cpus else 0.0
    filled = max(2, round(SIDE * min(1.0, share))) if share else 0
    return Square(node, SIDE - filled, filled)
