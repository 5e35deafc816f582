"""kill -9 at any instant: one job for one key, none lost, none gone and yet "running"."""

import json
import os
import pickle
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from scipion_cloud.jobs import JobId, JobSpec, JobState, Limits, LocalBackend, processes
from scipion_cloud.testing.job_backend import (
    is_alive,
    sh,
    wait_file,
    wait_for,
    wait_running,
    wait_until,
)

STUBBORN = "trap '' TERM; echo $$ > pid; while :; do sleep 1; done"


@pytest.fixture
def backend(tmp_path: Path) -> Iterator[LocalBackend]:
    backend = LocalBackend(tmp_path / "jobs", Limits(cpus=2, memory_gb=2.0))
    yield backend
    backend.cancel(info.id for info in backend.list())


def claim(backend: LocalBackend, job: JobId) -> dict[str, int]:
    """What the supervisor says of itself, once the job's program is about to start."""
    path = backend.spool / str(job) / "claim.json"
    deadline = time.monotonic() + 120
    while not path.exists():
        assert time.monotonic() < deadline
        time.sleep(0.005)
    content: dict[str, int] = json.loads(path.read_text())
    return content


def test_supervisor_killed(backend: LocalBackend, tmp_path: Path) -> None:
    (tmp_path / "stubborn.sh").write_text(STUBBORN)
    job = backend.submit(sh("(setsid bash stubborn.sh &); sleep 1000", tmp_path), "a")
    grandchild = int(wait_file(tmp_path / "pid"))
    os.kill(claim(backend, job)["pid"], signal.SIGKILL)
    (status,) = wait_for(backend, job)
    assert status.state is JobState.FAILED
    assert "killed from outside" in status.reason
    assert not is_alive(grandchild)


def test_supervisor_told_to_stop(backend: LocalBackend, tmp_path: Path) -> None:
    job = backend.submit(sh("echo $$ > pid; exec sleep 1000", tmp_path), "a")
    child = int(wait_file(tmp_path / "pid"))
    os.kill(claim(backend, job)["pid"], signal.SIGTERM)
    (status,) = wait_for(backend, job)
    assert status.state is JobState.FAILED
    assert "SIGTERM" in status.reason
    assert not is_alive(child)


def test_program_killed(backend: LocalBackend, tmp_path: Path) -> None:
    job = backend.submit(sh("echo $$ > pid; exec sleep 1000", tmp_path), "a")
    os.kill(int(wait_file(tmp_path / "pid")), signal.SIGKILL)
    (status,) = wait_for(backend, job)
    assert (status.state, status.exit_code) == (JobState.FAILED, -9)
    assert status.reason == "killed by signal 9 (SIGKILL): out of memory, or killed by hand"


def test_machine_restarted(backend: LocalBackend, tmp_path: Path) -> None:
    job = backend.submit(sh("sleep 1000", tmp_path), "a")
    pid = claim(backend, job)["pid"]
    os.kill(pid, signal.SIGSTOP)
    path = backend.spool / str(job) / "claim.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "boot": "an earlier one"}))
    os.kill(pid, signal.SIGKILL)
    (status,) = wait_for(backend, job)
    assert status.state is JobState.FAILED
    assert "machine was restarted" in status.reason


def test_frozen_supervisor_is_cancelled(backend: LocalBackend, tmp_path: Path) -> None:
    job = backend.submit(sh("sleep 1000", tmp_path), "a")
    os.kill(claim(backend, job)["pid"], signal.SIGSTOP)
    assert backend.status([job])[job].state is JobState.RUNNING
    backend.cancel([job])
    assert backend.status([job])[job].state is JobState.CANCELLED


def test_reused_pid_is_not_touched(backend: LocalBackend, tmp_path: Path) -> None:
    """Another process has the number of a dead supervisor: it is neither believed in nor killed."""
    with subprocess.Popen(["sleep", "1000"]) as innocent:
        job = backend.submit(sh("sleep 1000", tmp_path), "a")
        real = claim(backend, job)["pid"]
        path = backend.spool / str(job) / "claim.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), "pid": innocent.pid}))
        os.kill(real, signal.SIGKILL)
        backend.cancel([job])
        (status,) = wait_for(backend, job)
        assert status.state in (JobState.FAILED, JobState.CANCELLED)
        assert processes.started(innocent.pid) is not None
        assert not processes.send(innocent.pid, 1, signal.SIGKILL)
        assert innocent.poll() is None
        innocent.kill()


def test_leftovers_of_an_ended_job_are_ended(backend: LocalBackend, tmp_path: Path) -> None:
    (tmp_path / "stubborn.sh").write_text(STUBBORN)
    script = "(setsid env -i bash stubborn.sh &); while [ ! -s pid ]; do sleep 0.01; done"
    (status,) = wait_for(backend, backend.submit(sh(script, tmp_path), "a"))
    assert (status.state, status.exit_code) == (JobState.DONE, 0)
    assert not is_alive(int((tmp_path / "pid").read_text()))


def test_time_limit(backend: LocalBackend, tmp_path: Path) -> None:
    job = backend.submit(sh("echo $$ > pid; exec sleep 1000", tmp_path, hours=0.3 / 3600), "a")
    (status,) = wait_for(backend, job)
    assert status.state is JobState.FAILED
    assert "time limit" in status.reason
    assert not is_alive(int((tmp_path / "pid").read_text()))


def test_next_job_starts_without_anybody_asking(backend: LocalBackend, tmp_path: Path) -> None:
    backend.submit(sh("sleep 0.3", tmp_path, cpus=2), "a")
    backend.submit(sh("echo ran > mark", tmp_path, cpus=2), "b")
    wait_file(tmp_path / "mark")


