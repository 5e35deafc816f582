"""`scipion-cloud job` as Scipion's `hosts.conf` calls it: what is printed counts, to the letter."""

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from scipion_cloud.jobs import LocalBackend

Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    home = tmp_path / "home"
    yield home
    backend = LocalBackend(home / "jobs")
    backend.cancel(info.id for info in backend.list())


@pytest.fixture
def run(home: Path, tmp_path: Path) -> Run:
    def call(*args: str, env: dict[str, str] | None = None) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [sys.executable, "-c", "from scipion_cloud.cli import main; main()", "job", *args],
            capture_output=True,
            text=True,
            cwd=tmp_path,
            env={**os.environ, "SCIPION_CLOUD_HOME": str(home), "SCIPION_CLOUD_CPUS": "2", **(env or {})},
            check=False,
        )

    return call


@pytest.fixture
def script(tmp_path: Path) -> Path:
    path = tmp_path / "my script.sh"
    path.write_text("pwd; echo $VARIABLE; echo oops >&2; exit 5\n")
    return path


def submit(run: Run, *args: str, env: dict[str, str] | None = None) -> str:
    done = run("submit", *args, env=env)
    assert re.fullmatch(r"[1-9]\d*\n", done.stdout), done
    return done.stdout.strip()


def wait(run: Run, number: str, state: str) -> None:
    deadline = time.monotonic() + 120
    while (answer := run("status", number).stdout) != f"{state}\n":
        assert time.monotonic() < deadline, answer
        time.sleep(0.05)


def test_a_job_from_submission_to_log(run: Run, script: Path, tmp_path: Path) -> None:
    number = submit(run, str(script), "--name", "mine", env={"VARIABLE": "it's set"})
    wait(run, number, "FAILED")
    done = run("log", number)
    assert done.stdout == f"{tmp_path}\nit's set\n"
    assert done.stderr == "oops\n"
    (listed,) = json.loads(run("list", "--json").stdout)
    assert (str(listed["id"]), listed["name"], listed["status"]["exit_code"]) == (number, "mine", 5)
    (state,) = json.loads(run("status", "--json", number).stdout)
    assert state["state"] == "FAILED"
    assert "mine" in run("list").stdout
    assert json.loads(run("log", "--json", number).stdout)["stderr"] == "oops\n"


def test_keys(run: Run, script: Path) -> None:
    assert submit(run, str(script)) != submit(run, str(script))
    assert submit(run, str(script), "--key", "a b") == submit(run, str(script), "--key", "a b")


def test_equal_jobs_are_one_submission(run: Run, script: Path) -> None:
    script.write_text("echo $SCIPION_CLOUD_JOB_INDEX\n")
    words = (str(script), "--key", "k", "--count", "3", "--name", "part", "--resumable")
    numbers = run("submit", *words).stdout.split()
    assert len(set(numbers)) == 3
    assert json.loads(run("submit", *words, "--json").stdout) == [{"id": int(n)} for n in numbers]
    for number, index in zip(numbers, "123", strict=True):
        wait(run, number, "DONE")
        assert run("log", number).stdout == f"{index}\n"
    assert {job["name"] for job in json.loads(run("list", "--json").stdout)} == {
        f"part ({index} of 3)" for index in "123"
    }
    assert "Only one job at a time" in run("submit", *words, "--site", "far").stderr


def test_cancel(run: Run, script: Path) -> None:
    script.write_text("sleep 1000\n")
    first, second = submit(run, str(script), "--cpus", "2"), submit(run, str(script))
    wait(run, first, "RUNNING")
    assert run("status", first, second).stdout == "RUNNING\nQUEUED\n"
    assert run("cancel", first, second).returncode == 0
    assert run("status", first, second).stdout == "CANCELLED\nCANCELLED\n"


def test_status_always_answers(run: Run, home: Path) -> None:
    for args in (["7"], ["7", "abc"], ["-1"], ["9" * 30], [""], []):
        done = run("status", *args)
        assert (done.returncode, set(done.stdout.split())) == (0, {"UNKNOWN"}), done
        assert len(done.stdout.split()) == max(1, len(args))
    (home / "jobs" / "queue.sqlite").write_bytes(b"not a database, " * 1000)
    done = run("status", "7")
    assert (done.returncode, done.stdout) == (0, "UNKNOWN\n")
    assert "cannot be used" in done.stderr
    assert "Traceback" not in done.stderr
    (home / "jobs" / "queue.sqlite").unlink()
    assert run("status", "7", env={"SCIPION_CLOUD_CPUS": "many"}).stdout == "UNKNOWN\n"


def test_a_refused_job_prints_no_number(run: Run, script: Path) -> None:
    done = run("submit", str(script), "--cpus", "100000")
    assert (done.returncode, done.stdout) == (1, "")
    assert "asks for 100000 CPUs" in done.stderr
    assert run("submit", "no such file").stdout == ""


def test_status_loads_nothing_slow(run: Run, script: Path) -> None:
    number = submit(run, str(script))
    loaded = run("status", number, env={"PYTHONPROFILEIMPORTTIME": "1"}).stderr
    assert "scipion_cloud.jobs.schedule" in loaded
    assert not re.search(r"\b(pydantic|django|numpy|rich|httpx|scipion_cloud\.config)\b", loaded)
