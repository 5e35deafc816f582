"""Agents on a folder as storage, with a hand on the storage: it can hang, be gone or be full.

Run as a program it is an agent; files in the folder `control` beside the storage steer it while it runs.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, BinaryIO

from scipion_cloud.deployments.agent import Agent
from scipion_cloud.deployments.client import AgentClient
from scipion_cloud.deployments.process import run
from scipion_cloud.deployments.settings import AgentSettings, default_state
from scipion_cloud.deployments.states import Exit, Phase
from scipion_cloud.deployments.status import AgentStatus
from scipion_cloud.deployments.tasks import Task
from scipion_cloud.errors import StorageFull, StorageTransient
from scipion_cloud.storage import Stat, Storage, open_storage
from scipion_cloud.storage.wrapper import Wrapper
from scipion_cloud.sync.layout import KEPT, LOCKS, SERVICE
from scipion_cloud.sync.lease import LockInfo, look
from scipion_cloud.sync.repository import Repository
from scipion_cloud.sync.retention import Retention

PATIENCE = 120.0  # s; the machine may be busy


class Steered(Wrapper):
    """A storage that hangs before it reads or writes the project's files, is gone, or is full, by files."""

    def __init__(self, inner: Storage, control: Path) -> None:
        super().__init__(inner)
        self._control = control

    def _meet(self, *holds: str) -> None:
        while any((self._control / hold).exists() for hold in holds):
            time.sleep(0.01)
        if (self._control / "gone").exists():
            raise StorageTransient("The storage does not answer. The agent tries on.")

    def _read(self, key: str) -> None:
        large = not key.startswith(SERVICE) and self.inner.stat(key).size > 4 << 20
        hold = "hold-read" if not key.startswith(SERVICE) else "hold-kept" if key.startswith(KEPT) else None
        self._meet(*([hold] if hold else []), *(["hold-large"] if large else []))

    def children(self, folder: str = "") -> Iterator[Stat]:
        self._meet()
        return super().children(folder)

    def walk(self, folder: str = "") -> Iterator[Stat]:
        self._meet()
        return super().walk(folder)

    def stat(self, key: str) -> Stat:
        self._meet()
        return super().stat(key)

    def read(self, key: str, start: int = 0, length: int | None = None) -> Iterator[bytes]:
        self._read(key)
        return super().read(key, start, length)

    def download(self, key: str, fd: int, start: int = 0, length: int | None = None) -> int:
        self._read(key)
        return super().download(key, fd, start, length)

    def write(
        self, key: str, content: BinaryIO | bytes, *, mtime: datetime | None = None, new: bool = False
    ) -> None:
        if not key.startswith(SERVICE):
            self._meet("hold-write")
            if (self._control / "full").exists():
                raise StorageFull("The storage is full. Free some room in it.")
        if key.startswith(LOCKS):
            self._meet("hold-lock")
        self._meet()
        super().write(key, content, mtime=mtime, new=new)

    def create(self, key: str, content: bytes) -> None:
        self._meet("hold-create")
        super().create(key, content)

    def move(self, source: str, target: str) -> None:
        self._meet("hold-write")
        super().move(source, target)

    def remove(self, key: str) -> None:
        self._meet()
        super().remove(key)


class Running:
    """An agent in this process; `close` is what a signal does."""

    def __init__(self, values: dict[str, Any]) -> None:
        self.values = values
        self.state = default_state(Path(values["work"]))
        self.began = datetime.now(UTC)
        self.begin()

    def begin(self) -> None:
        self._agent = Agent(settings(self.values))
        self._task = Task(self._agent.run, "agent")

    @property
    def has_ended(self) -> bool:
        return self._task.done.is_set()

    def stop(self) -> None:
        self._agent.close()

    def end(self) -> int:
        """How it ended, once it has."""
        assert self._task.done.wait(PATIENCE), self.status()
        return self._task.result()

    def give_up(self) -> None:
        """At the end of a test: whatever it does, it writes no more."""
        self.stop()
        self.stop()
        self._task.done.wait(PATIENCE)

    @property
    def client(self) -> AgentClient:
        return AgentClient(self.state)

    def status(self) -> AgentStatus:
        status = self.client.last_status()
        assert status is not None
        return status

    def wait_for(self, condition: Callable[[AgentStatus], object]) -> AgentStatus:
        """Until its status is so."""
        deadline = time.monotonic() + PATIENCE
        while True:
            ended = self.has_ended
            status = self.client.last_status()
            if status is not None and status.started >= self.began and condition(status):
                return status
            assert not ended, status
            assert time.monotonic() < deadline, status
            time.sleep(0.01)

    def wait_phase(self, *phases: Phase) -> AgentStatus:
        return self.wait_for(lambda status: status.phase in phases)

    def wait_whole(self) -> AgentStatus:
        """Until people can work and all of the project is here."""
        return self.wait_for(lambda status: status.phase is Phase.READY and not status.arriving)


