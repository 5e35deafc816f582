"""What the tests of the broker share: a broker that ticks beside them, jobs for elsewhere, a site nearby."""

import contextlib
import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from threading import Event, Thread
from unittest.mock import patch

from scipion_cloud.broker import broker
from scipion_cloud.broker.broker import Broker
from scipion_cloud.config import Config
from scipion_cloud.errors import ScipionCloudError
from scipion_cloud.jobs import JobId, JobSpec, JobStatus, LocalBackend, backend_for


class Run:
    """A broker that ticks beside the test."""

    def __init__(self, config: Config) -> None:
        self.config, self.backend = config, backend_for(config)
        self._ended = Event()
        self.broker = Broker(config)
        self._thread = Thread(target=self._tick)
        self._thread.start()

    def _tick(self) -> None:
        while not self._ended.wait(0.1):
            with contextlib.suppress(
                ScipionCloudError
            ):  # the next tick tries again, as the controller has it
                self.broker.tick()

    def close(self) -> None:
        self._ended.set()
        self._thread.join()
        self.broker.close()

    def until(self, job: JobId, what: Callable[[JobStatus], object]) -> JobStatus:
        deadline = time.monotonic() + 240
        while not what(status := self.backend.status([job])[job]):
            assert time.monotonic() < deadline, status
            time.sleep(0.1)
        return status

    def end(self, job: JobId) -> JobStatus:
        return self.until(job, lambda status: status.state.is_final)


def parcel(root: Path, script: str, *needs: str, **spec: object) -> JobSpec:
    """A job that runs a script in a folder; `out` comes back."""
    root.mkdir(parents=True, exist_ok=True)
    (root / "run.sh").write_text(script)
    content = {"root": str(root), "run": "out", "needs": ["run.sh", *needs], "protocol": None}
    there = JobSpec(("bash", "run.sh"), root, memory_gb=0.1, site="far", parcel=content)
    return replace(there, **spec)  # type: ignore[arg-type]


@contextmanager
def running(config: Config) -> Iterator[Run]:
    """A broker that asks sites more often than others do, until the end of the block."""
    with patch.object(broker, "POLL", 0.3):
        run = Run(config)
        try:
            yield run
        finally:
            run.close()


@contextmanager
def near_site(config: Config, area: Path, **keys: object) -> Iterator[None]:
    """A site called `near` in a folder of this machine, in the home's `sites.toml`; its jobs end with it."""
    table = {"title": "Near by", "area": str(area), "max_cpus": 4, **keys}
    lines = [f"{key} = {json.dumps(value)}" for key, value in table.items()]
    config.home.mkdir(parents=True, exist_ok=True)
    (config.home / "sites.toml").write_text("\n".join(["[near]", *lines, ""]))
    try:
        yield
    finally:
        queue = LocalBackend(area / "jobs")
        queue.cancel([info.id for info in queue.list() if not info.status.state.is_final])


def wait(what: Callable[[], object]) -> None:
    """Wait until something is so."""
    deadline = time.monotonic() + 240
    while not what():
        assert time.monotonic() < deadline, "this did not happen in time"
        time.sleep(0.1)
