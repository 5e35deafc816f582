"""Desktops: one at a time for a project, extended and stopped; the controller does the rest."""

from datetime import datetime
from typing import Any

import pytest

from scipion_cloud.model import DesktopState
from scipion_cloud.records.models import Desktop, Project


@pytest.fixture(autouse=True)
def submitted(monkeypatch: pytest.MonkeyPatch) -> list[Desktop]:
    """The desktops whose job would have been submitted."""
    found: list[Desktop] = []
    monkeypatch.setattr("scipion_cloud.portal.services.desktops.start_desktop", found.append)
    return found


def test_a_project_has_one_desktop_at_a_time(
    owner: Any, viewer: Any, project: Project, submitted: list[Desktop]
) -> None:
    path = f"/projects/{project.id}/desktops"
    first = owner.json("POST", path, status=201)
    assert (first["state"], first["url"]) == ("starting", f"/projects/{project.id}/desktop/")
    assert [str(d.id) for d in submitted] == [first["id"]]
    assert owner.json("POST", path, status=201)["id"] == first["id"]
    assert viewer.json("GET", path) == [viewer.json("GET", f"{path}/{first['id']}")] == [first]
    assert owner.json("POST", f"{path}/{first['id']}/stop")["state"] == "starting"
    assert "just closing" in owner.json("POST", path, status=409)["detail"]
    Desktop.objects.update(state=DesktopState.STOPPED.value)
    assert owner.json("POST", path, status=201)["id"] != first["id"]
    assert len(viewer.json("GET", path)) == 2


def test_a_desktop_is_extended_while_it_is_open(owner: Any, project: Project) -> None:
    path = f"/projects/{project.id}/desktops"
    desktop = owner.json("POST", path, status=201)
    later = owner.json("POST", f"{path}/{desktop['id']}/extend")
    assert datetime.fromisoformat(later["deadline"]) > datetime.fromisoformat(desktop["deadline"])
    owner.json("POST", f"{path}/{desktop['id']}/stop")
    assert "has ended" in owner.json("POST", f"{path}/{desktop['id']}/extend", status=409)["detail"]
