"""Jobs that their site has forgotten, or that cannot be asked for: lost is what is proven to be."""

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from broker_site import Run, near_site, parcel, running, wait

from scipion_cloud.broker import there, trip
from scipion_cloud.config import Config
from scipion_cloud.jobs import JobId, JobState, LocalBackend
from scipion_cloud.jobs.remote import RemoteBackend
from scipion_cloud.sites import reach
from scipion_cloud.testing.offload import far_site

SCRIPT = """
mkdir '{work}/at work' || echo two >> '{work}/overlaps'
[ "$(ls out)" = input ] || echo begins with $(ls out) >> '{work}/mixed'
mkdir -p out; echo part > out/part; echo changed > out/input
echo began >> '{work}/ledger'
for n in $(seq 3000); do [ -e '{work}/go' ] && break; sleep 0.1; done
[ "$(cat out/*)" = "$(printf 'changed\npart')" ] || echo ends with $(ls out) >> '{work}/mixed'
rmdir '{work}/at work'
ls out > out/seen
"""


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Run]:
    monkeypatch.setattr(trip, "LOST_AFTER", 1.0)
    config = Config(home=tmp_path / "home")
    with near_site(config, tmp_path / "area"), running(config) as run:
        yield run


def attempt(run: Run, job: JobId) -> int:
    """Which attempt at a job is the present one."""
    found: int = json.loads((run.config.jobs / str(job) / "away.json").read_text())["attempt"]
    return found


def start(run: Run, work: Path, *, resumable: bool) -> JobId:
    """A job that is at work in a folder that was sent with something in it."""
    (work / "p" / "out").mkdir(parents=True)
    (work / "p" / "out" / "input").write_text("as sent\n")
    job = run.backend.submit(
        parcel(work / "p", SCRIPT.format(work=work), site="near", resumable=resumable), "job"
    )
    run.until(job, lambda status: status.state is JobState.RUNNING)
    wait((work / "ledger").exists)
    return job


def test_a_lost_job_that_still_works_is_waited_for(run: Run, tmp_path: Path) -> None:
    job = start(run, tmp_path, resumable=True)
    (tmp_path / "area" / "jobs" / "queue.sqlite").unlink()
    start_again = tmp_path / "area" / "runs" / f"{home(run)}-{job}-2"
    run.until(job, lambda status: start_again.exists() and status.state is JobState.RUNNING)
    wait(
        lambda: (
            "Waiting: another job still works in"
            in LocalBackend(tmp_path / "area" / "jobs").logs(newest(tmp_path / "area")).stderr
        )
    )
    assert (tmp_path / "ledger").read_text().split() == ["began"]  # the second one has not begun
    folder = next((tmp_path / "area" / "projects").iterdir()) / "out"
    assert (folder / "input").read_text() == "changed\n"  # and nothing of it is where the first one works
    (tmp_path / "go").touch()
    assert run.end(job).state is JobState.DONE
    assert (tmp_path / "ledger").read_text().split() == ["began", "began"]
    assert not (tmp_path / "overlaps").exists()
    assert not (tmp_path / "mixed").exists(), (tmp_path / "mixed").read_text()
    assert (tmp_path / "p" / "out" / "seen").read_text().split() == ["input", "part", "seen"]


def test_a_lost_job_that_begins_after_its_successor_changes_nothing(tmp_path: Path) -> None:
    area = tmp_path / "area"
    folders = [area / "runs" / f"h-7-{attempt}" for attempt in (1, 2)]
    for attempt, folder in enumerate(folders, 1):
        (folder / "run").mkdir(parents=True)
        (folder / "run" / "sent").write_text(f"{attempt}")
        shutil.copy(there.__file__, folder / "there.py")
        argv = ["sh", "-c", "cat out/sent >> out/result"]
        order = {"root": "p", "run": "out", "turn": [7, attempt], "cwd": "p", "argv": argv, "scipion": None}
        (folder / "order.json").write_text(json.dumps({**order, "links": {}, "folders": []}))
    first, second = ([sys.executable, str(folder / "there.py")] for folder in folders)
    assert subprocess.run(second, timeout=60).returncode == 0
    late = subprocess.run(first, timeout=60, capture_output=True, text=True)
    assert (late.returncode, "This job was given up" in late.stderr) == (1, True)
    assert (area / "p" / "out" / "result").read_text() == "2"
    assert subprocess.run(second, timeout=60).returncode == 0  # its batch system starts it again: it goes on
    assert (area / "p" / "out" / "result").read_text() == "22"


def test_one_that_cannot_go_on_fails_with_the_reason(run: Run, tmp_path: Path) -> None:
    job = start(run, tmp_path, resumable=False)
    (tmp_path / "area" / "jobs" / "queue.sqlite").unlink()
    status = run.end(job)
    (tmp_path / "go").touch()
    assert (status.state, attempt(run, job)) == (JobState.FAILED, 1)
    assert status.reason.startswith("Near by has lost the job: its queue does not know it any more.")
    wait(lambda: not (tmp_path / "at work").exists())
    assert (tmp_path / "ledger").read_text().split() == ["began"]


def test_a_resumable_job_is_sent_again_but_not_for_ever(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trip, "ATTEMPTS", 2)
    job = start(run, tmp_path, resumable=True)
    queue = LocalBackend(tmp_path / "area" / "jobs")
    for n in (1, 2):
        wait(lambda: attempt(run, job) == n and (tmp_path / "at work").exists())  # noqa: B023
        assert queue.find(f"{home(run)}:{job}:{n}") is not None
        queue.cancel([info.id for info in queue.list()])
        (tmp_path / "at work").rmdir()
        (queue.spool / "queue.sqlite").unlink()
    status = run.end(job)
    assert status.state is JobState.FAILED
    assert status.reason.startswith("Near by has lost the job")
    assert (tmp_path / "ledger").read_text().split() == ["began", "began"]
    assert not (tmp_path / "overlaps").exists()


def test_a_silent_site_has_lost_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trip, "LOST_AFTER", 0.0)
    monkeypatch.setattr(
        reach, "backend", lambda site, config: RemoteBackend(reach.channel(site, config), 2.0)
    )
    config = Config(home=tmp_path / "home")
    with far_site(tmp_path / "far", config) as far, running(config) as run:
        job = run.backend.submit(parcel(tmp_path / "p", SCRIPT.format(work=tmp_path), resumable=True), "job")
        run.until(job, lambda status: status.state is JobState.RUNNING)
        far.proxy.refuse()
        far.proxy.cut()
        try:
            status = run.until(job, lambda status: "Tried again since" in status.reason)
            (tmp_path / "go").touch()
        finally:
            far.proxy.heal()
        assert status.state is JobState.RUNNING  # as far as is known
        assert run.end(job).state is JobState.DONE
        assert attempt(run, job) == 1
    assert (tmp_path / "ledger").read_text().split() == ["began"]


def home(run: Run) -> str:
    """This home, as sites know it."""
    return (run.config.home / "home-id").read_text()


def newest(area: Path) -> JobId:
    """The last job that a site got."""
    return max(info.id for info in LocalBackend(area / "jobs").list())
