"""The database behind the tests, and texts that one kind of it takes and the other does not."""

import json
from pathlib import Path
from typing import Any

import pytest
from django.core.management import call_command
from django.db import connection
from django.test import Client

from scipion_cloud.records.models import ApiToken, Movie, Project, Run, User

pytestmark = pytest.mark.django_db
ODD = {"nul": "a\0b", "half": "\ud800", "long": "x" * 5000, "line": "\u2028", "escape": "\x1b[31m"}


@pytest.fixture
def project(home: Path, settings: Any) -> Project:
    settings.STATIC_ROOT = home / "static"  # WhiteNoise wants the folder that `up` fills
    settings.STATIC_ROOT.mkdir()
    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
    ada = User.objects.create_user("ada", "ada@example.org", "correct horse")
    project = Project.objects.create(name="Ribosome", owner=ada)
    project.data.mkdir(parents=True)
    return project


def test_it_is_the_one_that_was_asked_for(pytestconfig: pytest.Config) -> None:
    assert connection.vendor == pytestconfig.option.database


def test_the_migrations_make_what_the_models_say() -> None:
    call_command("makemigrations", "records", "--check", "--dry-run")


@pytest.mark.parametrize("odd", ODD.values(), ids=ODD)
@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/login", {"email": "?", "password": "secret"}),
        ("/login", {"email": "ada@example.org", "password": "?"}),
        ("/login", {"email": "ada@example.org", "password": "correct horse", "name": "?"}),
        ("/login", {"link": "?"}),
        ("/projects", {"name": "?"}),
        ("/projects/{project}/members", {"email": "?", "role": "viewer"}),
        ("/projects/{project}/uploads/plan", {"files": [{"path": "?", "size": 1}]}),
        ("/projects/{project}/runs", {"tool": "?"}),
        ("/projects/{project}/runs", {"tool": "movie-alignment", "parameters": {"voltage": "?"}}),
        ("/projects/{project}/runs", {"tool": "movie-alignment", "parameters": {"?": 1}, "movies": "?"}),
    ],
)
def test_odd_text_is_refused_and_breaks_nothing(
    project: Project, odd: str, path: str, body: dict[str, Any], software: Path
) -> None:
    text = json.dumps(body).replace('"?"', json.dumps(odd))
    token = ApiToken.issue(project.owner, "test")
    answer = Client().post(
        "/api/v1" + path.format(project=project.pk),
        text,
        content_type="application/json",
        headers={"Authorization": f"Bearer {token}"},
    )
    is_kept = "name" in body and path == "/login" and odd in ("\u2028", "\x1b[31m")
    refused_by_file = path.endswith("/plan") and odd != ODD["half"]
    expected = (200,) if is_kept or refused_by_file else (401, 404, 422)
    assert answer.status_code in expected, answer.content
    if refused_by_file:
        assert [file["state"] for file in answer.json()["files"]] == ["refused"]


@pytest.mark.parametrize("odd", ODD.values(), ids=ODD)
def test_what_a_log_says_can_be_kept(project: Project, odd: str) -> None:
    run = Run.objects.create(project=project, tool="movie-alignment", parameters={}, user=project.owner)
    movie = Movie.objects.create(run=run, index=1, name="a.tiff", stem="a", message=odd)
    Run.objects.filter(pk=run.pk).update(message=odd, steps={"align": {"error": odd}})
    run.refresh_from_db()
    movie.refresh_from_db()
    kept = {"a\0b": "a\ufffdb", "\ud800": "?"}.get(odd, odd)
    assert (movie.message, run.message, run.steps) == (kept, kept, {"align": {"error": kept}})