def test_nothing_of_the_submitter_is_inherited(backend: LocalBackend, tmp_path: Path) -> None:
    with (tmp_path / "secret").open("w") as f:
        os.set_inheritable(f.fileno(), True)
        signal.signal(signal.SIGUSR2, signal.SIG_IGN)
        try:
            job = backend.submit(sh("ls -l /proc/self/fd; grep Sig[BI] /proc/self/status", tmp_path), "a")
        finally:
            signal.signal(signal.SIGUSR2, signal.SIG_DFL)
        wait_for(backend, job)
    text = backend.logs(job).stdout
    assert "secret" not in text
    assert "lock" not in text
    assert "0 -> /dev/null" in text
    assert all(int(line.split()[1], 16) == 0 for line in text.splitlines() if line.startswith("Sig"))


DIES = """
import os, pickle, sys
backend, spec, key, last = pickle.load(sys.stdin.buffer)
calls = 0
def count(frame, event, arg):
    global calls
    calls += event == "c_call"
    if calls == last:
        os.kill(os.getpid(), 9)
backend.find(key)  # loads what is loaded lazily
sys.setprofile(count)
backend.submit(spec, key)
sys.setprofile(None)
print(calls)
"""


def submit_and_die(backend: LocalBackend, spec: JobSpec, key: str, last: int) -> "subprocess.Popen[bytes]":
    """A process that submits, and kills itself just before its n-th call into C (the system, SQLite)."""
    with tempfile.TemporaryFile() as message:
        pickle.dump((backend, spec, key, last), message)
        message.seek(0)
        return subprocess.Popen([sys.executable, "-c", DIES], stdin=message, stdout=subprocess.PIPE)


def test_submitter_killed_at_any_instant(backend: LocalBackend, tmp_path: Path) -> None:
    for key in ("first", "second"):  # the first one has more to do
        calls = int(submit_and_die(backend, sh("true", tmp_path), key, -1).communicate()[0])
        wait_for(backend, *[info.id for info in backend.list()])
    instants = [1 + calls * n // 32 for n in range(30)]
    killed = 0
    for n in instants:
        dying = submit_and_die(backend, sh(f"echo {n} >> marks", tmp_path), f"{n}", n)
        dying.communicate()
        killed += dying.returncode == -signal.SIGKILL  # a busy machine's waits are calls as well
        wait_for(
            backend, *[info.id for info in backend.list()]
        )  # each finds an empty queue, as the first did
    assert killed > len(instants) / 2
    jobs = [backend.submit(sh(f"echo {n} >> marks", tmp_path), f"{n}") for n in instants]
    assert len(set(jobs)) == len(instants)
    assert {s.state for s in wait_for(backend, *jobs)} == {JobState.DONE}
    assert sorted((tmp_path / "marks").read_text().split(), key=int) == [f"{n}" for n in instants]


def supervisors(backend: LocalBackend) -> list[int]:
    """The supervisors of a spool, also those that have not yet claimed."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            argv = path.read_bytes()
        except OSError:
            continue
        if b"jobs.supervisor" in argv and os.fsencode(backend.spool) in argv:
            found.append(int(path.parent.name))
    return found


def test_supervisors_killed_at_random_instants(backend: LocalBackend, tmp_path: Path) -> None:
    jobs = []
    for n in range(30):
        jobs.append(backend.submit(sh(f"echo {n} >> marks; sleep 0.1", tmp_path), f"{n}"))
        time.sleep(random.uniform(0, 0.08))  # noqa: S311
        for pid in supervisors(backend):
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
    endings = wait_for(backend, *jobs)
    assert {s.state for s in endings} <= {JobState.DONE, JobState.FAILED}
    for status in endings:
        if status.state is JobState.FAILED:
            assert "killed from outside" in status.reason or "supervisor did not start" in status.reason
    marks = (tmp_path / "marks").read_text().split()
    assert len(marks) == len(set(marks))
    done = {f"{n}" for n, s in enumerate(endings) if s.state is JobState.DONE}
    assert done <= set(marks)


def test_supervisor_that_never_starts(
    backend: LocalBackend, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = tmp_path / "python"
    broken.write_text("#!/bin/sh\necho 'python is broken' >&2\nexit 1\n")
    broken.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(broken))
    job = backend.submit(sh("true", tmp_path), "a")
    (status,) = wait_for(backend, job)
    assert status.state is JobState.FAILED
    assert "python is broken" in status.reason


def test_folder_removed_while_running(backend: LocalBackend, tmp_path: Path) -> None:
    job = backend.submit(sh("echo $$ > pid; exec sleep 1000", tmp_path), "a")
    child = int(wait_file(tmp_path / "pid"))
    subprocess.run(["rm", "-r", backend.spool / str(job)], check=True)
    (status,) = wait_for(backend, job)
    assert status.state is JobState.FAILED
    assert "was removed" in status.reason
    assert not is_alive(child)


def test_status_does_not_wait_for_a_hung_process(backend: LocalBackend, tmp_path: Path) -> None:
    job = backend.submit(sh("sleep 1000", tmp_path), "a")
    wait_running(backend, job)
    holder = [
        sys.executable,
        "-c",
        "import fcntl, sys, time; f = open(sys.argv[1]); fcntl.flock(f, 2); "
        "print('held', flush=True); time.sleep(1000)",
        str(backend.spool / "schedule.lock"),
    ]
    with subprocess.Popen(holder, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        try:
            assert process.stdout.readline() == b"held\n"
            assert backend.status([job])[job].state is JobState.RUNNING
            late = backend.submit(sh("true", tmp_path), "b")
        finally:
            process.kill()
    wait_until(backend, [late], lambda s: s.state is JobState.DONE, 120)
