"""The contract of `JobBackend` as tests. A batch system passes it by subclassing and giving a `backend`:

class TestSlurm(JobBackendContract):
    @pytest.fixture
    def backend(self): ...
"""

import contextlib
import os
import pickle
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from scipion_cloud.errors import JobRefused, NotFound
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


def working_in(folder: Path) -> list[int]:
    """The processes that have this as their working folder."""
    found = []
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if entry.name.isdecimal() and (entry / "cwd").readlink() == folder:
                found.append(int(entry.name))
    return found


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
    """What every batch system does. CPUs, memory and GPUs are all that it has, on one node."""

    cpus = 2
    memory_gb = 2.0
    gpus = 2
    tells_gpus = True  # jobs see in CUDA_VISIBLE_DEVICES which GPUs are theirs

    @pytest.fixture
    def backend(self) -> JobBackend:
        """The batch system under test; nothing else uses it."""
        raise NotImplementedError

    def test_endings(self, backend: JobBackend, tmp_path: Path) -> None:
        scripts = ("sleep 0.1", "exit 3", "kill -KILL $$", "kill -SEGV $$")
        specs = [
            *(sh(script, tmp_path) for script in scripts),
            JobSpec(("no-such-program",), tmp_path, memory_gb=0.1),
            sh("true", tmp_path / "no-such-folder"),
            sh("sleep 1000", tmp_path, hours=0.5 / 3600),
        ]
        jobs = [backend.submit(spec, f"{n}") for n, spec in enumerate(specs)]
        done, three, killed, crashed, program, folder, late = wait_for(backend, *jobs)
        assert (done.state, done.exit_code, done.reason) == (JobState.DONE, 0, "")
        assert done.submitted is not None
        assert done.started is not None
        assert done.ended is not None
        assert done.submitted <= done.started < done.ended
        assert done.ended.utcoffset() is not None
        for status, code, word in (
            (three, 3, "3"),
            (killed, -9, "SIGKILL"),
            (crashed, -11, "SIGSEGV"),
            (program, None, "no-such-program"),
            (folder, None, "no-such-folder"),
            (late, -15, "time limit"),
        ):
            assert (status.state, status.exit_code) == (JobState.FAILED, code)
            assert word in status.reason

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

    def test_odd_texts(self, backend: JobBackend, tmp_path: Path) -> None:
        script = 'printf %s "$1" > arg; printf %s "$ODD" > env'
        jobs = {}
        for text in ODD_TEXTS.values():
            cwd = tmp_path / text.replace("/", "_")
            cwd.mkdir()
            argv = ("bash", "-c", script, "x", text)
            spec = JobSpec(argv, cwd, text, env={"ODD": text}, owner=text, memory_gb=0.1)
            jobs[text] = backend.submit(spec, text)
            assert backend.find(text) == jobs[text]
            assert backend.find(text + " ") is None
        for status in wait_for(backend, *jobs.values()):
            assert status.state is JobState.DONE, status.reason
        listed = {info.id: info for info in backend.list()}
        for text, job in jobs.items():
            cwd = tmp_path / text.replace("/", "_")
            assert (cwd / "arg").read_bytes() == (cwd / "env").read_bytes() == os.fsencode(text)
            assert (listed[job].name, listed[job].owner) == (text, text)

    def test_environment(self, backend: JobBackend, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        with monkeypatch.context() as patch:
            patch.setenv("SOME_SECRET", "hunter2")
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
            for n in range(4)
        ]
        assert JobState.QUEUED in {s.state for s in backend.status(jobs).values()}
        listed = [info.id for info in backend.list() if not info.status.state.is_final]
        assert listed
        assert listed == jobs[-len(listed) :]
        wait_for(backend, *jobs)
        assert (tmp_path / "order").read_text().split() == list("0123")

    def test_many_at_once(self, backend: JobBackend, tmp_path: Path) -> None:
        """Equal ones and others, in one call; the second time all of them are known."""
        jobs = [(sh(f"exit {n % 3}", tmp_path), f"{n}") for n in range(12)]
        jobs.insert(5, (sh("exit 5", tmp_path, memory_gb=0.2), "other"))
        known = backend.submit(*jobs[2])
        ids = backend.submit_all(jobs)
        assert len(set(ids)) == 13
        assert ids[2] == known
        assert backend.submit_all(jobs) == ids
        assert [backend.find(key) for _, key in jobs] == ids
        codes = [status.exit_code for status in wait_for(backend, *ids)]
        assert codes == [0, 1, 2, 0, 1, 5, 2, 0, 1, 2, 0, 1, 2]
        assert {info.id for info in backend.list(limit=13)} == set(ids)
        assert len(backend.list(limit=5)) == 5

    def test_too_big_is_refused(self, backend: JobBackend, tmp_path: Path) -> None:
        too_much: tuple[tuple[dict[str, Any], str], ...] = (
            ({"cpus": 100_000}, "CPUs"),
            ({"memory_gb": 1e9}, "memory"),
            ({"gpus": self.gpus + 1}, "GPUs"),
        )
        for fields, word in too_much:
            with pytest.raises(JobRefused, match=word):
                backend.submit(sh("true", tmp_path, **fields), "a")
            with pytest.raises(JobRefused, match=word):
                backend.submit_all([(sh("true", tmp_path), "b"), (sh("true", tmp_path, **fields), "c")])
        assert backend.find("a") is None
        assert backend.find("c") is None

    def test_what_is_asked_for_is_set_aside(self, backend: JobBackend, tmp_path: Path) -> None:
        """A second one has to wait when the first has taken the tasks' CPUs, most of the memory, or a GPU."""
        asked: tuple[dict[str, Any], ...] = (
            {"tasks": self.cpus},
            {"memory_gb": 0.6 * self.memory_gb},
            *([{"gpus": self.gpus}] if self.gpus else []),
        )
        for n, fields in enumerate(asked):
            specs = [sh(f"echo > '{n} {m}'; sleep 1000", tmp_path, **fields) for m in range(2)]
            first, second = backend.submit_all([(spec, f"{n} {m}") for m, spec in enumerate(specs)])
            wait_file(tmp_path / f"{n} 0")  # it counts as running before its program does anything
            assert backend.status([second])[second].state is JobState.QUEUED
            backend.cancel([second, first])
            assert not (tmp_path / f"{n} 1").exists()

    def test_jobs_at_a_time_have_different_gpus(self, backend: JobBackend, tmp_path: Path) -> None:
        together = min(self.cpus, self.gpus)
        script = "echo $CUDA_VISIBLE_DEVICES > {}; sleep 1000"
        specs = [sh(script.format(n), tmp_path, gpus=1) for n in range(together)]
        jobs = backend.submit_all([(spec, f"{n}") for n, spec in enumerate(specs)])
        given = {wait_file(tmp_path / f"{n}").strip() for n in range(together)}
        backend.cancel(jobs)
        if self.tells_gpus:
            assert given <= {f"{n}" for n in range(self.gpus)}
            assert len(given) == together

    def test_lost_with_its_machine(self, backend: JobBackend, tmp_path: Path) -> None:
        """Killed with all that looks after it, a job is started again if it can go on by itself.

        Never beside what the first start has left there.
        """
        (tmp_path / "again").mkdir()
        script = "echo ran >> {0}; [ $(wc -l < {0}) = 1 ] && kill -9 $PPID && sleep 1000"
        gone, goes_on = backend.submit_all(
            [
                (sh(script.format("gone"), tmp_path), "gone"),
                (sh(f"{script.format('on')}; true", tmp_path / "again", resumable=True), "on"),
            ]
        )
        lost, done = wait_for(backend, gone, goes_on)
        assert (lost.state, done.state) == (JobState.FAILED, JobState.DONE)
        assert "again" in lost.reason
        assert (tmp_path / "gone").read_text() == "ran\n"
        assert (tmp_path / "again" / "on").read_text() == "ran\nran\n"
        assert not working_in(tmp_path / "again")
        for pid in working_in(tmp_path):  # no batch system sees what lost its parents
            os.kill(pid, signal.SIGKILL)

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

    def test_cancel_gives_the_time_that_a_job_asks_for(self, backend: JobBackend, tmp_path: Path) -> None:
        saving = "trap 'sleep 3; echo saved > mark; exit 0' TERM; echo > ready; while :; do sleep 0.1; done"
        job = backend.submit(replace(sh(saving, tmp_path), grace=120), "a")
        wait_file(tmp_path / "ready")
        backend.cancel([job])
        assert (tmp_path / "mark").read_text() == "saved\n"
        assert backend.status([job])[job].state is JobState.CANCELLED

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
