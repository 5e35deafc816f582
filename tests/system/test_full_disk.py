"""A home whose disk fills up: everybody is told so, nothing is left half made, and space is all it takes."""

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from scipion_site import write_movie

from scipion_cloud.testing.disks import full, small_disk
from scipion_cloud.testing.service import RunningService, running_service

pytestmark = [pytest.mark.scipion, pytest.mark.timeout(240), pytest.mark.usefixtures("software")]
FINAL = ("finished", "failed", "cancelled")


def signed_in(service: RunningService) -> httpx.Client:
    secret = service.link.strip("/").rpartition("/")[2]
    token = httpx.post(f"{service.url}/api/v1/login", json={"link": secret}).json()["token"]
    headers = {"Authorization": f"Bearer {token}"}
    return httpx.Client(base_url=f"{service.url}/api/v1", headers=headers, timeout=60)


def wait(read: Callable[[], Any], good: Callable[[Any], bool], seconds: float = 360) -> Any:
    deadline = time.monotonic() + seconds
    while not good(value := read()):
        assert time.monotonic() < deadline, value
        time.sleep(0.3)
    return value


if os.geteuid() == 0:  # only root may mount

    def test_a_full_disk_is_told_and_leaves_nothing_half(tmp_path: Path) -> None:
        with small_disk(tmp_path / "home", 64) as home, running_service(home) as service:
            with signed_in(service) as api:
                _project_and_run(api, home)
            assert "Traceback" not in (home / "logs" / "controller.log").read_text()

    def _project_and_run(api: httpx.Client, home: Path) -> None:
        project = api.post("/projects", json={"name": "Small"}).json()["id"]
        (folder,) = (home / "projects").iterdir()
        for number in range(2):
            write_movie(folder / "data" / f"m{number}.tif", number)
        order = {"tool": "movie-alignment", "parameters": {"pixel_size": 1.5, "dose_per_frame": 1.0}}
        with full(home):
            refused = [
                api.post("/projects", json={"name": "More"}),
                api.post(f"/projects/{project}/runs", json=order),
                api.post(f"/projects/{project}/desktops"),
                api.delete(f"/projects/{project}"),
            ]
            for answer in refused:
                assert answer.status_code in (503, 507)
                assert "disk is full" in answer.json()["detail"]
            assert [p["id"] for p in api.get("/projects").json()] == [project]
            assert [p.name for p in (home / "projects").iterdir()] == [folder.name]
        assert api.get(f"/projects/{project}/runs").json() == []
        runs = [api.post(f"/projects/{project}/runs", json=order).json()["id"]]
        with full(home):
            time.sleep(4)  # the controller and the job, if there is one, meet it in the middle of their work
        runs.append(api.post(f"/projects/{project}/runs", json=order).json()["id"])
        ends = [
            wait(lambda: api.get(f"/projects/{project}/runs/{run}").json(), lambda r: r["state"] in FINAL)  # noqa: B023
            for run in runs
        ]
        assert ends[0]["state"] == "finished" or "disk is full" in ends[0]["message"], ends[0]
        assert ends[1]["state"] == "finished", ends[1]
