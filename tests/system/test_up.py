"""`scipion-cloud up` as a person runs it: start, stop, start again, and what goes wrong at a start."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import psutil
import pytest

from scipion_cloud.testing.service import RunningService, start_service, stop_service


def ours(home: Path, *words: str) -> list[psutil.Process]:
    """Living processes of a home whose command line has all the words."""
    found = []
    for process in psutil.process_iter():
        try:
            command = " ".join(process.cmdline())
            of_home = process.environ().get("SCIPION_CLOUD_HOME") == str(home) and process.pid != os.getpid()
            if of_home and all(word in command for word in words):
                found.append(process)
        except psutil.Error:
            continue
    return found


def wait_for(condition: Callable[[], object], within: float = 120.0) -> None:
    deadline = time.monotonic() + within
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.05)


def healthy(service: RunningService) -> bool:
    return httpx.get(f"{service.url}/healthz", timeout=30).status_code == 200


@pytest.fixture
def service(home: Path) -> Iterator[RunningService]:
    service = start_service(home)
    yield service
    stop_service(service)
    assert ours(home) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_stops_everything_and_the_next_start_takes_seconds(
    home: Path, number: signal.Signals
) -> None:
    stop_service(start_service(home))
    began = time.monotonic()
    service = start_service(home)
    took = time.monotonic() - began
    print(f"second up, until its sign-in link: {took:.1f} s")
    assert healthy(service)
    service.process.send_signal(number)
    assert service.process.wait(120) == 0
    assert ours(home) == []
    assert number == signal.SIGHUP or "Stopped." in service.log


def test_a_killed_portal_comes_back_and_no_request_meets_a_closed_door(service: RunningService) -> None:
    (portal,) = ours(service.home, "uvicorn")
    portal.send_signal(signal.SIGKILL)
    began = time.monotonic()
    assert healthy(service)  # it waits in the socket that `up` keeps open
    print(f"answer after kill -9 of the portal: {time.monotonic() - began:.1f} s")
    assert "portal ended (killed by SIGKILL); starting it again" in service.log
    assert ours(service.home, "uvicorn")[0].pid != portal.pid


def test_a_killed_controller_comes_back(service: RunningService) -> None:
    (controller,) = ours(service.home, "scipion_cloud.controller")
    controller.send_signal(signal.SIGKILL)
    wait_for(
        lambda: [p.pid for p in ours(service.home, "scipion_cloud.controller")] not in ([], [controller.pid])
    )


def test_a_killed_up_takes_its_children_along_and_the_next_starts(
    service: RunningService, home: Path
) -> None:
    service.process.kill()
    service.process.wait()
    wait_for(lambda: ours(home) == [])
    again = start_service(home, port=int(service.url.rpartition(":")[2]))
    assert healthy(again)
    assert stop_service(again) == 0


def refusal(home: Path, port: int) -> str:
    """What `up` says when it does not start."""
    command = [sys.executable, "-m", "scipion_cloud.cli", "up", "--no-setup", f"--port={port}"]
    environ = {**os.environ, "SCIPION_CLOUD_HOME": str(home)}
    done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    return done.stderr


def test_a_second_up_on_the_same_home_is_told_of_the_first(service: RunningService, free_port: int) -> None:
    said = refusal(service.home, free_port)
    assert re.search(rf"up on .* already \(process {service.process.pid}, {service.url}\)", said)


def test_a_taken_port_is_said_with_a_way_out(service: RunningService, tmp_path: Path) -> None:
    port = int(service.url.rpartition(":")[2])
    said = refusal(tmp_path / "other", port)
    assert f"Port {port} is taken by" in said
    assert f"--port {port + 1}" in said
    assert ours(tmp_path / "other") == []
