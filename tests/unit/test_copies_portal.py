"""Copies and archives by the form and by the API: who may make what of what, and what the pages tell."""

import json
import uuid
from pathlib import Path
from typing import Any

import pytest
from django.test import Client
from django.utils import timezone

from scipion_cloud.model import Role
from scipion_cloud.portal.services import copies
from scipion_cloud.records.models import ApiToken, Membership, Preparation, Project, User

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def started(monkeypatch: pytest.MonkeyPatch) -> list[Preparation]:
    """The preparations whose jobs would have been submitted."""
    made: list[Preparation] = []
    monkeypatch.setattr(copies, "start_copying", made.append)
    return made


@pytest.fixture(autouse=True)
def quick(settings: Any) -> None:
    """A slow hash protects nobody here."""
    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]


@pytest.fixture
def olga(home: Path) -> User:
    return User.objects.create_user("olga", "olga@example.org", "x")


@pytest.fixture
def sven(home: Path) -> User:
    return User.objects.create_user("sven", "sven@example.org", "x")


@pytest.fixture
def project(olga: User) -> Project:
    project = Project.objects.create(name="Ribosome", owner=olga)
    project.data.mkdir(parents=True)
    for name in ("a.tar.gz", "b.ZIP", "movie.tiff"):
        (project.data / name).write_bytes(b"x")
    return project


def page_of(user: User) -> Client:
    client = Client()
    client.force_login(user)
    return client


def api(user: User, method: str, path: str, body: Any = None) -> Any:
    token = {"Authorization": f"Bearer {ApiToken.issue(user, 'test')}"}
    return Client().generic(
        method, f"/api/v1{path}", body and json.dumps(body), "application/json", headers=token
    )


def test_the_form_offers_what_there_is(olga: User, sven: User, project: Project) -> None:
    mine = page_of(olga).get("/new/").content.decode()
    assert f'value="{project.id}"' in mine
    assert f'value="{project.id}/a.tar.gz"' in mine
    assert f'value="{project.id}/b.ZIP"' in mine
    assert "movie.tiff" not in mine
    strangers = page_of(sven).get("/new/").content.decode()
    assert str(project.id) not in strangers
    assert "copy of another project" not in strangers


@pytest.mark.parametrize(
    ("fields", "archive"),
    [
        ({"start": "copy", "original": "{id}", "archive": "{id}/a.tar.gz"}, ""),
        ({"start": "archive", "original": "{id}", "archive": "{id}/a.tar.gz"}, "a.tar.gz"),
    ],
)
def test_the_form_makes_it(
    olga: User, project: Project, started: list[Preparation], fields: dict[str, str], archive: str
) -> None:
    form = {name: value.format(id=project.id) for name, value in fields.items()}
    client = page_of(olga)
    answer = client.post("/new/", {"name": "New", **form}, follow=True)
    new = Project.objects.get(name="New")
    assert [(p.project, p.original, p.archive) for p in started] == [(new, project, archive)]
    assert not new.is_open
    text = answer.content.decode()
    assert ("Unpacking the archive" if archive else "Copying the project") in text
    assert f"/projects/{new.id}/preparation/" in text
    assert "copying" in client.get("/").content.decode()


@pytest.mark.parametrize("start", ["copy", "archive"])
@pytest.mark.parametrize(
    "chosen", ["", "nonsense", "{other}", "{other}/a.tar.gz", "{id}/missing.zip", "{id}/"]
)
def test_the_form_refuses_in_words(
    olga: User, sven: User, project: Project, started: list[Preparation], start: str, chosen: str
) -> None:
    if start == "copy" and chosen.startswith("{id}"):
        chosen = str(uuid.uuid4())
    hidden = Project.objects.create(name="Hidden", owner=sven)
    hidden.data.mkdir(parents=True)
    (hidden.data / "a.tar.gz").write_bytes(b"x")
    value = chosen.format(id=project.id, other=hidden.id)
    form = {"name": "New", "start": start, "original": value, "archive": value}
    answer = page_of(olga).post("/new/", form)
    assert answer.status_code == 422
    assert 'role="alert"' in answer.content.decode()
    assert started == []
    assert not Project.objects.filter(name="New").exists()


def preparing(olga: User, project: Project, **fields: Any) -> Project:
    new = Project.objects.create(name="New", owner=olga)
    Preparation.objects.create(project=new, user=olga, original=project, **fields)
    return new


