"""Jobs that take movies off a run's hands: how many there is room for, what each takes, and their end."""

import uuid
from collections.abc import Iterable

from scipion_cloud.jobs import BatchBackend, JobBackend, JobId, Limits
from scipion_cloud.tools.movies import cost
from scipion_cloud.tools.movies.info import MovieInfo
from scipion_cloud.tools.tool import Lanes

_AWAY = ("down", "drained")  # nodes that do not count


def lanes_key(run_id: uuid.UUID) -> str:
    """The key under which a run's lanes are submitted; each adds its number, from 1."""
    return f"run-{run_id.hex}-lanes"


def lanes_of(
    run_id: uuid.UUID,
    name: str,
    at_a_time: int,
    movie: MovieInfo,
    movies: int,
    cpus: int,
    nodes: Iterable[Limits],
) -> Lanes | None:
    """What a run on so many movies submits beside its own job, which has one at a time; None for nothing.

    `cpus` is for each movie, and `nodes` what there is: more movies at a time than they have room for would
    only hold back who comes next. With `at_a_time` 0 it is as many as there is room for.
    """
    memory_gb = cost.program_gb(movie)
    room = sum(min(node.cpus // cpus, int(node.memory_gb / memory_gb)) for node in nodes)
    count = min(at_a_time or room, room, movies) - 1
    if count < 1:
        return None
    return Lanes(count, cpus, memory_gb, lanes_key(run_id), f"{name}, more movies")


def nodes_of(backend: JobBackend, machine: Limits) -> list[Limits]:
    """What can compute for the jobs of a queue, also nodes that are off and come with the work.

    Raises JobError if the batch system does not say.
    """
    if isinstance(backend, BatchBackend):
        nodes = [node for node in backend.system.nodes() if node.state not in _AWAY]
        return [Limits(node.cpus, node.memory_gb) for node in nodes]
    # less what the run's own job takes for Scipion
    return [machine._replace(memory_gb=machine.memory_gb - cost.SCIPION_GB)]


def end_lanes(backend: JobBackend, run_id: uuid.UUID) -> None:
    """End what a run's job has left of them. They are submitted all or none, and by nobody else."""
    jobs: list[JobId] = []
    while (job := backend.find(f"{lanes_key(run_id)}-{len(jobs) + 1}")) is not None:
        jobs.append(job)
    if jobs:
        backend.cancel(jobs)
