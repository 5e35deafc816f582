"""The contract of `JobBackend` as tests. A batch system passes it by subclassing and giving a `backend`:

class TestSlurm(JobBackendContract):
    @pytest.fixture
    def backend(self): ...
"""

import os
import pickle
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from scipion_cloud.errors import JobError, NotFound
from scipion_cloud.jobs import JobBackend, JobId, JobSpec, JobState, JobStatus

ODD_TEXTS = {
    "quotes": 'it\'s "quoted" `id` $HOME',
    "spaces": "  two  spaces ",
    "newline": "one\ntwo",
    "not-utf8": os.fsdecode(b"caf\xe9 \xff"),
    "unicode": "电子 é",
    "shell": "; rm -rf . & | > x * ? \\ #",
    "dashes": "--help",
    "percent": "%s %d %%",
}

SUBMIT = """
import pickle, sys
backend, spec, key = pickle.load(sys.stdin.buffer)
print("ready", flush=True)
print(backend.submit(spec, key), flush=True)
"""


def sh(script: str, cwd: Path, **fields: Any) -> JobSpec:
    """A job that runs a line of bash."""
    return JobSpec(argv=("bash", "-c", script), cwd=cwd, **{"memory_gb": 0.1, **fields})


def wait_for(backend: JobBackend, *jobs: JobId, seconds: float = 240) -> list[JobStatus]:
    """Wait until all these jobs have ended."""
    return wait_until(backend, jobs, lambda s: s.state.is_final, seconds)


def wait_running(backend: JobBackend, *jobs: JobId, seconds: float = 240) -> list[JobStatus]:
    """Wait until all these jobs run."""
    return wait_until(backend, jobs, lambda s: s.state is JobState.RUNNING, seconds)


def wait_until(backend: JobBackend, jobs: Iterable[JobId], test: Any, seconds: float) -> list[JobStatus]:
    """Wait until the status of all these jobs passes a test."""
    deadline = time.monotonic() + seconds
    while True:
        found = backend.status(jobs)
        if all(map(test, found.values())):
            return [found[job] for job in jobs]
        assert time.monotonic() < deadline, f"still waiting for {found}"
        time.sleep(0.02)


def wait_file(path: Path, seconds: float = 120) -> str:
    """Wait until a file has a whole line; its text."""
    deadline = time.monotonic() + seconds
    while not (path.exists() and path.read_text().endswith("\n")):
        assert time.monotonic() < deadline, f"{path} does not appear"
        time.sleep(0.01)
    return path.read_text()


