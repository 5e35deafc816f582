"""The operators' pages of the sites, and the same through the API."""

import json
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from django.test import Client

from scipion_cloud.cluster.book import Book, Line
from scipion_cloud.cluster.history import overview
from scipion_cloud.config import Config
from scipion_cloud.jobs import JobId, JobInfo, JobState, JobStatus, wire
from scipion_cloud.jobs.batch_system import Node
from scipion_cloud.portal.elastic_view import ElasticView
from scipion_cloud.portal.site_view import SiteView, day_of_use
from scipion_cloud.records.models import ApiToken, User
from scipion_cloud.sites import looking, state
from scipion_cloud.sites.reading import read_sites

pytestmark = pytest.mark.django_db

SITES = """
[far]
title = "Far <away>"
area = "/area"
software = ["relion"]
[[far.flavours]]
name = "gpu"
cpus = 8
memory_gb = 64
gpus = 2
price_per_hour = 1.5
"""
NODES = (
    Node("n1", "busy", 8, 4, 64.0, 2),
    Node("n2", "idle", 8, 0, 64.0, 2),
    Node("n3", "down", 8, 0, 64.0, 2, "it's <broken>"),
)


@pytest.fixture
def config(home: Path, settings: Any) -> Config:
    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
    Path(settings.STATIC_ROOT).mkdir(parents=True, exist_ok=True)
    config = Config(home=home)
    (home / "sites.toml").write_text(SITES)
    now = datetime.now(UTC)
    job = JobInfo(JobId(1), "2D <b>classes</b>", "olga", 4, 1.0, JobStatus(JobState.RUNNING, started=now))
    seen = {
        "when": now.isoformat(),
        "nodes": wire.encode(NODES),
        "jobs": wire.encode([job]),
        "queued": 0,
        "running": 1,
    }
    use = [[time.time() - 600, 2, 16], [time.time(), 4, 16]]
    state.change(config, "far", seen=seen, use=use)
    return config


@pytest.fixture
def operator() -> User:
    return User.objects.create_user("op", "op@example.org", "x", is_staff=True)


@pytest.fixture
def client(operator: User) -> Client:
    client = Client()
    client.force_login(operator)
    return client


def text(client: Client, path: str, **headers: str) -> str:
    answer = client.get(path, headers=headers)
    assert answer.status_code == 200
    return answer.content.decode()


def test_the_pages_show_what_was_seen(config: Config, client: Client) -> None:
    page = text(client, "/sites/")
    assert "Far &lt;away&gt;" in page
    assert "3 nodes: 1 busy, 1 idle, 1 down" in page
    assert "<strong>4</strong>" in page
    assert "1.50 €/h" in page
    part = text(client, "/sites/", **{"HX-Request": "true"})
    assert "<html" not in part
    assert "3 nodes" in part
    page = text(client, "/sites/far/")
    assert "2D &lt;b&gt;classes&lt;/b&gt;" in page
    assert "n3: down (it&#x27;s &lt;broken&gt;)" in page
    assert "scipion-cloud site test far" in page
    assert "All nodes" not in page
    assert "All nodes" in text(client, "/sites/far/?nodes=all", **{"HX-Request": "true"})
    assert client.get("/sites/nowhere/").status_code == 404


def test_pages_ask_no_site(config: Config, client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: object) -> None:
        raise AssertionError("a page must not wait for a site")

    monkeypatch.setattr(looking, "look", never)
    monkeypatch.setattr("scipion_cloud.sites.reach.backend", never)
    assert "Far" in text(client, "/sites/")
    assert "Far" in text(client, "/sites/far/")


def test_drain_and_resume(config: Config, client: Client) -> None:
    far = read_sites(config)["far"]
    page = client.post("/sites/far/drain/", {"reason": "new  disks\nsoon"}, follow=True).content.decode()
    assert "takes no new jobs" in page
    assert "new disks soon" in page
    assert state.seen_site(far, config).drained == "new disks soon"
    assert (state.read(config, "far")["drained"])["by"] == "op@example.org"
    page = client.post("/sites/far/resume/", follow=True).content.decode()
    assert "takes jobs" in page
    assert state.seen_site(far, config).drained == ""


