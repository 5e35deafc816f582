"""From a run's row to a job: the request for the chain of protocols and the program to start."""

import json
import math
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scipion_cloud.config import Config
from scipion_cloud.controller.lanes import lanes_of, nodes_of
from scipion_cloud.jobs import BatchBackend, JobId, JobSpec, Limits, backend_for
from scipion_cloud.records.models import Run
from scipion_cloud.sites.model import Site
from scipion_cloud.sites.reading import read_sites
from scipion_cloud.tools import catalogue, inputs
from scipion_cloud.tools.environment import scipion_environ
from scipion_cloud.tools.movies import cost
from scipion_cloud.tools.movies.info import MovieInfo, read_info
from scipion_cloud.tools.tool import Queue, build_request

HOURS = 72.0  # a step elsewhere is ended after this time, as in the desktop; where a site says so, earlier
_WAITING_GB = 0.5  # GiB for a chain that waits


@dataclass(frozen=True)
class Order:
    """What threads, which touch no database, need to know of a run."""

    run_id: uuid.UUID
    tool: str
    label: str
    owner: str
    project: Path
    parameters: Mapping[str, Any]
    job: JobId | None
    movies: Mapping[str, str]  # stem -> name as uploaded, relative to the project's data folder
    site: str = ""  # where the main step runs; here if empty


def order_of(run: Run) -> Order:
    """Read all that there is to know from the database."""
    movies = dict(run.movies.values_list("stem", "name"))
    owner = str(run.user) if run.user else ""
    job = JobId(run.job_id) if run.job_id is not None else None
    return Order(run.pk, run.tool, run.label, owner, run.project.path, run.parameters, job, movies, run.site)


def away_key(run_id: uuid.UUID) -> str:
    """The key under which a run's main step is submitted when it runs elsewhere."""
    return f"run-{run_id.hex}-away"


def run_folder(config: Config, run_id: uuid.UUID) -> Path:
    """Where a run's request, its chain's state and its job's output are."""
    return config.home / "runs" / run_id.hex


def read_chain(config: Config, run_id: uuid.UUID) -> dict[str, Any]:
    """The state that the chain has written (see `scipion_cloud_em.state`); empty before it began."""
    try:
        state: dict[str, Any] = json.loads((run_folder(config, run_id) / "STATE.json").read_text())
    except FileNotFoundError:
        return {}
    return state


def prepare(config: Config, order: Order) -> JobSpec:
    """Link the run's files, write its request, and say what job it needs. Doing it again gives the same.

    Raises ScipionCloudError for what cannot be mended by trying again; JobError if the batch system does not
    say what it has, and OSError for what the disk refuses.
    """
    tool = catalogue.tool(order.tool)
    site = read_sites(config)[order.site] if order.site else None
    threads = int(order.parameters.get("threads") or 1)
    backend, machine = backend_for(config), Limits.of_machine(config.cpus, config.memory_gb)
    most = backend.system.limits() if isinstance(backend, BatchBackend) else machine
    cpus = threads if site else min(threads, most.cpus)  # more would only be in each other's way
    movie = _movie(order)
    memory_gb = cost.memory_gb(movie)
    name = order.label or tool.title
    gain = str(order.parameters.get("gain") or "")
    linked = inputs.link_inputs(order.project, order.run_id.hex, order.movies, gain)
    parameters = {**order.parameters, "threads": cpus}
    queue = _queue(order, site, memory_gb) if site else None
    lanes = None
    at_a_time = int(order.parameters.get("at_a_time", 1))  # runs of earlier versions have no such parameter
    if at_a_time != 1 and not site:
        nodes = nodes_of(backend, machine)
        lanes = lanes_of(order.run_id, name, at_a_time, movie, len(order.movies), cpus, nodes)
    key = order.run_id.hex
    request = build_request(tool, key, order.project, parameters, linked, order.label, queue, lanes)
    folder = run_folder(config, order.run_id)
    folder.mkdir(parents=True, exist_ok=True)
    part = folder / "request.json.part"
    part.write_text(json.dumps(request, indent=1))
    file = part.replace(folder / "request.json")
    return JobSpec(
        argv=(str(config.scipion_python), "-m", "scipion_cloud_em.chain", str(file)),
        cwd=order.project,
        name=name,
        env=scipion_environ(config, config.projects),
        owner=order.owner,
        cpus=0 if site else cpus,  # what only waits for a site takes no CPU from others
        memory_gb=_WAITING_GB if site else min(memory_gb, most.memory_gb),
        resumable=site is not None or lanes is not None,  # the other jobs do not end with this one
    )


def _queue(order: Order, site: Site, memory_gb: float) -> Queue:
    """The queue of Scipion's hosts.conf that is called like the site, and what its dialog asks."""
    hours = min(HOURS, site.max_hours or HOURS)
    params = {"JOB_MEMORY": f"{math.ceil(10 * memory_gb) / 10:g}", "JOB_HOURS": f"{hours:g}"}
    return Queue(site.name, params, away_key(order.run_id))


def _movie(order: Order) -> MovieInfo:
    """One of the movies; all movies of a run are alike."""
    data = order.project / "data"
    name = next(iter(order.movies.values()))
    return read_info(data / name, inside=data)
