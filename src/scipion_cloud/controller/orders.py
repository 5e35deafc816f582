"""From a run's row to a job: the request for the chain of protocols and the program to start."""

import json
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scipion_cloud.config import Config
from scipion_cloud.jobs import JobId, JobSpec, Limits
from scipion_cloud.records.models import Run
from scipion_cloud.tools import catalogue, inputs
from scipion_cloud.tools.environment import scipion_environ
from scipion_cloud.tools.movies.info import read_info
from scipion_cloud.tools.tool import build_request


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


def order_of(run: Run) -> Order:
    """Read all that there is to know from the database."""
    movies = dict(run.movies.values_list("stem", "name"))
    owner = str(run.user) if run.user else ""
    job = JobId(run.job_id) if run.job_id is not None else None
    return Order(run.pk, run.tool, run.label, owner, run.project.path, run.parameters, job, movies)


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

    Raises ScipionCloudError for what cannot be mended by trying again, OSError for what the disk refuses.
    """
    tool = catalogue.tool(order.tool)
    cpus = min(int(order.parameters.get("threads") or 1), _cpus(config))
    gain = str(order.parameters.get("gain") or "")
    linked = inputs.link_inputs(order.project, order.run_id.hex, order.movies, gain)
    parameters = {**order.parameters, "threads": cpus}
    request = build_request(tool, order.run_id.hex, order.project, parameters, linked, order.label)
    folder = run_folder(config, order.run_id)
    folder.mkdir(parents=True, exist_ok=True)
    part = folder / "request.json.part"
    part.write_text(json.dumps(request, indent=1))
    file = part.replace(folder / "request.json")
    return JobSpec(
        argv=(str(config.scipion_python), "-m", "scipion_cloud_em.chain", str(file)),
        cwd=order.project,
        name=order.label or tool.title,
        cpus=cpus,
        memory_gb=min(_memory_gb(order), Limits.of_machine(config.cpus, config.memory_gb).memory_gb),
        env=scipion_environ(config, config.projects),
        owner=order.owner,
    )


def _cpus(config: Config) -> int:
    """CPUs that a job can have here; more threads than that would only be in each other's way."""
    return Limits.of_machine(config.cpus).cpus


def _memory_gb(order: Order) -> float:
    """What RELION takes for a movie, GiB: three times its frames as 4-byte numbers, and Scipion itself."""
    data = order.project / "data"
    name = next(iter(order.movies.values()))
    movie = read_info(data / name, inside=data)
    return 1 + 3 * 4 * movie.nx * movie.ny * movie.frames / 2**30