def is_alive(pid: int) -> bool:
    """True while a process runs; a zombie does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


def submitter(backend: JobBackend, spec: JobSpec, key: str) -> "subprocess.Popen[bytes]":
    """Another process, in its own session, that says `ready` and then submits and prints the id."""
    with tempfile.TemporaryFile() as message:
        pickle.dump((backend, spec, key), message)
        message.seek(0)
        return subprocess.Popen(
            [sys.executable, "-c", SUBMIT], stdin=message, stdout=subprocess.PIPE, start_new_session=True
        )


class JobBackendContract:
    """What every batch system does. `cpus` are all that it has: a job that takes them holds back the rest."""

    cpus = 2

    @pytest.fixture
    def backend(self) -> JobBackend:
        """The batch system under test; nothing else uses it."""
        raise NotImplementedError

    def test_success(self, backend: JobBackend, tmp_path: Path) -> None:
        (status,) = wait_for(backend, backend.submit(sh("sleep 0.1", tmp_path), "a"))
        assert (status.state, status.exit_code) == (JobState.DONE, 0)
        assert status.submitted is not None
        assert status.started is not None
        assert status.ended is not None
        assert status.submitted <= status.started < status.ended
        assert status.ended.utcoffset() is not None

    def test_failure(self, backend: JobBackend, tmp_path: Path) -> None:
        (status,) = wait_for(backend, backend.submit(sh("exit 3", tmp_path), "a"))
        assert (status.state, status.exit_code) == (JobState.FAILED, 3)
        assert "3" in status.reason

    @pytest.mark.parametrize("signal", ["KILL", "SEGV"])
    def test_death_by_signal(self, backend: JobBackend, tmp_path: Path, signal: str) -> None:
        (status,) = wait_for(backend, backend.submit(sh(f"kill -{signal} $$", tmp_path), "a"))
        assert status.state is JobState.FAILED
        assert status.exit_code == {"KILL": -9, "SEGV": -11}[signal]
        assert f"SIG{signal}" in status.reason

    def test_missing_program(self, backend: JobBackend, tmp_path: Path) -> None:
        spec = JobSpec(("no-such-program",), tmp_path, memory_gb=0.1)
        (status,) = wait_for(backend, backend.submit(spec, "a"))
        assert status.state is JobState.FAILED
        assert "no-such-program" in status.reason

    def test_missing_folder(self, backend: JobBackend, tmp_path: Path) -> None:
        (status,) = wait_for(backend, backend.submit(sh("true", tmp_path / "no-such-folder"), "a"))
        assert status.state is JobState.FAILED
        assert "no-such-folder" in status.reason

    def test_same_key_same_job(self, backend: JobBackend, tmp_path: Path) -> None:
        spec = sh("echo ran >> marks", tmp_path)
        job = backend.submit(spec, "a")
        assert job > 0
        assert backend.submit(spec, "a") == job
        wait_for(backend, job)
        assert backend.submit(spec, "a") == job
        other = backend.submit(sh("true", tmp_path), "b")
        assert other != job
        wait_for(backend, other)
        assert (tmp_path / "marks").read_text() == "ran\n"

    def test_racing_processes_make_one_job(self, backend: JobBackend, tmp_path: Path) -> None:
        spec = sh("echo ran >> marks", tmp_path)
        racers = [submitter(backend, spec, "a") for _ in range(4)]
        answers = {int(racer.communicate()[0].split()[1]) for racer in racers}
        assert len(answers) == 1
        job = JobId(answers.pop())
        assert backend.find("a") == job
        wait_for(backend, job)
        assert (tmp_path / "marks").read_text() == "ran\n"

    def test_survives_its_submitter(self, backend: JobBackend, tmp_path: Path) -> None:
        process = submitter(backend, sh("sleep 0.5; echo end > mark", tmp_path), "a")
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        job = JobId(int(process.stdout.readline()))
        os.killpg(process.pid, 9)
        process.communicate()
        (status,) = wait_for(backend, job)
        assert status.state is JobState.DONE
        assert (tmp_path / "mark").exists()

    def test_unknown_ids(self, backend: JobBackend, tmp_path: Path) -> None:
        job = backend.submit(sh("true", tmp_path), "a")
        wait_for(backend, job)
        nobody = JobId(987654)
        assert backend.status([nobody, job])[nobody] == JobStatus(JobState.UNKNOWN)
        assert not JobState.UNKNOWN.is_final
        assert backend.status([]) == {}
        assert backend.find("b") is None
        backend.cancel([nobody])
        with pytest.raises(NotFound, match="987654"):
            backend.logs(nobody)

    @pytest.mark.parametrize("text", ODD_TEXTS.values(), ids=ODD_TEXTS.keys())
    def test_odd_texts(self, backend: JobBackend, tmp_path: Path, text: str) -> None:
        cwd = tmp_path / text.replace("/", "_")
        cwd.mkdir()
        script = 'printf %s "$1" > arg; printf %s "$ODD" > env'
        spec = JobSpec(
            ("bash", "-c", script, "x", text), cwd, text, env={"ODD": text}, owner=text, memory_gb=0.1
        )
        job = backend.submit(spec, text)
        assert backend.find(text) == job
        assert backend.find(text + " ") is None
        (status,) = wait_for(backend, job)
        assert status.state is JobState.DONE, status.reason
        assert (cwd / "arg").read_bytes() == (cwd / "env").read_bytes() == os.fsencode(text)
        (info,) = backend.list()
        assert (info.id, info.name, info.owner) == (job, text, text)

    def test_environment(self, backend: JobBackend, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("SOME_SECRET", "hunter2")
        job = backend.submit(sh("env", tmp_path, env={"A": "1", "LANG": "C.UTF-8"}), "a")
        wait_for(backend, job)
        lines = backend.logs(job).stdout.splitlines()
        assert {"A=1", "LANG=C.UTF-8", f"SCIPION_CLOUD_JOB_ID={job}"} <= set(lines)
        assert f"PATH={os.environ['PATH']}" in lines
        assert not [line for line in lines if "hunter2" in line]

    def test_logs(self, backend: JobBackend, tmp_path: Path) -> None:
        job = backend.submit(sh("echo out; echo err >&2", tmp_path), "a")
        wait_for(backend, job)
        logs = backend.logs(job)
        assert (logs.stdout, logs.stderr) == ("out\n", "err\n")
        assert backend.logs(job, tail=3).stdout == "ut\n"

    def test_logs_in_given_files(self, backend: JobBackend, tmp_path: Path) -> None:
        (tmp_path / "my out").write_text("before\n")
        spec = sh("echo out; echo err >&2", tmp_path, stdout=Path("my out"), stderr=tmp_path / "my err")
        job = backend.submit(spec, "a")
        wait_for(backend, job)
        assert (tmp_path / "my out").read_text() == "before\nout\n"
        assert (tmp_path / "my err").read_text() == "err\n"
        assert backend.logs(job).stderr == "err\n"

    def test_order_of_the_queue(self, backend: JobBackend, tmp_path: Path) -> None:
        jobs = [
            backend.submit(sh(f"echo {n} >> order; sleep 0.05", tmp_path, cpus=self.cpus), f"{n}")
            for n in range(6)
        ]
        assert JobState.QUEUED in {s.state for s in backend.status(jobs).values()}
        listed = [info.id for info in backend.list() if not info.status.state.is_final]
        assert listed
        assert listed == jobs[-len(listed) :]
        wait_for(backend, *jobs)
        assert (tmp_path / "order").read_text().split() == list("012345")

    def test_many_at_once(self, backend: JobBackend, tmp_path: Path) -> None:
        jobs = [backend.submit(sh(f"exit {n % 3}", tmp_path), f"{n}") for n in range(24)]
        assert len(set(jobs)) == 24
        assert [s.exit_code for s in wait_for(backend, *jobs)] == [n % 3 for n in range(24)]
        assert {info.id for info in backend.list(limit=24)} == set(jobs)
        assert len(backend.list(limit=5)) == 5

    def test_too_big_is_refused(self, backend: JobBackend, tmp_path: Path) -> None:
        with pytest.raises(JobError, match="CPUs"):
            backend.submit(sh("true", tmp_path, cpus=100_000), "a")
        with pytest.raises(JobError, match="memory"):
            backend.submit(sh("true", tmp_path, memory_gb=1e9), "b")
        assert backend.find("a") is None

    def test_interactive_job_does_not_wait_for_a_cpu(self, backend: JobBackend, tmp_path: Path) -> None:
        first = backend.submit(sh("sleep 60", tmp_path, cpus=self.cpus), "a")
        wait_running(backend, first)
        second = backend.submit(sh("sleep 60", tmp_path, cpus=self.cpus), "b")
        desktop = backend.submit(sh("sleep 60", tmp_path, cpus=0), "c")
        wait_running(backend, desktop)
        assert backend.status([second])[second].state is JobState.QUEUED
        backend.cancel([first])
        wait_running(backend, second)  # which the open desktop does not hold back
        backend.cancel([second, desktop])

    def test_cancel_queued(self, backend: JobBackend, tmp_path: Path) -> None:
        first = backend.submit(sh("sleep 60", tmp_path, cpus=self.cpus), "a")
        second = backend.submit(sh("echo ran > mark", tmp_path), "b")
        backend.cancel([second])
        assert backend.status([second])[second].state is JobState.CANCELLED
        backend.cancel([first, second])
        assert backend.status([first])[first].state is JobState.CANCELLED
        assert not (tmp_path / "mark").exists()

    def test_cancel_ends_the_whole_tree(self, backend: JobBackend, tmp_path: Path) -> None:
        grandchild = "trap '' TERM HUP; echo $$ > grandchild; while :; do sleep 1; done"
        (tmp_path / "grandchild.sh").write_text(grandchild)
        job = backend.submit(
            sh("echo $$ > child; (setsid bash grandchild.sh &) ; sleep 1000 & wait", tmp_path), "a"
        )
        pids = [int(wait_file(tmp_path / name)) for name in ("child", "grandchild")]
        assert all(map(is_alive, pids))
        backend.cancel([job])
        assert not any(map(is_alive, pids))
        status = backend.status([job])[job]
        assert status.state is JobState.CANCELLED
        assert status.ended is not None
        backend.cancel([job])

    def test_cancel_leaves_what_has_ended(self, backend: JobBackend, tmp_path: Path) -> None:
        job = backend.submit(sh("exit 4", tmp_path), "a")
        before = wait_for(backend, job)
        backend.cancel([job])
        assert list(backend.status([job]).values()) == before

    def test_job_of_a_job_lives_on(self, backend: JobBackend, tmp_path: Path) -> None:
        inner = sh("echo $$ > inner; sleep 1; echo end > mark", tmp_path)
        message = tmp_path / "message"
        message.write_bytes(pickle.dumps((backend, inner, "inner")))
        (tmp_path / "submit.py").write_text(SUBMIT)
        outer = backend.submit(
            sh(f"{sys.executable} submit.py < message > answer; sleep 1000", tmp_path), "outer"
        )
        wait_file(tmp_path / "inner")
        backend.cancel([outer])
        job = backend.find("inner")
        assert job
        (status,) = wait_for(backend, job)
        assert status.state is JobState.DONE
        assert (tmp_path / "mark").exists()
