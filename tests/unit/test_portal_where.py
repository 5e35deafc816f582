"""Where a run computes: the choice on the form, the same in the API, and what the chain is told."""

import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from django.core.cache import cache
from django.test import Client

from scipion_cloud.config import Config
from scipion_cloud.controller.orders import away_key, order_of, prepare
from scipion_cloud.examples import MovieSpec, write_movies
from scipion_cloud.jobs import wire
from scipion_cloud.jobs.batch_system import Node
from scipion_cloud.records.models import ApiToken, Project, Run, User
from scipion_cloud.sites import state
from scipion_cloud.sites.reading import read_sites

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("software")]

SITES = """
[here]
kind = "home"
title = "This machine"

[near]
title = "Institute cluster"
area = "/scratch/sc"
software = ["relion"]
max_hours = 24
flavours = [{ name = "small", cpus = 4, memory_gb = 8, price_per_hour = 36000 }]

[bare]
area = "/scratch/sc"
"""
VALUES = {
    "pixel_size": "1.5",
    "voltage": "300",
    "cs": "2.7",
    "amplitude_contrast": "0.1",
    "dose_per_frame": "1.25",
    "threads": "2",
}


@pytest.fixture
def project(home: Path, settings: Any, tmp_path: Path) -> Project:
    """A project with two movies, which its owner sees."""
    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
    Path(settings.STATIC_ROOT).mkdir(parents=True, exist_ok=True)
    cache.clear()
    owner = User.objects.create_user("olga", "olga@example.org", "x")
    project = Project.objects.create(name="Ribosome", owner=owner)
    project.data.mkdir(parents=True)
    write_movies(tmp_path / "made", 2, MovieSpec(size=96, frames=3, pixel_size=1.5), seed=1)
    for file in (tmp_path / "made").glob("*.tif*"):
        file.replace(project.data / file.name)
    return project


@pytest.fixture
def sites(config: Config) -> Callable[..., None]:
    """Write sites.toml and what was last seen of each; home has one node, which is `busy` or not."""

    def write(*, busy: bool = False) -> None:
        (config.home / "sites.toml").write_text(SITES)
        for name, cpus in (("here", 2), ("near", 4), ("bare", 8)):
            used = 2 if busy and name == "here" else 0
            node = Node(f"{name}1", "busy" if used else "idle", cpus, used, 64.0)
            seen = {"when": datetime.now(UTC).isoformat(), "nodes": wire.encode([node]), "running": used}
            state.change(config, name, seen=seen)

    return write


@pytest.fixture
def page(project: Project) -> Callable[..., Any]:
    """The form as its owner sees it; with values, what sending it gives."""
    client = Client()
    client.force_login(project.owner)

    def ask(part: str = "", post: dict[str, str] | None = None, **values: str) -> Any:
        url = f"/projects/{project.id}/tools/movie-alignment/{part}"
        return client.get(url, values) if post is None else client.post(url, VALUES | post)

    return ask


@pytest.fixture
def api(project: Project) -> Callable[..., Any]:
    """The answer of the API to its owner, which must have this status."""
    token = ApiToken.issue(project.owner, "test")

    def ask(path: str, status: int, **body: object) -> Any:
        answer = Client().post(
            f"/api/v1/projects/{project.id}/{path}",
            json.dumps({"tool": "movie-alignment", "parameters": VALUES, **body}),
            content_type="application/json",
            headers={"Authorization": f"Bearer {token}"},
        )
        assert answer.status_code == status, answer.content
        return answer.json()

    return ask


def test_where_there_is_one_place_nobody_is_asked(page: Any, api: Any, project: Project) -> None:
    assert 'name="where"' not in page().content.decode()
    assert page("where/").content.strip() == b""
    assert api("offers", 200) == []
    assert page(post={}).status_code == 302
    assert api("runs", 201, where="here")["site"] == ""
    assert [(run.where, run.site) for run in project.runs.all()] == [("here", ""), ("automatic", "")]
    refused = api("runs", 422, where="near")["errors"]["where"]
    assert "its own machine only" in refused


def test_a_broken_sites_toml_stops_nobody_here(page: Any, api: Any, config: Config) -> None:
    (config.home / "sites.toml").write_text("[near")
    assert 'name="where"' not in page().content.decode()
    assert api("runs", 201)["site"] == ""


