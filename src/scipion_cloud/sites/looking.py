"""A look at a site: its nodes and our jobs there. It takes as long as the way there; nothing waits for it."""

import statistics
import time
from datetime import UTC, datetime
from typing import Any

from scipion_cloud import __version__
from scipion_cloud.config import Config
from scipion_cloud.errors import ScipionCloudError
from scipion_cloud.jobs import JobBackend, JobInfo, JobState, wire
from scipion_cloud.jobs.away import Away
from scipion_cloud.jobs.batch_system import BatchSystem, Node
from scipion_cloud.jobs.limits import Limits
from scipion_cloud.jobs.remote import RemoteBackend
from scipion_cloud.jobs.serve import Place
from scipion_cloud.sites import reach, state
from scipion_cloud.sites.model import Site
from scipion_cloud.sites.now import TYPICAL

EVERY = 30.0  # s between two looks
PATIENCE = 20.0  # s for a site that does not answer
ENDED = 50  # jobs that ended last, from which it is told how long one takes
SHOWN = 100  # jobs that are kept for the operators
USE_EVERY = 300.0  # s between two points of the use
USE_POINTS = 288  # a day


def look(site: Site, config: Config) -> None:
    """Ask a site how it is and keep that, or keep why it cannot be asked. Raises ConfigError if it cannot."""
    now = datetime.now(UTC).isoformat(timespec="seconds")
    kept = state.read(config, site.name)
    try:
        seen = {"when": now, **_facts(site, config)}
    except (ScipionCloudError, OSError) as e:
        since = (kept.get("unreachable") or {}).get("since") or now
        state.change(config, site.name, unreachable={"why": _why(site, e), "since": since})
        return
    state.change(config, site.name, seen=seen, unreachable=None, use=_use(kept, seen))


def _why(site: Site, error: Exception) -> str:
    """What is told of a silent site, without what its page says anyway."""
    words = str(error).removeprefix(f"The site {site.label} does not answer: ")
    return words.removesuffix(" What runs there goes on.").rstrip(".")


def _facts(site: Site, config: Config) -> dict[str, Any]:
    backend = reach.backend(site, config)
    if isinstance(backend, RemoteBackend):
        backend = RemoteBackend(backend.channel, PATIENCE)
        about, nodes, away = backend.about(), backend.nodes(), set[int]()
    else:
        about = {"version": __version__}
        nodes, away = _home_nodes(backend, config), {job.id for job in Away(config.jobs).live()}
    jobs = [job for job in backend.list(limit=ENDED) if job.id not in away]
    live = [job.status.state for job in jobs]
    return {
        "nodes": wire.encode(nodes),
        "jobs": wire.encode(jobs[:SHOWN]),
        "queued": live.count(JobState.QUEUED),
        "running": live.count(JobState.RUNNING),
        "typical": _typical(jobs),
        "version": about["version"],
        "free_gb": about["free_gb"] * 2**30 / 1e9 if "free_gb" in about else None,
    }


def _home_nodes(backend: JobBackend, config: Config) -> tuple[Node, ...]:
    system: BatchSystem | Limits | None = getattr(backend, "system", None) or getattr(backend, "limits", None)
    return Place(config.jobs, "", {}, backend, system or Limits.of_machine()).nodes()


def _typical(jobs: list[JobInfo]) -> float:
    """The median length of the jobs that ended well, s."""
    lengths = [
        (status.ended - status.started).total_seconds()
        for job in jobs
        if job.cpus and (status := job.status).state is JobState.DONE and status.started and status.ended
    ]
    return statistics.median(lengths) if lengths else TYPICAL


def _use(kept: dict[str, Any], seen: dict[str, Any]) -> list[list[float]]:
    """The use of the last day: [when, CPUs used, CPUs], one point every few minutes."""
    points: list[list[float]] = kept.get("use") or []
    now = time.time()
    if points and now - points[-1][0] < USE_EVERY:
        return points
    nodes = [node for node in seen["nodes"] if node["state"] not in ("down", "drained")]
    point = [round(now), sum(n["cpus_used"] for n in nodes), sum(n["cpus"] for n in nodes)]
    return [*points, point][-USE_POINTS:]
