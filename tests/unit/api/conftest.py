"""A small world for the API: three people, one project with movies and a run, without Scipion."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.core.cache import cache
from django.http import HttpResponseBase
from django.test import Client
from django.utils import timezone

from scipion_cloud.model import Role
from scipion_cloud.records.models import ApiToken, Desktop, Membership, Movie, Project, Run, User


@dataclass
class Caller:
    """One person at the API, with a token."""

    user: User
    token: str

    def __call__(self, method: str, path: str, body: object = None, **headers: str) -> HttpResponseBase:
        """Send a request below /api/v1."""
        headers = {"Authorization": f"Bearer {self.token}", **headers}
        data = {} if body is None else {"data": body, "content_type": "application/json"}
        return Client().generic(  # type: ignore[return-value]
            method, f"/api/v1{path}", headers=headers, **_encoded(**data)
        )

    def json(self, method: str, path: str, body: object = None, status: int = 200) -> Any:
        """Send a request that must be answered with this status; its JSON."""
        response = self(method, path, body)
        assert response.status_code == status, getattr(response, "content", b"")
        return response.json() if getattr(response, "content", b"") else None  # type: ignore[attr-defined]


def _encoded(data: object = None, content_type: str = "application/octet-stream") -> dict[str, Any]:
    return {"data": json.dumps(data) if data is not None else "", "content_type": content_type}


def person(name: str, *, administrator: bool = False) -> Caller:
    user = User.objects.create_user(name, f"{name}@example.org", f"{name}'s password", is_staff=administrator)
    return Caller(user, ApiToken.issue(user, "test"))


@pytest.fixture(autouse=True)
def quick(settings: Any) -> None:
    """WhiteNoise wants the folder that `up` fills; a slow hash protects nobody here."""
    Path(settings.STATIC_ROOT).mkdir(parents=True, exist_ok=True)
    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]


@pytest.fixture
def owner(db: None, home: Path) -> Caller:
    cache.clear()
    return person("olga")


@pytest.fixture
def viewer(db: None) -> Caller:
    return person("viktor")


@pytest.fixture
def stranger(db: None) -> Caller:
    return person("sven")


@pytest.fixture
def project(owner: Caller, viewer: Caller) -> Project:
    project = Project.objects.create(name="Ribosome", owner=owner.user)
    project.data.mkdir(parents=True)
    Membership.objects.create(project=project, user=viewer.user, role=Role.VIEWER.value)
    return project


@pytest.fixture
def run(project: Project) -> Run:
    """A run with two movies, of which one is done."""
    parameters = {"pixel_size": 1.5, "voltage": 300.0, "cs": 2.7, "amplitude_contrast": 0.1}
    run = Run.objects.create(
        project=project, tool="movie-alignment", parameters=parameters, user=project.owner
    )
    numbers = {"total": 20.0, "early": 12.0, "late": 8.0, "drift": [[0, 0], [1.5, -2]], "state": "done"}
    Movie.objects.create(run=run, index=1, name="day 1/a.tiff", stem="a", **numbers)
    Movie.objects.create(run=run, index=2, name="day 1/b.tiff", stem="b")
    return run


@pytest.fixture
def desktop(project: Project) -> Desktop:
    """A desktop that is open, as the database says."""
    deadline = timezone.now() + timedelta(hours=1)
    return Desktop.objects.create(project=project, user=project.owner, deadline=deadline)


@pytest.fixture
def bridge(monkeypatch: pytest.MonkeyPatch) -> Callable[[Exception | None], None]:
    """Stands for Scipion: makes the folder of a project, or fails halfway with the error given."""
    outcome: list[Exception | None] = [None]

    def call(op: str, project: Path, **_: object) -> dict[str, Any]:
        assert op == "create_project"
        project.mkdir(parents=True)
        (project / "project.sqlite").write_bytes(b"")
        if outcome[0]:
            raise outcome[0]
        return {}

    monkeypatch.setattr("scipion_cloud.tools.bridge.call", call)
    return lambda error: outcome.__setitem__(0, error)
