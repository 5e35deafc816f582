"""Projects: made whole or not at all, seen by members only, deleted into the trash."""

from pathlib import Path
from typing import Any

import pytest

from scipion_cloud.config import get_config
from scipion_cloud.errors import BridgeError
from scipion_cloud.model import DesktopState, RunState
from scipion_cloud.portal import services
from scipion_cloud.records.models import Desktop, Project, Run


def test_a_project_is_made_with_its_folder(owner: Any, bridge: Any) -> None:
    made = owner.json("POST", "/projects", {"name": " Apo  ferritin ", "description": "May"}, 201)
    project = Project.objects.get(pk=made["id"])
    assert (made["name"], made["role"], made["owner"]["email"]) == (
        "Apo ferritin",
        "manager",
        "olga@example.org",
    )
    assert made["tus"] == f"/projects/{project.id}/tus"
    assert project.data.is_dir()
    assert [p["id"] for p in owner.json("GET", "/projects")] == [made["id"]]


@pytest.mark.parametrize("name", ["", "   ", "a\0b", "a\x1bb", "x" * 121])
def test_bad_names_are_refused_by_field(owner: Any, bridge: Any, name: str) -> None:
    answer = owner.json("POST", "/projects", {"name": name}, 422)
    assert set(answer["errors"]) == {"name"}
    assert not Project.objects.exists()


def test_malformed_bodies_are_refused_by_field(owner: Any) -> None:
    assert set(owner.json("POST", "/projects", {"description": 5}, 422)["errors"]) == {"name", "description"}
    assert owner.json("POST", "/projects", "x", 422)["errors"]


def test_what_scipion_refuses_leaves_nothing(owner: Any, bridge: Any) -> None:
    bridge(BridgeError("Scipion is tired."))
    assert owner.json("POST", "/projects", {"name": "x"}, 503)["detail"] == "Scipion is tired."
    assert not Project.objects.exists()
    assert not list(get_config().projects.iterdir())


def test_two_projects_may_have_one_name_but_never_one_folder(owner: Any, bridge: Any) -> None:
    for _ in range(2):
        owner.json("POST", "/projects", {"name": '../../x; rm -rf "$HOME"'}, 201)
    folders = [p.folder for p in Project.objects.all()]
    assert len(set(folders)) == 2
    assert all(set(folder) <= set("abcdefghijklmnopqrstuvwxyz0123456789-_") for folder in folders)


def test_deletion_moves_the_folder_to_the_trash(
    owner: Any, viewer: Any, project: Project, home: Path
) -> None:
    (project.data / "a.mrc").write_text("movie")
    viewer.json("DELETE", f"/projects/{project.id}", status=403)
    owner.json("DELETE", f"/projects/{project.id}", status=204)
    assert owner.json("GET", "/projects") == []
    owner.json("GET", f"/projects/{project.id}", status=404)
    (kept,) = (home / "trash").glob("*/data/a.mrc")
    assert kept.read_text() == "movie"
    assert not project.path.exists()


def test_what_is_at_work_is_not_deleted(owner: Any, project: Project, run: Run, desktop: Desktop) -> None:
    told = owner.json("DELETE", f"/projects/{project.id}", status=409)["detail"]
    assert "run" in told
    assert "desktop" in told
    Run.objects.update(state=RunState.FINISHED.value)
    assert "desktop" in owner.json("DELETE", f"/projects/{project.id}", status=409)["detail"]
    Desktop.objects.filter(pk=desktop.pk).update(state=DesktopState.STOPPED.value)
    owner.json("DELETE", f"/projects/{project.id}", status=204)


def test_members_come_change_and_go(owner: Any, viewer: Any, stranger: Any, project: Project) -> None:
    path = f"/projects/{project.id}/members"
    viewer.json("POST", path, {"email": "sven@example.org", "role": "viewer"}, 403)
    added = owner.json("POST", path, {"email": "SVEN@example.org", "role": "editor"}, 201)
    assert (added["role"], added["owner"]) == ("editor", False)
    assert owner.json("POST", path, {"email": "sven@example.org", "role": "viewer"}, 201)["role"] == "viewer"
    assert [m["email"] for m in stranger.json("GET", path)] == [
        "olga@example.org",
        "viktor@example.org",
        "sven@example.org",
    ]
    viewer.json("DELETE", f"{path}/{stranger.user.pk}", status=403)
    stranger.json("DELETE", f"{path}/{stranger.user.pk}", status=204)
    stranger.json("GET", path, status=404)
    owner.json("DELETE", f"{path}/{viewer.user.pk}", status=204)
    viewer.json("GET", path, status=404)


@pytest.mark.parametrize(
    ("email", "role"),
    [("nobody@example.org", "viewer"), ("olga@example.org", "viewer"), ("viktor@example.org", "king")],
)
def test_impossible_members(owner: Any, project: Project, email: str, role: str) -> None:
    answer = owner.json("POST", f"/projects/{project.id}/members", {"email": email, "role": role}, 422)
    assert set(answer["errors"]) == {"role" if role == "king" else "email"}


def test_an_invitation_makes_an_account_and_signs_in_once(owner: Any) -> None:
    link = services.invite(" New.Person@Example.org ", administrator=True)
    assert link.startswith(get_config().url + "/sign-in/")
    secret = link.rstrip("/").rpartition("/")[2]
    answer = owner("POST", "/login", {"link": secret})
    owner.token = answer.json()["token"]
    me = owner.json("GET", "/me")
    assert (me["email"], me["administrator"]) == ("New.Person@example.org", True)
    again = services.invite("new.person@example.org")
    assert again != link


def test_boxes_of_a_project_that_scipion_has_not_touched(owner: Any, project: Project) -> None:
    answer = owner.json("GET", f"/projects/{project.id}/protocols")
    assert answer["protocols"] == []
    assert "project.sqlite" in answer["problems"][0]