class Process(Running):
    """An agent in a process of its own, which can be killed."""

    def begin(self) -> None:
        self.process = subprocess.Popen([sys.executable, __file__, json.dumps(self.values)])

    @property
    def has_ended(self) -> bool:
        return self.process.poll() is not None

    def stop(self) -> None:
        self.process.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def end(self) -> int:
        return self.process.wait(PATIENCE)

    def give_up(self) -> None:
        if self.process.poll() is None:
            self.kill()


class Site:
    """A storage, and working copies of what is in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.storage = folder / "storage"
        self.control = folder / "control"
        self.storage.mkdir(exist_ok=True)
        self.control.mkdir(exist_ok=True)
        self.running: list[Running] = []

    @property
    def url(self) -> str:
        return self.storage.as_uri()

    def work(self, name: str = "work") -> Path:
        path = self.folder / name
        path.mkdir(exist_ok=True)
        return path

    def open(self, name: str = "work", *, apart: bool = False, **options: Any) -> Any:
        """Start an agent on a working copy; `apart` in a process of its own."""
        values = {"url": self.url, "control": str(self.control), "work": str(self.folder / name), **options}
        running = Process(values) if apart else Running(values)
        self.running.append(running)
        return running

    def steer(self, *names: str) -> None:
        """Let the storage do this, and nothing else of the kind."""
        for path in self.control.iterdir():
            path.unlink()
        for name in names:
            (self.control / name).touch()

    def shown(self) -> dict[str, bytes]:
        """The project's files as the storage shows them."""
        return tree(self.storage)

    def end(self) -> None:
        self.steer()
        for running in self.running:
            running.give_up()


def tree(folder: Path) -> dict[str, bytes]:
    """The regular files of a folder without ours."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.is_symlink() and SERVICE not in path.parts
    }


LARGE = b"frames of a movie" * 400_000
PROJECT = {"project.sqlite": b"not yet", "Runs/000002_Import/log": b"imported\n", "data/movie.mrc": LARGE}


def make_project(folder: Path) -> None:
    """A storage below `folder` that holds a project of one generation."""
    site = Site(folder)
    for name, content in PROJECT.items():
        path = site.work("first") / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    agent = site.open("first")
    agent.wait_for(lambda s: s.generation == 1)
    agent.stop()
    assert agent.end() == 0
    assert site.shown() == PROJECT


def lock(site: Site) -> LockInfo:
    """The project's lock."""
    with open_storage(site.url) as storage:
        info = look(storage)
    assert info is not None
    return info


def newest(site: Site) -> int:
    """The number of the last generation."""
    with open_storage(site.url) as storage:
        latest = Repository(storage).latest()
    assert latest is not None
    return latest.number


def works(agent: Running, site: Site, name: str = "work", *, whole: bool = True) -> Path:
    """Wait until people can work, and all of the project is here; do some work."""
    agent.wait_whole() if whole else agent.wait_phase(Phase.READY)
    work = site.folder / name
    (work / "result.star").write_text("rlnMicrographName\n")
    return work


def ends_well(agent: Running, site: Site, name: str = "work") -> None:
    """All is in the storage, and it is unlocked."""
    assert agent.end() == Exit.RELEASED
    status = agent.status()
    assert (status.phase, status.unsaved, status.exit_code) == (Phase.RELEASED, False, 0)
    assert site.shown() == tree(site.folder / name)
    assert lock(site).released is not None


def settings(values: dict[str, Any]) -> AgentSettings:
    """What an agent is told, from JSON."""
    work = Path(values["work"])
    quick = {"every": 3600.0, "first_wait": 0.1, "longest_wait": 1.0, "stop_grace": 0.0, "lease_ttl": 300.0}
    plain = ("generation", "take_over", "remove_work", "import_legacy")
    return AgentSettings(
        storage=Steered(open_storage(values["url"], retry=False), Path(values["control"])),
        work=work,
        state=default_state(work),
        source=open_storage(values["source"]) if "source" in values else None,
        user=values.get("user", "somebody"),
        deadline=datetime.fromisoformat(values["deadline"]) if "deadline" in values else None,
        retention=Retention(*[timedelta(0)] * 3) if values.get("keep_nothing") else Retention(),
        **{name: timedelta(seconds=values.get(name, usual)) for name, usual in quick.items()},
        **{name: values[name] for name in plain if name in values},
    )


if __name__ == "__main__":
    os._exit(run(settings(json.loads(sys.argv[1])), lambda line: print(line, flush=True)))
