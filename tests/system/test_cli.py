"""The command line against a running portal with real Scipion: signing in, uploads through kills, runs."""

import hashlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from scipion_cloud.examples import MovieSpec, write_movies

pytestmark = pytest.mark.scipion
EMAIL, PASSWORD = "ada@example.org", "correct horse"
_SETUP = f"""
import django
django.setup()
from pathlib import Path
from django.conf import settings
from django.core.management import call_command
from scipion_cloud.records.models import User
Path(settings.STATIC_ROOT).mkdir(parents=True, exist_ok=True)
call_command("migrate", run_syncdb=True, verbosity=0)
call_command("createcachetable", verbosity=0)
User.objects.create_user("ada", {EMAIL!r}, {PASSWORD!r})
"""


@dataclass
class Portal:
    """A portal of its own; `cli` runs a command as a person in a terminal would."""

    home: Path
    port: int
    env: dict[str, str]
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        command = [
            "-m",
            "uvicorn",
            "scipion_cloud.portal.asgi:application",
            f"--port={self.port}",
            "--log-level=warning",
        ]
        self.process = subprocess.Popen([sys.executable, *command], env=self.env)
        deadline = time.monotonic() + 240
        while time.monotonic() < deadline and self.process.poll() is None:
            try:
                httpx.get(f"http://127.0.0.1:{self.port}/healthz").raise_for_status()
                return
            except httpx.HTTPError:
                time.sleep(0.1)
        raise AssertionError("the portal did not start")

    def kill(self) -> None:
        if self.process:
            self.process.kill()
            self.process.wait()

    def popen(self, *args: str) -> subprocess.Popen[str]:
        pipe = subprocess.PIPE
        command = [sys.executable, "-c", "from scipion_cloud.cli import main; main()", *args]
        return subprocess.Popen(command, env=self.env, stdin=pipe, stdout=pipe, stderr=pipe, text=True)

    def cli(self, *args: str, stdin: str = "", code: int = 0) -> str:
        """Standard output of a command that must end with this code (the error's text if it is not 0)."""
        process = self.popen(*args)
        out, err = process.communicate(stdin, timeout=480)
        assert process.returncode == code, out + err
        return out if code == 0 else err

    def json(self, *args: str, code: int = 0) -> object:
        process = self.popen(*args, "--json")
        out, err = process.communicate(timeout=480)
        assert process.returncode == code, out + err
        return json.loads(out)


@pytest.fixture
def portal(tmp_path: Path, software: Path, free_port: int) -> Iterator[Portal]:
    env = {
        **os.environ,
        "DJANGO_SETTINGS_MODULE": os.environ.get("DJANGO_SETTINGS_MODULE", "scipion_cloud.portal.settings"),
        "SCIPION_CLOUD_HOME": str(tmp_path / "home"),
        "SCIPION_CLOUD_PORT": str(free_port),
        "SCIPION_CLOUD_SOFTWARE": str(software),
        "XDG_CONFIG_HOME": str(tmp_path / "config"),
        "COLUMNS": "200",
    }
    subprocess.run([sys.executable, "-c", _SETUP], env=env, check=True)
    portal = Portal(tmp_path / "home", free_port, env)
    portal.start()
    yield portal
    portal.kill()


def sign_in(portal: Portal) -> None:
    url = f"http://127.0.0.1:{portal.port}"
    assert "Signed in" in portal.cli(
        "login", url, "--email", EMAIL, "--password-stdin", stdin=PASSWORD + "\n"
    )


def test_from_login_to_logout(portal: Portal, tmp_path: Path) -> None:
    wrong = portal.cli("login", "--email", EMAIL, "--password-stdin", stdin="guess\n", code=1)
    assert wrong == "Error: Wrong e-mail or password.\n"
    sign_in(portal)
    assert portal.cli("project", "list").startswith("No projects yet")
    made = portal.json("project", "create", "Ribosome, May", "--description", "test")
    (folder,) = (portal.home / "projects").iterdir()
    assert (folder / "project.sqlite").exists()
    assert "Ribosome, May" in portal.cli("project", "list")

    refused = portal.cli("run", "start", "Ribosome, May", "movie-alignment", "pixel_size=1.5", code=1)
    assert "no movies" in refused
    movies = tmp_path / "day 1"
    write_movies(movies, 2, MovieSpec(size=128, frames=4))
    (movies / "sub").mkdir()
    (movies / "sub" / "empty.txt").touch()
    assert "5 of 5 files" in portal.cli("upload", made["id"][:8], str(movies))
    again = portal.json("upload", "Ribosome, May", str(movies))
    assert (again["present"], again["sent"], again["failed"]) == (5, 0, {})
    for file in filter(Path.is_file, movies.rglob("*")):
        assert (folder / "data" / "day 1" / file.relative_to(movies)).read_bytes() == file.read_bytes()

    (movies / "fake.mrc").write_text("this is a text")
    portal.cli("upload", "Ribosome, May", str(movies / "fake.mrc"))
    assert "fake.mrc is a text" in portal.cli(
        "run", "start", "Ribosome, May", "movie-alignment", "pixel_size=1.5", code=1
    )
    bad = portal.cli(
        "run", "start", "Ribosome, May", "movie-alignment", "pixel_size=0", "--movies=day 1", code=1
    )
    assert "pixel_size" in bad
    values = ("pixel_size=1.5", "dose_per_frame=1.25", "voltage=300")
    run = portal.json("run", "start", "Ribosome, May", "movie-alignment", *values, "--movies", "day 1")
    assert (run["state"], run["movies"]["total"]) == ("waiting", 2)
    assert run["id"][:8] in portal.cli("run", "list", "Ribosome, May")
    assert "day 1/" in portal.cli("run", "show", "Ribosome, May", run["id"][:8])
    assert portal.json("run", "outputs", "Ribosome, May") == []
    assert portal.json("run", "cancel", "Ribosome, May")["state"] in ("cancelling", "cancelled")
    assert "run" in portal.cli("project", "delete", "Ribosome, May", "--yes", code=1)
    assert portal.cli("desktop", "list") == "No desktop is open.\n"
    assert "Signed out" in portal.cli("logout")
    assert "not signed in" in portal.cli("project", "list", code=1)


def test_an_upload_survives_a_killed_portal_and_ctrl_c(portal: Portal, tmp_path: Path) -> None:
    sign_in(portal)
    project = portal.json("project", "create", "Big")
    big = tmp_path / "big.mrc"
    with big.open("wb") as stream:
        for _ in range(1200):
            stream.write(os.urandom(1 << 20))
    (folder,) = (portal.home / "projects").iterdir()
    parts = folder / "data" / ".parts"

    def begun(least: int) -> None:
        deadline = time.monotonic() + 240
        while time.monotonic() < deadline:
            if parts.is_dir() and any(part.stat().st_size > least for part in parts.iterdir()):
                return
            time.sleep(0.002)
        raise AssertionError("the upload did not begin")

    first = portal.popen("upload", project["id"], str(big))
    begun(0)
    first.send_signal(2)
    _, err = first.communicate(timeout=480)
    assert first.returncode == 130, err
    assert "goes on from here" in err
    second = portal.popen("upload", project["id"], str(big))
    begun(sum(part.stat().st_size for part in parts.iterdir()))
    portal.kill()
    portal.start()
    out, err = second.communicate(timeout=480)
    assert second.returncode == 0, out + err
    with (folder / "data" / "big.mrc").open("rb") as there, big.open("rb") as here:
        assert hashlib.file_digest(there, "sha256").digest() == hashlib.file_digest(here, "sha256").digest()
