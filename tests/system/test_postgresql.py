"""PostgreSQL in the place of SQLite: for all tests that touch the database, and for a whole service."""

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest

from scipion_cloud.examples import MovieSpec, write_movies
from scipion_cloud.testing.service import running_service

CHECKOUT = Path(__file__).parents[2]


@pytest.mark.postgresql
@pytest.mark.timeout(1500)
def test_what_touches_the_database_passes_on_postgresql_too() -> None:
    command = ["-m", "pytest", "--database=postgresql", "-q", "-p", "no:cacheprovider", "tests/unit"]
    done = subprocess.run(
        [sys.executable, *command], cwd=CHECKOUT, capture_output=True, text=True, check=False
    )
    print(done.stdout[-20_000:])
    assert done.returncode == 0, done.stderr[-2000:]


@pytest.mark.postgresql
@pytest.mark.scipion
def test_a_service_on_postgresql(postgresql_url: str, home: Path, software: Path, tmp_path: Path) -> None:
    environ = {**os.environ, "XDG_CONFIG_HOME": str(tmp_path / "config"), "COLUMNS": "200"}
    spec = MovieSpec(size=256, frames=6)
    write_movies(tmp_path / "movies", 2, spec)

    def ask(*words: str | Path) -> Any:
        command = [sys.executable, "-m", "scipion_cloud.cli", *words, "--json"]
        done = subprocess.run(command, env=environ, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return json.loads(done.stdout)

    with running_service(home, env={"SCIPION_CLOUD_DATABASE": postgresql_url}) as service:
        assert ask("login", "--link", service.link)["administrator"]
        ask("project", "create", "Ribosome")
        assert ask("upload", "Ribosome", tmp_path / "movies")["failed"] == {}
        values = (f"pixel_size={spec.pixel_size}", "patch_x=1", "patch_y=1", "gain=movies/gain.mrc")
        run = ask("run", "start", "Ribosome", "movie-alignment", *values, "--wait")
        assert (run["state"], run["movies"]["done"]) == ("finished", 2)
        assert not (home / "db.sqlite3").exists()
        token = json.loads((tmp_path / "config/scipion-cloud/credentials.json").read_text())
        headers = {"Authorization": f"Bearer {token[service.url]['token']}"}

        def look(_: int) -> int:
            return httpx.get(f"{service.url}/api/v1/projects", headers=headers, timeout=60).status_code

        with ThreadPoolExecutor(20) as pool:
            assert set(pool.map(look, range(200))) == {200}
        with psycopg.connect(postgresql_url) as connection:
            rows = connection.execute("SELECT state FROM records_run").fetchall()
            ours = connection.execute("SELECT count(*) FROM pg_stat_activity WHERE datname IS NOT NULL")
            (connections,) = ours.fetchone() or (0,)
    print(f"connections after 200 requests, 20 at a time: {connections}")
    assert rows == [("finished",)]
    assert connections < 10
