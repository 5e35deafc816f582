"""From a run to its job."""

import json
import os
import uuid
from dataclasses import replace
from pathlib import Path

import mrcfile
import numpy as np
import pytest

from scipion_cloud.config import Config
from scipion_cloud.controller import orders
from scipion_cloud.controller.orders import Order, prepare, read_chain, run_folder
from scipion_cloud.errors import InvalidInput
from scipion_cloud.tools.movie_alignment import TOOL


@pytest.fixture
def order(config: Config, monkeypatch: pytest.MonkeyPatch) -> Order:
    project = config.projects / "p-12345678"
    (project / "data").mkdir(parents=True)
    for name in ("it's 1.mrc", "b.mrc", "gain.mrc"):
        with mrcfile.new(project / "data" / name) as mrc:
            mrc.set_data(np.zeros((4, 64, 32), np.float32))
    monkeypatch.setattr(orders.catalogue, "tool", lambda _: TOOL)  # as without an installed Scipion
    parameters = {field.name: field.default for field in TOOL.fields} | {
        "pixel_size": 1.5,
        "threads": 10_000,
        "gain": "gain.mrc",
        "gain_rotation": "0",
        "gain_flip": "0",
    }
    movies = {"it_s_1": "it's 1.mrc", "b": "b.mrc"}
    return Order(uuid.uuid4(), TOOL.id, "Monday", "someone", project, parameters, None, movies)


def test_the_job_runs_the_chain_of_the_request_in_the_project(config: Config, order: Order) -> None:
    spec = prepare(config, order)
    assert spec.argv[:3] == (str(config.scipion_python), "-m", "scipion_cloud_em.chain")
    assert (spec.cwd, spec.name, spec.owner) == (order.project, "Monday", "someone")
    assert spec.env["SCIPION_CLOUD_HOME"] == str(config.home)
    request = json.loads(Path(spec.argv[3]).read_text())
    assert (request["key"], request["project"]) == (order.run_id.hex, str(order.project))
    assert [step["name"] for step in request["steps"]] == ["import", "align"]
    links = order.project / request["steps"][0]["params"]["filesPath"]
    assert sorted(link.name for link in links.iterdir()) == ["b.mrc", "it_s_1.mrc"]
    assert not any(os.path.isabs(os.readlink(link)) for link in links.iterdir())  # noqa: PTH115, PTH117


def test_more_threads_than_there_are_cpus_are_not_asked_for(config: Config, order: Order) -> None:
    limited = config.model_copy(update={"cpus": 1})
    spec = prepare(limited, order)
    request = json.loads(Path(spec.argv[3]).read_text())
    assert spec.cpus == request["steps"][1]["params"]["numberOfThreads"] == 1


def test_memory_grows_with_the_movies_and_stays_within_the_machine(
    config: Config, order: Order, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = prepare(config, order).memory_gb
    assert 1 < small < 1.01
    tight = config.model_copy(update={"memory_gb": 0.5})
    assert prepare(tight, order).memory_gb == 0.5


def test_preparing_again_gives_the_same_job(config: Config, order: Order) -> None:
    assert prepare(config, order) == prepare(config, order)
    assert [file.name for file in run_folder(config, order.run_id).iterdir()] == ["request.json"]


def test_a_movie_that_has_gone_is_told(config: Config, order: Order) -> None:
    with pytest.raises(InvalidInput, match=r"gone\.mrc does not exist"):
        prepare(config, replace(order, movies={"gone": "gone.mrc"}))


def test_a_chain_that_has_not_begun_has_no_state(config: Config, order: Order) -> None:
    assert read_chain(config, order.run_id) == {}
