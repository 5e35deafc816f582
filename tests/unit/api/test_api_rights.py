"""Every address of the API against everybody. The OpenAPI document lists them: none can be forgotten."""

import json
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.test import Client

from scipion_cloud.model import Role
from scipion_cloud.portal import services
from scipion_cloud.portal.api import api
from scipion_cloud.portal.rights import project_for
from scipion_cloud.records.models import Desktop, Project, Run

GOLDEN = Path(__file__).parents[3] / "docs" / "openapi.json"
QUERIES = {"delete_data": "?path=a.mrc"}
BODIES: dict[str, Any] = {
    "login": {},
    "create_project": {"name": "x"},
    "add_member": {"email": "sven@example.org", "role": "viewer"},
    "plan_uploads": {"files": []},
    **{name: {"tool": "movie-alignment"} for name in ("start_run", "list_offers")},
    **{name: {} for name in ("open_project", "extend_project", "close_project")},
    "connect_storage": {"name": "x", "url": "sftp://x@y/z"},
}


def document() -> dict[str, Any]:
    """What /openapi.json says."""
    return json.loads(json.dumps(api.get_openapi_schema(path_prefix="/api/v1/")))


def operations() -> Iterator[tuple[str, str, str]]:
    """(name, method, path below /api/v1) of all."""
    for path, methods in document()["paths"].items():
        for method, operation in methods.items():
            name = operation["operationId"]
            yield name, method.upper(), path.removeprefix("/api/v1") + QUERIES.get(name, "")


ALL = sorted(operations())
OF_PROJECTS = [operation for operation in ALL if "{project_id}" in operation[2]]


def address(path: str, project: object, run: object, desktop: object, user: int) -> str:
    return path.format(
        project_id=project,
        run_id=run,
        desktop_id=desktop,
        user_id=user,
        index=1,
        number=1,
        storage_id=uuid.uuid4(),
        tool_id="movie-alignment",
        name="here",
    )


@pytest.fixture
def ids(owner: Any, viewer: Any, project: Project, run: Run, desktop: Desktop) -> dict[str, Any]:
    return {"project": project.id, "run": run.id, "desktop": desktop.id, "user": owner.user.pk}


@pytest.mark.parametrize(("name", "method", "path"), ALL)
def test_nobody_gets_in_without_a_sign_in(ids: dict[str, Any], name: str, method: str, path: str) -> None:
    answer = Client().generic(
        method,
        "/api/v1" + address(path, **ids),
        json.dumps(BODIES.get(name)),
        content_type="application/json",
    )
    assert answer.status_code == 401
    assert set(answer.json()) == {"detail", "errors"} or name == "login"


@pytest.mark.parametrize(("name", "method", "path"), OF_PROJECTS)
def test_a_stranger_finds_nothing(
    ids: dict[str, Any], stranger: Any, name: str, method: str, path: str
) -> None:
    here = stranger(method, address(path, **ids), BODIES.get(name))
    nowhere = stranger(method, address(path, **{**ids, "project": uuid.uuid4()}), BODIES.get(name))
    assert (here.status_code, here.content) == (404, nowhere.content)
    assert nowhere.status_code == 404


@pytest.mark.parametrize(("name", "method", "path"), [o for o in OF_PROJECTS if o[1] != "GET"])
def test_a_viewer_changes_nothing(
    ids: dict[str, Any], viewer: Any, name: str, method: str, path: str
) -> None:
    before = [list(model.objects.values()) for model in (Project, Run)]
    assert viewer(method, address(path, **ids), BODIES.get(name)).status_code == 403
    assert [list(model.objects.values()) for model in (Project, Run)] == before


@pytest.mark.parametrize(
    ("name", "method", "path"), [o for o in OF_PROJECTS if "{run_id}" in o[2] or "{desktop_id}" in o[2]]
)
def test_what_is_in_one_project_is_not_in_another(
    ids: dict[str, Any], stranger: Any, name: str, method: str, path: str
) -> None:
    own = Project.objects.create(name="Mine", owner=stranger.user)
    own.data.mkdir(parents=True)
    assert project_for(stranger.user, own.id, Role.MANAGER) == own
    answer = stranger(method, address(path, **{**ids, "project": own.id}), BODIES.get(name))
    assert answer.status_code == 404


def test_a_deleted_project_is_gone_for_its_owner(owner: Any, project: Project) -> None:
    services.delete_project(owner.user, project)
    ids = {"project": project.id, "run": uuid.uuid4(), "desktop": uuid.uuid4(), "user": owner.user.pk}
    for name, method, path in OF_PROJECTS:
        assert owner(method, address(path, **ids), BODIES.get(name)).status_code == 404, name


def test_the_published_document_is_the_stored_one(owner: Any) -> None:
    """After a wanted change: `scipion-cloud manage openapi > docs/openapi.json`."""
    published = Client().get("/api/v1/openapi.json").json()
    assert published == document() == json.loads(GOLDEN.read_text())


def test_the_document_tells_everything() -> None:
    for path, methods in document()["paths"].items():
        for method, operation in methods.items():
            where = f"{method} {path}"
            assert operation["summary"], where
            assert operation["description"], where
            assert {"401", "404", "422"} <= set(operation["responses"]), where
    for name, schema in document()["components"]["schemas"].items():
        assert schema.get("description") or schema.get("enum") or name == "JsonValue", name
    names = [operation[0] for operation in ALL]
    assert len(names) == len(set(names))
