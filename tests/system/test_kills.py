"""kill -9 of each process of a running service: all is where it was, or ends with a clear message."""

import hashlib
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import psutil
import pytest

from scipion_cloud.examples import MovieSpec, write_movies
from scipion_cloud.testing.service import RunningService, start_service, stop_service

pytestmark = [pytest.mark.scipion, pytest.mark.timeout(1500)]

COUNT = 5
PARAMETERS = {"pixel_size": 1.5, "dose_per_frame": 1.25, "patch_x": 1, "patch_y": 1}


class Client:
    """The HTTP API of one service for one signed-in administrator."""

    def __init__(self, service: RunningService) -> None:
        secret = service.link.rstrip("/").rpartition("/")[2]
        token = (
            httpx.post(f"{service.url}/api/v1/login", json={"link": secret})
            .raise_for_status()
            .json()["token"]
        )
        self.http = httpx.Client(
            base_url=service.url, headers={"Authorization": f"Bearer {token}"}, timeout=60
        )

    def get(self, path: str) -> dict:
        return self.http.get(f"/api/v1{path}").raise_for_status().json()

    def post(self, path: str, **data: object) -> dict:
        return self.http.post(f"/api/v1{path}", json=data).raise_for_status().json()


def wait_for(what: Callable[[], object], timeout: float = 480) -> object:
    """Poll until `what` is true; while a service restarts its answers may fail."""
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        try:
            if value := what():
                return value
        except httpx.HTTPError:
            pass
        time.sleep(0.2)
    raise AssertionError("this did not happen in time")


def processes(home: Path, *words: str) -> list[psutil.Process]:
    """Processes of this home whose command line has all the words."""
    found = []
    for process in psutil.process_iter():
        try:
            ours = process.environ().get("SCIPION_CLOUD_HOME") == str(home)
            command = " ".join(process.cmdline())
        except psutil.Error:
            continue
        if ours and process.pid != os.getpid() and all(word in command for word in words):
            found.append(process)
    return found


@pytest.fixture(scope="module")
def movies(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return write_movies(
        tmp_path_factory.mktemp("movies"), COUNT, MovieSpec(size=768, frames=12, gain=False), seed=3
    )


@pytest.fixture
def service(tmp_path: Path) -> Iterator[RunningService]:
    service = start_service(tmp_path / "home")
    yield service
    stop_service(service)
    assert not processes(service.home), "a process was left behind"


@pytest.fixture
def client(service: RunningService) -> Iterator[Client]:
    client = Client(service)
    with client.http:
        yield client


def project_with(client: Client, folder_files: list[Path]) -> str:
    project = client.post("/projects", name="Kills")["id"]
    for file in folder_files:
        send(client, project, file)
    return project


def announce(client: Client, project: str, file: Path) -> str:
    plan = client.post(
        f"/projects/{project}/uploads/plan", files=[{"path": file.name, "size": file.stat().st_size}]
    )
    return plan["files"][0]["id"]


def send(client: Client, project: str, file: Path, start: int = 0, end: int | None = None) -> None:
    """PATCH a file, or a part of it."""
    upload = announce(client, project, file)
    headers = {
        "Tus-Resumable": "1.0.0",
        "Upload-Offset": str(start),
        "Content-Type": "application/offset+octet-stream",
    }
    address = f"/projects/{project}/tus/{upload}"
    client.http.patch(address, content=file.read_bytes()[start:end], headers=headers).raise_for_status()


def offset(client: Client, project: str, file: Path) -> int:
    address = f"/projects/{project}/tus/{announce(client, project, file)}"
    answer = client.http.head(address, headers={"Tus-Resumable": "1.0.0"}).raise_for_status()
    return int(answer.headers["Upload-Offset"])


def test_portal_killed_during_an_upload(service: RunningService, client: Client, tmp_path: Path) -> None:
    project = client.post("/projects", name="Kills")["id"]
    file = tmp_path / "big.tiff"
    file.write_bytes(os.urandom(40_000_000))
    upload = announce(client, project, file)

    def slowly() -> Iterator[bytes]:
        for at in range(0, 40_000_000, 1_000_000):
            yield file.read_bytes()[at : at + 1_000_000]
            if at == 20_000_000:
                for portal in processes(service.home, "uvicorn"):
                    portal.kill()

    headers = {
        "Tus-Resumable": "1.0.0",
        "Upload-Offset": "0",
        "Content-Type": "application/offset+octet-stream",
    }
    with pytest.raises(httpx.HTTPError):
        client.http.patch(f"/projects/{project}/tus/{upload}", content=slowly(), headers=headers)
    arrived = wait_for(lambda: offset(client, project, file))
    assert 0 < arrived < 40_000_000
    send(client, project, file, start=arrived)
    landed = next((service.home / "projects").glob("*/data/big.tiff"))
    assert hashlib.sha256(landed.read_bytes()).digest() == hashlib.sha256(file.read_bytes()).digest()


def test_everything_but_the_job_killed_during_a_run(
    service: RunningService, client: Client, movies: list[Path], tmp_path: Path
) -> None:
    project = project_with(client, movies)
    run = client.post(f"/projects/{project}/runs", tool="movie-alignment", parameters=PARAMETERS)["id"]
    wait_for(lambda: client.get(f"/projects/{project}/runs/{run}")["state"] == "running")
    wait_for(lambda: processes(service.home, "relion_run_motioncorr"))
    service.process.kill()
    service.process.wait()
    for name in ("uvicorn", "scipion_cloud.controller"):
        for process in processes(service.home, name):
            process.kill()
    assert processes(service.home, "scipion_cloud_em.chain"), "the job must survive the service"
    again = start_service(service.home, port=int(service.url.rpartition(":")[2]))
    service.process = again.process
    done = wait_for(lambda: (r := client.get(f"/projects/{project}/runs/{run}"))["state"] == "finished" and r)
    assert done["movies"]["done"] == COUNT


def test_job_killed(service: RunningService, client: Client, movies: list[Path]) -> None:
    project = project_with(client, movies)
    run = client.post(f"/projects/{project}/runs", tool="movie-alignment", parameters=PARAMETERS)["id"]
    wait_for(lambda: processes(service.home, "relion_run_motioncorr"))
    for process in processes(service.home, "scipion_cloud_em.chain"):
        process.kill()
    failed = wait_for(lambda: (r := client.get(f"/projects/{project}/runs/{run}"))["state"] == "failed" and r)
    assert "killed" in failed["message"]
    protocols = client.get(f"/projects/{project}/protocols")
    assert not [p for p in protocols["protocols"] if p["status"] in ("running", "launched")]
    again = client.post(f"/projects/{project}/runs", tool="movie-alignment", parameters=PARAMETERS)["id"]
    wait_for(lambda: client.get(f"/projects/{project}/runs/{again}")["state"] == "finished")


@pytest.mark.desktop
def test_desktop_killed(service: RunningService, client: Client) -> None:
    project = client.post("/projects", name="Kills")["id"]
    desktop = client.post(f"/projects/{project}/desktops")["id"]
    path = f"/projects/{project}/desktops/{desktop}"
    wait_for(lambda: client.get(path)["state"] == "ready")
    for server in processes(service.home, "Xtigervnc"):
        server.kill()
    ended = wait_for(lambda: (d := client.get(path))["state"] in ("failed", "stopped") and d)
    assert ended["message"]
    wait_for(lambda: not processes(service.home, "-m scipion project"))
    assert client.post(f"/projects/{project}/desktops")["id"] != desktop