def test_the_form_says_why_a_site_is_offered_or_refused(page: Any, sites: Any) -> None:
    sites()
    text = " ".join(page().content.decode().split())
    assert "Institute cluster" in text
    assert "has no RELION" in text
    assert 'value="bare" disabled' in text
    assert 'value="automatic" checked' in text
    assert "This machine, where the results are back first" in text


def test_the_choice_follows_what_is_typed(page: Any, sites: Any) -> None:
    sites()
    few = page("where/", threads="3", where="near").content.decode()
    assert "has nodes of 2 CPUs; this needs 3" in few
    assert "Institute cluster, where the results are back first" in few
    assert 'value="near" checked' in few
    many = page("where/", threads="8").content.decode()
    assert "has nodes of 4 CPUs; this needs 8" in many
    assert "no site can take this run now" in many
    assert "None of the 2 movies" in page("where/", movies="nowhere").content.decode()


def test_a_site_is_checked_again_when_the_form_is_sent(
    page: Any, sites: Any, project: Project, config: Config
) -> None:
    sites()
    refused = page(post={"where": "bare"})
    assert refused.status_code == 422
    assert "bare cannot take this: it has no RELION." in refused.content.decode()
    state.drain(config, read_sites(config)["near"], "cooling is mended")
    assert "takes no new jobs: cooling is mended" in page(post={"where": "near"}).content.decode()
    assert not project.runs.exists()
    state.resume(config, read_sites(config)["near"])
    assert page(post={"where": "near"}).status_code == 302
    run = project.runs.get()
    assert (run.where, run.site) == ("near", "near")


def test_automatic_is_the_place_with_the_first_results(api: Any, sites: Any) -> None:
    sites()
    assert api("runs", 201)["site"] == ""
    sites(busy=True)
    run = api("runs", 201)
    assert (run["where"], run["site"]) == ("automatic", "near")
    nothing = api("runs", 422, parameters=VALUES | {"threads": 8})["errors"]["where"]
    assert nothing.startswith("No site can take this now.")
    assert "Institute cluster cannot take this: it has nodes of 4 CPUs" in nothing
    assert "There is no site 'moon'" in api("runs", 422, where="moon")["errors"]["where"]


def test_offers_tell_transfer_and_cost(api: Any, sites: Any) -> None:
    sites(busy=True)
    found = {offer["where"]: offer for offer in api("offers", 200)}
    assert list(found)[-1] == "bare"
    near = found["near"]
    assert near["possible"]
    assert near["bytes"] > 2 * 96 * 96 * 4  # its micrographs alone take more
    run = near["end"] - near["wait"] - near["transfer"]  # s, on half of a node of 36,000 an hour
    assert near["cost"] == pytest.approx(36000 / 2 * run / 3600)
    assert near["wait"] == 0 < near["transfer"] < near["end"]
    assert found["here"]["bytes"] == 0 < found["here"]["wait"]


def test_a_run_for_a_site_becomes_a_light_job_with_a_queue(
    api: Any, sites: Any, project: Project, config: Config
) -> None:
    sites()
    run = Run.objects.get(pk=api("runs", 201, where="near", parameters=VALUES | {"threads": 4})["id"])
    spec = prepare(config, order_of(run))
    assert (spec.cpus, spec.resumable, spec.site) == (0, True, "")
    request = json.loads(Path(spec.argv[3]).read_text())
    first, main = request["steps"]
    assert "queue" not in first
    assert main["params"]["numberOfThreads"] == 4  # though this machine may have fewer
    assert main["queue"]["name"] == "near"
    assert main["queue"]["key"] == away_key(run.pk)
    assert main["queue"]["params"]["JOB_HOURS"] == "24"
    assert 1 <= float(main["queue"]["params"]["JOB_MEMORY"]) < 2


def test_the_page_of_a_run_says_where_it_is_and_what_is_done(
    api: Any, sites: Any, project: Project, client: Client
) -> None:
    sites()
    run = Run.objects.get(pk=api("runs", 201, where="near")["id"])
    run.steps = {"align": {"phase": "sending 1.2 GB to Institute cluster, 3 min left", "run_dir": ""}}
    run.state = "running"
    run.save()
    client.force_login(project.owner)
    address = f"/projects/{project.id}/runs/{run.id}/"
    assert "Sending 1.2 GB to Institute cluster, 3 min left" in client.get(address).content.decode()
    run.state = "finished"
    run.save()
    text = client.get(address).content.decode()
    assert "Sent to Institute cluster" in text
    assert "1.2 GB" not in text
