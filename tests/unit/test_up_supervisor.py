"""The supervisor with small real programs: restarts, clean ends, and nothing left after a crash."""

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from scipion_cloud.errors import SetupError
from scipion_cloud.provision import sessions
from scipion_cloud.provision.supervisor import ChildSpec, Supervisor, end_leftovers

SLEEPER = "import time; time.sleep(600)"
# a child with a grandchild, both deaf to SIGTERM
STUBBORN = """
import signal, subprocess, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
time.sleep(600)
"""


def marked(marker: str) -> list[int]:
    """Every living process with the marker in its environment."""
    found = []
    for process in psutil.process_iter():
        try:
            name, _, value = marker.partition("=")
            if process.environ().get(name) == value and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process.pid)
        except psutil.Error:
            continue
    return found


def wait_for(condition: Callable[[], object], within: float = 60.0) -> None:
    deadline = time.monotonic() + within
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)


def spec(folder: Path, name: str, program: str, **more: object) -> ChildSpec:
    return ChildSpec(name, [sys.executable, "-c", program], folder / f"{name}.log", **more)  # type: ignore[arg-type]


class Bench:
    """A supervisor in a folder of its own, with what it said."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.marker = f"SUPERVISOR_TEST={folder}"
        self.state = folder / "children"
        self.said: list[str] = []
        self._made: list[Supervisor] = []

    def supervisor(self, *children: ChildSpec) -> Supervisor:
        self._made.append(Supervisor(children, self.state, self.marker, self.said.append))
        return self._made[-1]

    def close(self) -> None:
        for supervisor in self._made:
            supervisor.stop()


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    bench = Bench(tmp_path)
    yield bench
    bench.close()
    assert marked(bench.marker) == []


def run_while(supervisor: Supervisor, work: Callable[[], None]) -> None:
    """`run` in this thread, which the children's lives hang on, and `work` in another."""
    failures: list[BaseException] = []

    def other() -> None:
        try:
            work()
        except BaseException as e:  # noqa: BLE001 - raised again below
            failures.append(e)
        finally:
            supervisor.request_stop()

    thread = threading.Thread(target=other)
    thread.start()
    supervisor.run()
    thread.join()
    if failures:
        raise failures[0]


def test_a_killed_child_is_started_again_and_said_so(bench: Bench, tmp_path: Path) -> None:
    supervisor = bench.supervisor(spec(tmp_path, "portal", SLEEPER), spec(tmp_path, "controller", SLEEPER))
    supervisor.start()
    first, other = supervisor.pids()["portal"], supervisor.pids()["controller"]
    assert first
    assert other

    def work() -> None:
        os.kill(first, signal.SIGKILL)
        wait_for(lambda: supervisor.pids()["portal"] not in (first, None))

    run_while(supervisor, work)
    assert supervisor.pids()["controller"] == other
    assert bench.said == ["portal ended (killed by SIGKILL); starting it again in 0.5 s"]
    supervisor.stop()
    assert marked(bench.marker) == []
    assert not bench.state.exists()


def test_each_death_in_a_row_doubles_the_delay(bench: Bench, tmp_path: Path) -> None:
    supervisor = bench.supervisor(
        spec(tmp_path, "portal", "import time; time.sleep(0.3); raise SystemExit(3)")
    )
    supervisor.start()
    run_while(supervisor, lambda: wait_for(lambda: len(bench.said) == 3))
    assert [line.rpartition(" in ")[2] for line in bench.said] == ["0.5 s", "1 s", "2 s"]
    assert "exit code 3" in bench.said[0]


def test_what_a_dead_child_had_started_ends_with_it(bench: Bench, tmp_path: Path) -> None:
    supervisor = bench.supervisor(spec(tmp_path, "controller", STUBBORN))
    supervisor.start()
    pid = supervisor.pids()["controller"]
    assert pid
    wait_for(lambda: len(list(sessions.members(pid))) == 2)

    def work() -> None:
        os.kill(pid, signal.SIGKILL)
        wait_for(lambda: not list(sessions.members(pid)))

    run_while(supervisor, work)


