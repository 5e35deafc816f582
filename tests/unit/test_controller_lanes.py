"""How many jobs share a run's movies, and what each takes."""

import uuid
from pathlib import Path

import pytest

from scipion_cloud.controller.lanes import end_lanes, lanes_key, lanes_of, nodes_of
from scipion_cloud.jobs import JobSpec, JobState, Limits, LocalBackend
from scipion_cloud.tools.movies.info import MovieInfo
from scipion_cloud.tools.tool import Lanes

RUN = uuid.UUID(int=7)
MOVIE = MovieInfo(Path("movie.mrc"), "MRC", 1024, 1024, 64, "uint8", None)  # 0.75 GiB, and 0.25 for RELION


def lanes(at_a_time: int, movies: int, cpus: int, *nodes: Limits) -> Lanes | None:
    return lanes_of(RUN, "Monday", at_a_time, MOVIE, movies, cpus, nodes)


@pytest.mark.parametrize(
    ("at_a_time", "movies", "cpus", "nodes", "jobs"),
    [
        (0, 20, 2, [Limits(2, 8)], 0),  # room for one, which the run's own job takes
        (0, 20, 2, [Limits(2, 8)] * 3, 2),
        (0, 20, 2, [Limits(5, 8), Limits(3, 8)], 2),  # no movie is on two nodes
        (0, 20, 1, [Limits(16, 3.5)], 2),  # memory
        (0, 3, 1, [Limits(16, 64)], 2),  # movies
        (1, 20, 1, [Limits(16, 64)], 0),
        (4, 20, 1, [Limits(16, 64)], 3),
        (9, 20, 4, [Limits(16, 64)], 3),
        (4, 20, 1, [], 0),  # all nodes are down: the run itself waits for one
    ],
)
def test_as_many_as_are_wanted_and_have_room(
    at_a_time: int, movies: int, cpus: int, nodes: list[Limits], jobs: int
) -> None:
    found = lanes(at_a_time, movies, cpus, *nodes)
    assert (found.count if found else 0) == jobs


def test_each_has_what_a_movie_takes() -> None:
    assert lanes(2, 9, 3, Limits(16, 64)) == Lanes(1, 3, 1.0, lanes_key(RUN), "Monday, more movies")


def test_a_machine_has_room_beside_the_run_itself(tmp_path: Path) -> None:
    assert nodes_of(LocalBackend(tmp_path), Limits(4, 8.0)) == [Limits(4, 7.0)]


def test_all_of_a_run_are_ended_and_no_others(tmp_path: Path) -> None:
    backend = LocalBackend(tmp_path, Limits(2, 8.0))
    spec = JobSpec(("sleep", "1000"), tmp_path)
    other = backend.submit(spec, f"{lanes_key(uuid.UUID(int=8))}-1")
    ids = backend.submit_all([(spec, f"{lanes_key(RUN)}-{n}") for n in (1, 2, 3)])
    end_lanes(backend, RUN)
    end_lanes(backend, RUN)
    states = backend.status([other, *ids])
    assert {states[job].state for job in ids} == {JobState.CANCELLED}
    assert states[other].state is JobState.RUNNING
    backend.cancel([other])