def test_other_people_see_and_change_nothing(config: Config) -> None:
    client = Client()
    user = User.objects.create_user("olga", "olga@example.org", "x")
    client.force_login(user)
    assert client.get("/sites/").status_code == 403
    assert client.get("/sites/far/").status_code == 403
    assert client.post("/sites/far/drain/").status_code == 403
    assert client.post("/sites/far/resume/").status_code == 403
    assert "/sites/" not in client.get("/").content.decode()
    headers = {"Authorization": f"Bearer {ApiToken.issue(user, 'test')}"}
    assert client.get("/api/v1/sites", headers=headers).status_code == 403
    answer = client.post("/api/v1/sites/far/drain", "{}", "application/json", headers=headers)
    assert answer.status_code == 403
    assert state.seen_site(read_sites(config)["far"], config).drained == ""


def test_the_api_says_the_same(config: Config, operator: User) -> None:
    client, headers = Client(), {"Authorization": f"Bearer {ApiToken.issue(operator, 'test')}"}
    here, far = client.get("/api/v1/sites", headers=headers).json()
    assert (here["name"], here["kind"]) == ("here", "home")
    assert (far["title"], far["state"], far["cpus"], far["running"]) == ("Far <away>", "ready", 16, 1)
    assert [node["state"] for node in far["nodes"]] == ["busy", "idle", "down"]
    assert "area" not in far
    body = json.dumps({"reason": "disks"})
    answer = client.post("/api/v1/sites/far/drain", body, "application/json", headers=headers)
    assert (answer.json()["state"], answer.json()["drained"]) == ("drained", "disks")
    answer = client.post("/api/v1/sites/far/resume", headers=headers)
    assert answer.json()["state"] == "ready"
    assert client.get("/api/v1/sites/nowhere", headers=headers).status_code == 404


def test_a_wrong_file_is_told(config: Config, client: Client) -> None:
    (config.home / "sites.toml").write_text("[far]\nbatch = 'pbs'\narea = '/x'")
    answer = client.get("/sites/")
    assert answer.status_code >= 400
    assert "[far] batch: it should be" in answer.content.decode().replace("&#x27;", "'")


def test_elastic_nodes(config: Config, client: Client) -> None:
    assert ElasticView.of(overview(config.home)) is None
    book, now = Book(config.home / "slurm" / "nodes.sqlite"), datetime.now(UTC)
    for hours, busy in ((8, 1), (6, 0)):
        lines = [
            Line(f"e{n}", "busy" if n < busy else "off", jobs=("a",) if n < busy else ()) for n in range(2)
        ]
        book.look(lines, {"e0": None} if busy else {}, now - timedelta(hours=hours), 0.5)
    book.tell("e0", "is <removed>", now)
    seen = ElasticView.of(overview(config.home, now=now))
    assert seen
    assert (round(seen.used, 3), round(seen.busy, 3), round(seen.saved, 3)) == (2, 2, 14)
    assert (seen.most, seen.days, round(seen.cost_saved, 3)) == (1, "8 h", 7)
    assert seen.at_work == "M0 120 L0.0 4.0 L160.0 4.0 L160.0 120.0 L640.0 120.0 L640 120Z"
    page = text(client, "/sites/here/")
    assert "is &lt;removed&gt;" in page
    assert "14.0" in page
    assert "14.0 node hours saved in 8 h" in text(client, "/sites/")


def test_a_square_is_filled_as_far_as_its_cpus_are_taken(config: Config) -> None:
    view = SiteView(state.seen_site(read_sites(config)["far"], config))
    assert [(square.top, square.filled) for square in view.squares] == [(8, 8), (16, 0), (16, 0)]
    assert view.gpus == 4


def test_the_use_of_a_day() -> None:
    assert day_of_use([]) is None
    assert day_of_use([(0, 0, 0), (300, 0, 0)]) is None
    use = day_of_use([(-90_000, 4, 4), (0, 0, 4), (43_200, 4, 4), (86_399, 2, 4)])
    assert use
    assert use.line == "M0.0 39.0 L144.0 1.0 L288.0 20.0"
    assert use.area.endswith("L288.0 40 L0.0 40Z")