def test_a_stubborn_child_is_killed_with_its_whole_session(bench: Bench, tmp_path: Path) -> None:
    supervisor = bench.supervisor(spec(tmp_path, "portal", STUBBORN, stop_within=0.3))
    supervisor.start()
    wait_for(lambda: len(marked(bench.marker)) == 2)
    supervisor.stop()
    wait_for(lambda: not marked(bench.marker))  # the kernel may still be taking a killed one apart
    assert bench.said == ["portal did not stop in time and was killed"]


def test_a_child_that_fails_at_its_start_is_an_error_with_its_log(bench: Bench, tmp_path: Path) -> None:
    supervisor = bench.supervisor(
        spec(
            tmp_path,
            "portal",
            "print('no such table: records_user'); raise SystemExit(1)",
            ready=lambda: False,
        )
    )
    with pytest.raises(SetupError, match=r"portal ended at its start \(exit code 1\)[\s\S]*no such table"):
        supervisor.start()


def test_a_child_that_never_gets_ready_is_an_error(bench: Bench, tmp_path: Path) -> None:
    supervisor = bench.supervisor(spec(tmp_path, "portal", SLEEPER, ready=lambda: False, ready_within=0.3))
    with pytest.raises(SetupError, match="not ready within"):
        supervisor.start()


def test_children_die_with_a_supervisor_that_is_killed_and_the_rest_is_ended_by_the_next(
    bench: Bench, tmp_path: Path
) -> None:
    program = f"""
    import sys
    from pathlib import Path
    from scipion_cloud.provision.supervisor import ChildSpec, Supervisor
    def child(name, program):
        return ChildSpec(name, [sys.executable, "-c", program], Path({str(tmp_path)!r}) / name)
    children = [child("portal", {SLEEPER!r}), child("controller", {STUBBORN!r})]
    supervisor = Supervisor(children, Path({str(bench.state)!r}), {bench.marker!r}, print)
    supervisor.start()
    print("up", flush=True)
    supervisor.run()
    """
    up = subprocess.Popen([sys.executable, "-c", textwrap.dedent(program)], stdout=subprocess.PIPE, text=True)
    try:
        assert up.stdout
        assert up.stdout.readline() == "up\n"
        wait_for(lambda: len(marked(bench.marker)) == 3)
    finally:
        up.kill()
        up.communicate()
    wait_for(lambda: len(marked(bench.marker)) == 2)  # the well-behaved one obeyed the kernel's SIGTERM
    # a stranger that leads no session of ours is left alone, marker or not
    stranger = subprocess.Popen([sys.executable, "-c", SLEEPER], env={"SUPERVISOR_TEST": str(tmp_path)})
    assert end_leftovers(bench.state, bench.marker) == 2
    assert stranger.poll() is None
    stranger.kill()
    stranger.wait()
    wait_for(lambda: marked(bench.marker) == [])


def test_a_reused_process_id_is_not_mistaken_for_ours(bench: Bench, tmp_path: Path) -> None:
    stranger = subprocess.Popen([sys.executable, "-c", SLEEPER], start_new_session=True)
    try:
        bench.state.write_text(f"[{stranger.pid}]")
        assert end_leftovers(bench.state, bench.marker) == 0
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()


@pytest.mark.parametrize("content", ["", "[1, ", "{}", "null", '["x"]'])
def test_a_torn_state_file_stops_nothing(bench: Bench, content: str) -> None:
    bench.state.write_text(content)
    assert end_leftovers(bench.state, bench.marker) == 0


def test_a_long_log_is_put_aside(bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("scipion_cloud.provision.supervisor.LOG_LIMIT", 10)
    (tmp_path / "portal.log").write_text("what happened before\n")
    supervisor = bench.supervisor(spec(tmp_path, "portal", "print('fresh', flush=True);" + SLEEPER))
    supervisor.start()
    wait_for(lambda: (tmp_path / "portal.log").read_text() == "fresh\n")
    assert (tmp_path / "portal.log.1").read_text() == "what happened before\n"
