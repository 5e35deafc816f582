"""Which sites a job can go to, in which order, and why. Pure: the same values give the same answer."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from scipion_cloud.jobs.batch_system import Node
from scipion_cloud.sites.model import Batch, Flavour, software_label
from scipion_cloud.sites.now import SiteNow

GB = 1e9
ASSUMED_SPEED = 10e6  # bytes/s to a site that nothing has been sent to yet
CONTACT = 5.0  # s that a transfer takes however little there is to send
START = 90.0  # s until a node that is off is up, where it is not known
_OFF = ("off", "starting", "stopping")
_ALIKE = 60.0  # s: ends in the same minute are equal, and the price decides


@dataclass(frozen=True)
class Needs:
    """What a job asks of a site."""

    packages: tuple[str, ...] = ()  # Scipion plugins
    cpus: int = 1  # for each task; 0 for an interactive job
    tasks: int = 1  # processes of MPI
    gpus: int = 0
    memory_gb: float = 1.0  # GiB on each node
    hours: float | None = None  # its time limit
    expected: float | None = None  # s that it will probably take; its limit if unknown
    bytes_in: int = 0  # what it reads
    bytes_out: int = 0  # what it probably writes
    there: Mapping[str, int] = field(default_factory=dict)  # site -> bytes of what it reads that are there
    guessed: bool = False  # the bytes are: they order sites, and speak against none
    budget: float | None = None  # what the group can still spend; unlimited if unset

    @property
    def run(self) -> float | None:
        """How long it will probably run, s."""
        return self.expected if self.expected is not None else self.hours and self.hours * 3600

    def to_send(self, site: str) -> int:
        """Bytes that would go to this site."""
        return max(0, self.bytes_in - self.there.get(site, 0))


@dataclass(frozen=True)
class Offer:
    """What a site offers for a job, or why it does not."""

    site: str
    possible: bool
    reasons: tuple[str, ...]  # all that speaks against it; else what is to be known about it
    wait: float = 0.0  # s until the job would start, once its files are there
    transfer: float = 0.0  # s for its files, there and back
    run: float | None = None  # s, if it can be told
    cost: float | None = None  # if it can be told
    cost_per_hour: float = 0.0
    flavour: str = ""  # the nodes it would get; empty if they are not known

    @property
    def end(self) -> float:
        """Seconds until the results are back; without the run itself if nobody knows how long it takes."""
        return self.wait + self.transfer + (self.run or 0.0)


@dataclass(frozen=True)
class _Fit:
    """A job on nodes of one flavour."""

    flavour: Flavour
    nodes: int
    price: float  # an hour, of the part of them that it takes


def rank(sites: Sequence[SiteNow], needs: Needs) -> list[Offer]:
    """An offer of each site, the best first: by its end, then its price, home where these are equal.

    Those that are not possible come last. A site's offer depends on nothing but itself and the job.
    """
    offers = [(_order(now, offer := _offer(now, needs)), offer) for now in sites]
    return [offer for _, offer in sorted(offers, key=lambda pair: pair[0])]


def _order(now: SiteNow, offer: Offer) -> tuple[bool, float, float, bool, str]:
    if not offer.possible:
        return True, 0.0, 0.0, not now.site.is_home, now.name
    return False, offer.end // _ALIKE, offer.cost_per_hour, not now.site.is_home, now.name


def _offer(now: SiteNow, needs: Needs) -> Offer:
    fits = _fits(now, needs)
    fit = min(
        fits, key=lambda f: (f.price, f.flavour.cpus, f.flavour.memory_gb, f.flavour.name), default=None
    )
    price = fit.price if fit else 0.0
    run = needs.run
    cost = None if run is None else price * run / 3600
    against = [*_closed(now), *_lacks(now, needs), *_too_small(now, needs, fits), *_full(now, needs)]
    if needs.budget is not None and (cost or 0.0) > needs.budget:
        against.append(f"costs {cost:.2f}, more than the {needs.budget:.2f} that are left")
    wait, transfer = _wait(now, needs), _transfer(now, needs)
    name = fit.flavour.name if fit else ""
    told = tuple(against) or _told(now, needs, wait)
    return Offer(now.name, not against, told, wait, transfer, run, cost, price, name)


def _closed(now: SiteNow) -> list[str]:
    """It takes no jobs at all now."""
    reasons = []
    if now.drained:
        reasons.append(f"takes no new jobs: {now.drained}")
    if now.unreachable:
        since = f" since {now.unreachable_since:%d %b %H:%M} UTC" if now.unreachable_since else ""
        reasons.append(f"cannot be reached{since}: {now.unreachable}")
    elif now.seen is None and not now.site.is_home:
        reasons.append("has not been reached yet")
    if now.nodes and not now.usable:
        reasons.append("has no node that works")
    return reasons


def _lacks(now: SiteNow, needs: Needs) -> list[str]:
    """Software and time that it has not."""
    site = now.site
    reasons = [
        f"has no {software_label(name)}" for name in sorted({p for p in needs.packages if not site.has(p)})
    ]
    if site.max_hours is not None and needs.hours is not None and needs.hours > site.max_hours:
        reasons.append(f"ends jobs after {site.max_hours:g} h; this one asks for {needs.hours:g} h")
    return reasons


def _too_small(now: SiteNow, needs: Needs, fits: Sequence[_Fit]) -> list[str]:
    """Its nodes are."""
    flavours, reasons = now.flavours, []
    total = max(1, needs.cpus) * needs.tasks
    if now.site.max_cpus is not None and total > now.site.max_cpus:
        reasons.append(f"gives one job {_cpus(now.site.max_cpus)}; this needs {total}")
    if not flavours or fits:
        return reasons
    cpus, memory, gpus = (max(getattr(f, key) for f in flavours) for key in ("cpus", "memory_gb", "gpus"))
    small = []
    if max(1, needs.cpus) > cpus:
        small.append(f"has nodes of {_cpus(cpus)}; this needs {needs.cpus}")
    if needs.memory_gb > memory:
        small.append(f"has nodes of {_gib(memory)}; this needs {_gib(needs.memory_gb)}")
    if needs.gpus > gpus:
        small.append(f"has nodes of {gpus} GPUs; this needs {needs.gpus}" if gpus else "has no GPU")
    if not small and any(_one_task_fits(f, needs) for f in flavours):
        few = "no single machine" if now.site.batch is Batch.LOCAL else "too few nodes"
        small.append(f"has {few} for {needs.tasks} tasks of {_cpus(max(1, needs.cpus))}")
    elif not small:
        together = f"{_cpus(max(1, needs.cpus))}, {_gib(needs.memory_gb)} and {needs.gpus} GPUs"
        small.append(f"has no node with {together} together")
    return reasons + small


def _cpus(count: int) -> str:
    return "1 CPU" if count == 1 else f"{count} CPUs"


def _gib(value: float) -> str:
    return f"{value:.0f} GiB" if value >= 10 else f"{value:.2g} GiB"


def _full(now: SiteNow, needs: Needs) -> list[str]:
    """Its queue or its area is."""
    site, reasons = now.site, []
    jobs = now.queued + now.running
    if site.max_jobs is not None and jobs >= site.max_jobs:
        reasons.append(f"has {jobs} jobs of ours, and takes no more than {site.max_jobs}")
    if site.is_home:
        return reasons
    more = 0.0 if needs.guessed else (needs.to_send(now.name) + needs.bytes_out) / GB
    if site.max_gb is not None and (now.used_gb or 0.0) + more > site.max_gb:
        reasons.append(
            f"lets us keep {site.max_gb:g} GB, of which {now.used_gb or 0.0:.1f} GB are taken; "
            f"this needs {more:.1f} GB"
        )
    if now.free_gb is not None and more > now.free_gb:
        reasons.append(f"has {now.free_gb:.1f} GB left on its disk; this needs {more:.1f} GB")
    return reasons


def _fits(now: SiteNow, needs: Needs) -> list[_Fit]:
    """The flavours that can carry the job, and how many nodes of each it takes."""
    found = []
    for flavour in now.flavours:
        if not _one_task_fits(flavour, needs):
            continue
        cpus = max(1, needs.cpus)
        on_one = min(needs.tasks, flavour.cpus // cpus)
        nodes = math.ceil(needs.tasks / on_one)
        if nodes > _most_nodes(now, flavour):
            continue
        shares = [on_one * cpus / flavour.cpus, needs.memory_gb / flavour.memory_gb]
        if needs.gpus:
            shares.append(needs.gpus / flavour.gpus)
        found.append(_Fit(flavour, nodes, flavour.price_per_hour * max(shares) * nodes))
    return found


def _one_task_fits(flavour: Flavour, needs: Needs) -> bool:
    return (
        max(1, needs.cpus) <= flavour.cpus
        and needs.memory_gb <= flavour.memory_gb
        and needs.gpus <= flavour.gpus
    )


def _most_nodes(now: SiteNow, flavour: Flavour) -> float:
    """How many nodes of a flavour one job can get."""
    if now.site.batch is Batch.LOCAL:
        return 1
    alike = [n for n in now.usable if n.cpus >= flavour.cpus and n.gpus >= flavour.gpus]
    return len(alike) or math.inf  # no such node is known: what is configured is believed


def _wait(now: SiteNow, needs: Needs) -> float:
    """Seconds until it would start: none where it fits, else by what our jobs take and how many wait."""
    if not now.queued:
        if _room(needs, [n for n in now.usable if n.state not in _OFF]) or not now.nodes:
            return 0.0
        if _room(needs, now.usable):
            return START
    return now.typical * (now.queued + 1) / max(1, now.running)


def _room(needs: Needs, nodes: Sequence[Node]) -> bool:
    """Whether free CPUs of these nodes carry all tasks."""
    if needs.cpus == 0:
        return bool(nodes)
    able = [n for n in nodes if n.memory_gb >= needs.memory_gb and n.gpus >= needs.gpus]
    return sum(max(0, n.cpus - n.cpus_used) // needs.cpus for n in able) >= needs.tasks


def _transfer(now: SiteNow, needs: Needs) -> float:
    if now.site.is_home:
        return 0.0
    return CONTACT + (needs.to_send(now.name) + needs.bytes_out) / (now.bytes_per_second or ASSUMED_SPEED)


def _told(now: SiteNow, needs: Needs, wait: float) -> tuple[str, ...]:
    """What a person may want to know of a site that can be used."""
    told = []
    if now.site.is_home:
        told.append("the files are here")
    elif needs.bytes_in and not needs.to_send(now.name):
        told.append("the files are there already")
    elif needs.there.get(now.name):
        told.append(f"{min(1.0, needs.there[now.name] / needs.bytes_in):.0%} of the files are there already")
    if now.queued:
        told.append(f"{now.queued} job{'s wait' if now.queued > 1 else ' waits'} before it")
    elif wait == START:
        told.append("nodes are started for it")
    elif wait:
        told.append("all its nodes are busy")
    else:
        told.append("starts at once")
    return tuple(told)
