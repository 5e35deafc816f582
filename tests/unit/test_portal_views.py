"""Every page against everybody. The addresses themselves are the list: no new page can be forgotten."""

import os
import re
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import AnonymousUser
from django.db import OperationalError
from django.test import Client
from django.urls import URLPattern, URLResolver, get_resolver, reverse
from django.utils import timezone

from scipion_cloud.model import Role
from scipion_cloud.portal.uploads.folder import DataFolder
from scipion_cloud.records.models import ApiToken, Desktop, Membership, Movie, Project, Run, User

pytestmark = pytest.mark.django_db

OPEN = {"sign-in", "account_login", "account_logout", ""}  # to anybody; "" is healthz
READ = {  # pages that a viewer sees; all other pages of a project are for those who work in it
    *("project", "project-status", "run", "run-live", "run-log", "run-star", "movie", "movie-picture"),
    *(
        "movie-micrograph",
        "desktop",
        "desktop-state",
        "project-data",
        "project-uploads",
        "project-data-files",
    ),
    "desktop-ticket",  # to look on
    *("project-deployment", "project-expectation", "project-history"),
    "project-preparation",
    "project-remove-member",  # to leave; sending others away is tested apart
}
MANAGE = {
    *("project-settings", "project-delete", "project-add-member"),
    *("project-confirm", "project-discard"),  # what deletes
    "project-prepare-again",
}


def pages(patterns: list[Any] | None = None) -> Iterator[URLPattern]:
    """All addresses but those of the API, which has a test like this of its own."""
    for each in get_resolver().url_patterns if patterns is None else patterns:
        if not isinstance(each, URLResolver):
            yield each
        elif each.namespace != "api":
            yield from pages(each.url_patterns)


NAMES = sorted(p.name or "" for p in pages())


def parameters(name: str) -> list[str]:
    """What an address needs."""
    return list(get_resolver().reverse_dict.getlist(name)[0][0][0][1])


OF_PROJECTS = sorted(name for name in NAMES if name and "project_id" in parameters(name))
METHODS = ("GET", "POST")


@pytest.fixture
def world(home: Path, settings: Any) -> dict[str, Any]:
    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
    people = {
        name: User.objects.create_user(name, f"{name}@example.org", "x")
        for name in ("olga", "ed", "vic", "sven")
    }
    project = Project.objects.create(name="Ribosome", owner=people["olga"])
    project.data.mkdir(parents=True)
    (project.data / "a.tiff").write_bytes(b"x")
    for name, role in (("ed", Role.EDITOR), ("vic", Role.VIEWER)):
        Membership.objects.create(project=project, user=people[name], role=role.value)
    given = {"pixel_size": 1.5, "voltage": 300.0, "cs": 2.7, "amplitude_contrast": 0.1}
    run = Run.objects.create(project=project, tool="movie-alignment", parameters=given, user=people["olga"])
    Movie.objects.create(run=run, index=1, name="a.tiff", stem="a", state="done")
    return people | {"project": project, "run": run}


def client_of(user: User | AnonymousUser) -> Client:
    client = Client()
    if user.is_authenticated:
        client.force_login(user)  # type: ignore[arg-type]
    return client


def address(name: str, world: dict[str, Any], **other: object) -> str:
    values = {
        "project_id": world["project"].pk,
        "run_id": world["run"].pk,
        "index": 1,
        "kind": "thumb",
        "tool_id": "movie-alignment",
        "user_id": world["vic"].pk,
        "token_id": 1,
        "secret": "x",
        "storage_id": uuid.uuid4(),
        "kind_id": "s3",
        "generation": 1,
        "name": "here",
    } | other
    return reverse(name, kwargs={key: values[key] for key in parameters(name)})


def everything() -> list[Any]:
    """What a page could change."""
    models = (Project, Run, Movie, Desktop, Membership)
    return [list(model.objects.order_by("pk").values()) for model in models]


def test_the_list_is_whole() -> None:
    assert len(OF_PROJECTS) >= 25
    assert {"project", "run-cancel", "desktop-open", "project-data-delete"} <= set(OF_PROJECTS)
    assert set(OF_PROJECTS) >= READ | MANAGE, "a page was renamed: this test must follow"


@pytest.mark.parametrize("name", [name for name in NAMES if name not in OPEN])
def test_nobody_sees_a_page_without_a_sign_in(world: dict[str, Any], name: str) -> None:
    before = everything()
    for method in METHODS:
        answer = Client().generic(method, address(name, world))
        assert answer.status_code == 302, method
        assert answer["Location"].startswith("/accounts/login/?next="), method
    assert everything() == before


@pytest.mark.parametrize("name", OF_PROJECTS)
def test_a_stranger_finds_nothing(world: dict[str, Any], name: str) -> None:
    client, before = client_of(world["sven"]), everything()
    for method in METHODS:
        here = client.generic(method, address(name, world))
        nowhere = client.generic(method, address(name, world, project_id=uuid.uuid4()))
        assert (here.status_code, nowhere.status_code) in ((404, 404), (405, 405)), method
        hide = re.compile(rb"[A-Za-z0-9]{64}")  # the token against forgery
        assert hide.sub(b"", here.content) == hide.sub(b"", nowhere.content)
    assert everything() == before


@pytest.mark.parametrize("name", [name for name in OF_PROJECTS if name not in READ])
def test_a_viewer_changes_nothing(world: dict[str, Any], name: str) -> None:
    client, before = client_of(world["vic"]), everything()
    answers = {client.generic(method, address(name, world)).status_code for method in METHODS}
    assert answers <= {403, 405, 409}  # 409: there is nothing to stop
    assert answers & {403, 409}
    assert everything() == before
    assert (world["project"].data / "a.tiff").exists()


