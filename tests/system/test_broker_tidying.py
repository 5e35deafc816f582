"""What stays at a site, and for how long: inputs go by age and by size, never those of a job that lives."""

import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from broker_site import Run, near_site, parcel, running, wait

from scipion_cloud.broker import sweeping
from scipion_cloud.broker.places import home_id, project_place
from scipion_cloud.config import Config
from scipion_cloud.jobs import JobId, JobState
from scipion_cloud.sites import state

MB = 1_000_000
DAY = 86400.0  # s


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Config]:
    config = Config(home=tmp_path / "home")
    with near_site(config, tmp_path / "area"):
        yield config


def laid(config: Config, root: Path) -> Path:
    """Where a job's folder is at the site."""
    return root.parent / "area" / project_place(config, root)


def sent(run: Run, root: Path, script: str) -> JobId:
    root.mkdir()
    (root / "input").write_bytes(b"x" * MB)
    return run.backend.submit(parcel(root, script, "input", site="near"), root.name)


def age(config: Config, root: Path, days: float) -> None:
    """As if a job's inputs had been used last so many days ago."""
    with closing(sqlite3.connect(config.home / "sites" / "near.sqlite")) as db, db:
        prefix = project_place(config, root).encode()
        changed = db.execute(
            "UPDATE inputs SET used = ? WHERE substr(path, 1, ?) = ?",
            (time.time() - days * DAY, len(prefix), prefix),
        )
        assert changed.rowcount


def test_old_inputs_go_and_the_oldest_where_there_are_too_many(
    home: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sweeping, "SOON", 0.5)
    old, older, newer, live = (tmp_path / name for name in ("old", "older", "newer", "live"))
    stranger = tmp_path / "area" / "projects" / "0000-other" / "input"  # another home's
    stranger.parent.mkdir(parents=True)
    stranger.write_bytes(b"x" * 5 * MB)
    with running(home) as run:
        script = "mkdir -p out; wc -c < input > out/size"
        ended = [run.end(job).state for job in [sent(run, root, script) for root in (old, older, newer)]]
        assert ended == [JobState.DONE] * 3
        job = sent(run, live, f"until [ -e '{tmp_path}/go' ]; do sleep 0.1; done; mkdir -p out; cp input out")
        run.until(job, lambda status: status.state is JobState.RUNNING)
        wait(
            lambda: len(list((tmp_path / "area" / "runs").glob(f"{home_id(home)}-*"))) == 1
        )  # of the live one
    for root, days in ((old, 2), (older, 3), (newer, 1), (live, 99)):
        age(home, root, days)
    monkeypatch.setattr(sweeping, "NOW_AND_THEN", 0.0)
    monkeypatch.setattr(sweeping, "KEPT_DAYS", 2.5)
    with running(home) as run:
        wait(lambda: not laid(home, older).exists())
        assert all((laid(home, root) / "input").exists() for root in (old, newer, live))
        with (home.home / "sites.toml").open("a") as file:
            file.write("max_gb = 0.0025\n")  # 2.5 MB: of three one has to go
        wait(lambda: not (laid(home, old) / "input").exists())
        wait(lambda: 0.002 < state.read(home, "near").get("used_gb", 0.0) < 0.0025)
        assert all((laid(home, root) / "input").exists() for root in (newer, live))
        (tmp_path / "go").touch()
        assert run.end(job).state is JobState.DONE
    assert (live / "out" / "input").stat().st_size == MB
    assert stranger.stat().st_size == 5 * MB
    with running(home) as run:  # what has gone is sent again
        again = run.backend.submit(parcel(older, "mkdir -p out; cp input out", "input", site="near"), "again")
        assert run.end(again).state is JobState.DONE
    assert (older / "out" / "input").stat().st_size == MB
