"""A whole Scipion Cloud for a test: `scipion-cloud up` on a home of its own, as a person would start it."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from scipion_cloud.testing.servers.daemon import free_port

_LINK = re.compile(r"https?://\S+/sign-in/\S+")


@dataclass
class RunningService:
    """A started service: where it is, its one sign-in link, the process that Ctrl-C would stop."""

    home: Path
    url: str
    link: str
    process: subprocess.Popen[bytes] = field(repr=False)

    @property
    def log(self) -> str:
        """What `up` printed so far."""
        return (self.home / "up.log").read_text(errors="replace")


def start_service(
    home: Path,
    *options: str,
    port: int | None = None,
    env: dict[str, str] | None = None,
    timeout: float = 480,
) -> RunningService:
    """Start `up` on `home` and wait until it serves. Raises RuntimeError after `timeout` s."""
    port = port or free_port()
    home.mkdir(parents=True, exist_ok=True)
    environ = {**os.environ, **(env or {}), "SCIPION_CLOUD_HOME": str(home), "COLUMNS": "400"}
    command = [
        sys.executable,
        "-m",
        "scipion_cloud.cli",
        "up",
        "--no-setup",
        "--link",
        f"--port={port}",
        *options,
    ]
    with (home / "up.log").open("wb") as log:
        process = subprocess.Popen(command, env=environ, stdout=log, stderr=subprocess.STDOUT)
    service = RunningService(home, f"http://127.0.0.1:{port}", "", process)
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        if found := _LINK.search(service.log):
            service.link = found[0]
            return service
        if process.poll() is not None:
            break
        time.sleep(0.1)
    process.kill()
    process.wait()
    raise RuntimeError(f"scipion-cloud up did not come up:\n{service.log}")


def stop_service(service: RunningService, timeout: float = 240) -> int:
    """Press Ctrl-C and wait; the exit code of `up`."""
    if service.process.poll() is None:
        service.process.send_signal(signal.SIGINT)
    return service.process.wait(timeout)


@contextmanager
def running_service(home: Path, *options: str, env: dict[str, str] | None = None) -> Iterator[RunningService]:
    """A service for the length of a `with` block."""
    service = start_service(home, *options, env=env)
    try:
        yield service
    finally:
        stop_service(service)