@pytest.mark.parametrize("name", ["desktop-extend", "desktop-stop"])
def test_a_viewer_does_not_touch_an_open_desktop(world: dict[str, Any], name: str) -> None:

    Desktop.objects.create(
        project=world["project"], user=world["olga"], state="ready", deadline=timezone.now()
    )
    before = everything()
    assert client_of(world["vic"]).post(address(name, world)).status_code == 403
    assert everything() == before


@pytest.mark.parametrize("name", sorted(MANAGE))
def test_an_editor_does_not_manage(world: dict[str, Any], name: str) -> None:
    client, before = client_of(world["ed"]), everything()
    assert (
        client.post(
            address(name, world), {"name": "x", "email": "sven@example.org", "role": "viewer"}
        ).status_code
        == 403
    )
    assert client.post(address("project-remove-member", world)).status_code == 403
    assert everything() == before


@pytest.mark.parametrize("name", [name for name in OF_PROJECTS if "run_id" in parameters(name)])
def test_a_run_of_one_project_is_not_in_another(world: dict[str, Any], name: str) -> None:
    own = Project.objects.create(name="Mine", owner=world["sven"])
    client = client_of(world["sven"])
    answers = {client.generic(m, address(name, world, project_id=own.pk)).status_code for m in METHODS}
    assert answers <= {404, 405}
    assert 404 in answers


@pytest.mark.parametrize("name", ["project-remove-member", "movie", "account-token-revoke", "people-link"])
def test_a_number_beyond_all_numbers_is_nothing_special(world: dict[str, Any], name: str) -> None:
    world["olga"].is_staff = True
    world["olga"].save()
    big = 10**30
    path = address(name, world, user_id=big, index=big, token_id=big)
    for method in METHODS:
        assert client_of(world["olga"]).generic(method, path).status_code in (302, 404, 405)


ODD = [
    b"gain\xff.mrc",
    b"mov\xfe\n'\".tiff",
    b"<script>alert(1)</script>.tiff".replace(b"/", b""),
    b"\xed\xa0\x80.mrcs",
]


@pytest.mark.parametrize("name", ["project", "project-data", "project-data-files", "project-uploads", "tool"])
def test_pages_show_whatever_names_a_desktop_made(world: dict[str, Any], name: str) -> None:
    data = os.fsencode(world["project"].data)
    for odd in ODD:
        with open(os.path.join(data, odd), "wb") as file:  # noqa: PTH118, PTH123 - names of bytes
            file.write(b"x")
    Project.objects.update(name="<b>bold</b>", description="<img src=x onerror=alert(1)>")
    answer = client_of(world["olga"]).get(address(name, world))
    assert answer.status_code == 200
    assert b"<script>alert" not in answer.content
    assert b"<b>bold" not in answer.content
    assert b"<img src=x" not in answer.content


STRANGE = ["a\0b", "x" * 3000, "..", ".", "", "/etc/passwd", "../a", "a.tiff/b", "\udc80"]


@pytest.mark.parametrize("path", STRANGE)
def test_odd_names_delete_nothing(world: dict[str, Any], path: str) -> None:
    client = client_of(world["olga"])
    body = "path=" + "".join(f"%{b:02x}" for b in path.encode(errors="surrogatepass"))
    form = "application/x-www-form-urlencoded"
    assert client.post(address("project-data-delete", world), body, content_type=form).status_code == 302
    token = {"Authorization": f"Bearer {ApiToken.issue(world['olga'], 'test')}"}
    answer = Client().delete(f"/api/v1/projects/{world['project'].pk}/data?{body}", headers=token)
    assert answer.status_code in (404, 409, 422)
    assert (world["project"].data / "a.tiff").exists()


ANNOUNCEMENTS = [
    '{"files":[{"path":"a","size":1' + "0" * 400 + "}]}",
    "[" * 100_000,
    '{"files":[{"path":"a\\ud800","size":1}]}',
    '{"files":[{"path":"a\\u0000","size":1}]}',
    '{"files":[{"path":"a","size":true}]}',
    "",
    "null",
    '{"files":7}',
]


@pytest.mark.parametrize("body", ANNOUNCEMENTS, ids=lambda body: body[:32])
def test_an_odd_announcement_is_answered_in_words(world: dict[str, Any], body: str) -> None:
    address_ = address("project-uploads-plan", world)
    answer = client_of(world["olga"]).post(address_, body, content_type="application/json")
    assert answer.status_code in (200, 422)
    told = answer.json()
    assert told.get("detail") or told["files"][0]["state"] == "refused"


def test_a_folder_that_may_not_be_changed_is_told(
    world: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "unlink", refuse)
    answer = client_of(world["olga"]).post(
        address("project-data-delete", world), {"path": "a.tiff"}, follow=True
    )
    assert "cannot be deleted: Permission denied" in answer.content.decode()


@pytest.mark.parametrize(
    ("error", "status", "words"),
    [
        (OSError(28, "No space left on device"), 507, "disk is full"),
        ("database or disk is full", 507, "disk is full"),
        ("database is locked", 503, "busy"),
        ("connection refused", 503, "does not answer"),
    ],
)
def test_troubles_of_the_machine_are_told(
    world: dict[str, Any], monkeypatch: pytest.MonkeyPatch, error: Exception | str, status: int, words: str
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OperationalError(error) if isinstance(error, str) else error

    monkeypatch.setattr(DataFolder, "scan", fail)
    client = client_of(world["olga"])
    page = client.get(address("project", world))
    api = client.get(f"/api/v1/projects/{world['project'].pk}/data")
    assert (page.status_code, api.status_code) == (status, status)
    assert words in page.content.decode()
    assert words in api.json()["detail"]
