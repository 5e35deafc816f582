"""From a run's row to a job: the request for the chain of protocols and the program to start."""

import json
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from scipion_cloud.config import Config
from scipion_cloud.jobs.spec import JobId, JobSpec
from scipion_cloud.records.models import Run


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


@dataclass(frozen=True)
class Prepared:
    """A job that can be submitted, or why there is none; and the movies left out with the reason, by stem."""

    spec: JobSpec | None
    refusal: str = ""
    unusable: Mapping[str, str] = field(default_factory=dict)


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


def prepare(config: Config, order: Order) -> Prepared:
    """TEMP"""
    raise NotImplementedError