def test_the_page_follows_until_all_is_here(olga: User, project: Project) -> None:
    told = {"files_done": 3, "files_total": 7, "bytes_done": 10**9, "bytes_total": 4 * 10**9, "rate": 1e6}
    new = preparing(olga, project, status=told)
    client, part = page_of(olga), f"/projects/{new.id}/preparation/"
    text = client.get(part).content.decode()
    assert 'max="4000000000" value="1000000000"' in text
    assert "3 of 7 files" in text
    Preparation.objects.update(state="failed", message="The archive <is> damaged.")
    failed = client.get(part)
    assert (failed.status_code, "The archive &lt;is&gt; damaged." in failed.content.decode()) == (286, True)
    Preparation.objects.update(state="done", ended=timezone.now(), status={
        "problems": [{"path": "<b>x</b>", "text": "was left out."}], "problems_total": 1
    })  # fmt: skip
    assert client.get(part).headers["HX-Refresh"] == "true"
    new.data.mkdir(parents=True)
    page = client.get(f"/projects/{new.id}/").content.decode()
    assert "Made from the project Ribosome" in page
    assert "&lt;b&gt;x&lt;/b&gt;" in page


def test_nobody_works_in_it_before(olga: User, project: Project) -> None:
    new = preparing(olga, project)
    client = page_of(olga)
    assert client.post(f"/projects/{new.id}/desktop/open/").status_code == 409
    answers = {
        path: api(olga, "POST", f"/projects/{new.id}{path}", body).status_code
        for path, body in {
            "/runs": {"tool": "movie-alignment"},
            "/uploads/plan": {"files": []},
            "/desktops": {},
        }.items()
    }
    assert set(answers.values()) <= {404, 405, 409}, answers
    assert answers["/runs"] == 409
    assert client.get(f"/projects/{new.id}/data/").status_code == 409
    assert new.runs.count() == new.desktops.count() == 0


def test_the_api_makes_it_and_tries_again(olga: User, project: Project, started: list[Preparation]) -> None:
    made = api(olga, "POST", "/projects", {"name": "New", "clone_of": str(project.id)})
    assert made.status_code == 201
    row = made.json()
    assert (row["is_open"], row["preparation"]["state"]) == (False, "copying")
    path = f"/projects/{row['id']}/preparation/again"
    assert api(olga, "POST", path).status_code == 409
    Preparation.objects.update(state="failed", message="The disk is full.", job_id=7, attempt=2)
    assert api(olga, "GET", f"/projects/{row['id']}").json()["preparation"]["message"] == "The disk is full."
    assert api(olga, "POST", path).json()["preparation"] == {"state": "copying", "message": "", "status": {}}
    again = started[-1]
    assert (again.attempt, again.job_id) == (3, None)
    archive = {"project": str(project.id), "path": "b.ZIP"}
    assert api(olga, "POST", "/projects", {"name": "Zip", "archive": archive}).status_code == 201
    assert started[-1].archive == "b.ZIP"


def test_the_api_refuses(olga: User, sven: User, project: Project, started: list[Preparation]) -> None:
    own = str(project.id)
    cases: list[tuple[User, dict[str, Any], int]] = [
        (sven, {"clone_of": own}, 404),
        (sven, {"archive": {"project": own, "path": "a.tar.gz"}}, 404),
        (olga, {"clone_of": str(uuid.uuid4())}, 404),
        (olga, {"archive": {"project": own, "path": "missing.zip"}}, 404),
        (olga, {"archive": {"project": own, "path": "../project.sqlite"}}, 404),
        (olga, {"archive": {"project": own, "path": ""}}, 422),
        (olga, {"archive": {"project": own, "path": "movie.tiff"}}, 422),
        (olga, {"archive": {"project": own, "path": "a\0"}}, 422),
        (olga, {"clone_of": own, "archive": {"project": own, "path": "a.tar.gz"}}, 422),
        (olga, {"clone_of": own, "demo": True}, 422),
        (olga, {"clone_of": own, "generation": 1}, 422),
        (olga, {"clone_of": own, "generation": 0}, 422),
    ]
    for user, wish, status in cases:
        assert api(user, "POST", "/projects", {"name": "New", **wish}).status_code == status, wish
    assert started == []
    Membership.objects.create(project=project, user=sven, role=Role.VIEWER.value)
    assert api(sven, "POST", "/projects", {"name": "New", "clone_of": own}).status_code == 201


def test_only_its_manager_tries_again(olga: User, sven: User, project: Project) -> None:
    new = preparing(olga, project, state="failed")
    Membership.objects.create(project=new, user=sven, role=Role.EDITOR.value)
    assert page_of(sven).post(f"/projects/{new.id}/preparation/again/").status_code == 403
    page_of(olga).post(f"/projects/{new.id}/preparation/again/")
    assert Preparation.objects.get().state == "copying"


def test_the_original_has_to_be_open_to_the_one_who_tries_again(
    olga: User, sven: User, project: Project
) -> None:
    member = Membership.objects.create(project=project, user=sven, role=Role.VIEWER.value)
    new = preparing(sven, project, state="failed")
    member.delete()
    assert api(sven, "POST", f"/projects/{new.id}/preparation/again").status_code == 409
    assert Preparation.objects.get().state == "failed"
