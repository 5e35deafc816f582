"""Jobs of an open project are sent to a far site while everything that takes part is killed at random.

That is the controller with its broker, the agent that saves the project, all connections, the program at the
site. Is each job computed once, does every result come home, and is it in the project's storage at the end?
"""

import contextlib
import random
import secrets
import subprocess
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from scipion_cloud.config import ENV_PREFIX, Config
from scipion_cloud.jobs import JobId, JobState, backend_for
from scipion_cloud.testing.offload.far import Far, far_site
from scipion_cloud.testing.offload.home import Home, running_home
from scipion_cloud.testing.offload.workload import Work, executions, make_work

MARK = "SCIPION_CLOUD_OFFLOAD"
PACE = 1.0  # s between two faults, on average; longer while nothing gets done
WITHIN = 3600.0  # s for everything
_STUCK = 20.0  # s without a job that ends after which faults become rarer
Say = Callable[[str], None]


@dataclass
class Outcome:
    """What came of it."""

    jobs: int
    results: int = 0  # whole ones at home
    saved: int = 0  # whole ones in the project's storage
    executed: Counter[int] = field(default_factory=Counter)  # how many jobs were executed so often
    faults: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def is_good(self) -> bool:
        """Every job computed once, every result here and saved, nothing wrong."""
        once = self.executed == {1: self.jobs}
        return once and self.results == self.saved == self.jobs and not self.wrong


def offload(folder: Path, jobs: int, seed: str, say: Say = print, pace: float = PACE) -> Outcome:
    """Send so many jobs away under fire, in a new home and site below `folder`; returns what came of it."""
    config = Config(home=folder / "home")
    there = secrets.token_hex(8)
    with far_site(folder, config, env={MARK: there}) as far:
        shelf = far.host.folder / "shelf"  # the same sshd, behind the same proxy, keeps the project
        shelf.mkdir()
        url = f"{far.host.server.url_at(far.proxy.port)}/{shelf.name}"
        with running_home(config, url, far.host.server.credentials) as home:
            loop = _Loop(far, home, folder, there, random.Random(seed), say)  # noqa: S311 - to be had again
            try:
                return loop.run(jobs, pace)
            finally:
                loop.end()


class _Loop:
    def __init__(self, far: Far, home: Home, folder: Path, there: str, rng: random.Random, say: Say) -> None:
        self._far, self._home, self._folder = far, home, folder
        self._random, self._say = rng, say
        self._here, self._there = (f"{ENV_PREFIX}HOME", str(far.config.home)), (MARK, there)
        self._ledger = folder / "ledger"
        self._backend = backend_for(far.config)
        self._controller: subprocess.Popen[bytes] | None = None

    def run(self, jobs: int, pace: float) -> Outcome:
        outcome, began = Outcome(jobs), time.monotonic()
        content = self._folder / "content"
        work = [make_work(content, n, self._random) for n in range(jobs)]
        (content / "project.sqlite").touch()
        self._start()
        self._home.open_project(content)
        project = self._home.project
        ids = {w.key: self._backend.submit(w.spec(project, self._ledger), w.key) for w in work}
        self._under_fire(outcome, ids, pace)
        self._judge(outcome, project, work, ids)
        copy = self._folder / "copy"
        self._home.close_project(copy)
        lost = [f"in the storage: {fault}" for w in work if (fault := w.fault(copy))]
        outcome.saved = jobs - len(lost)
        outcome.wrong += lost
        outcome.seconds = time.monotonic() - began
        return outcome

    def _under_fire(self, outcome: Outcome, ids: dict[str, JobId], pace: float) -> None:
        """Until all jobs have ended."""
        jobs, began = outcome.jobs, time.monotonic()
        ended, moved, next_fault = 0, time.monotonic(), time.monotonic()
        while True:
            found = self._backend.status(ids.values())
            now = sum(status.state.is_final for status in found.values())
            if now == jobs:
                break
            if time.monotonic() - began > WITHIN:
                outcome.wrong.append(f"only {now} of {jobs} jobs ended within {WITHIN:g} s")
                break
            if now != ended:
                self._say(f"{now} of {jobs} jobs have ended, {sum(outcome.faults.values())} faults")
                ended, moved = now, time.monotonic()
            if time.monotonic() > next_fault:
                outcome.faults[self._harm()] += 1
                slower = max(1.0, (time.monotonic() - moved) / _STUCK)
                next_fault = time.monotonic() + self._random.expovariate(1 / (pace * slower))
            time.sleep(0.1)
            if self._controller is None:
                self._start()
            elif (code := self._controller.poll()) is not None:  # as it does when another holds the lock
                outcome.wrong.append(f"a controller ended by itself, with {code}")
                self._start()
        self._far.proxy.heal()
        if self._controller is None:
            self._start()

    def end(self) -> None:
        """Leave nothing running."""
        self._far.proxy.heal()
        for process in (*_marked(self._here), *_marked(self._there)):
            with contextlib.suppress(psutil.Error):
                process.kill()
        if self._controller:
            self._controller.wait()

    def _judge(self, outcome: Outcome, project: Path, work: list[Work], ids: dict[str, JobId]) -> None:
        counts, found = executions(self._ledger), self._backend.status(ids.values())
        outcome.executed = Counter(counts[w.key] for w in work)
        for w in work:
            status = found[ids[w.key]]
            done = status.state is JobState.DONE
            fault = w.fault(project) if done else f"{w.key}: {status.state} {status.reason}"
            outcome.results += not fault
            outcome.wrong += [fault] if fault else []

    def _start(self) -> None:
        self._controller = self._home.controller(self._folder / "controller.log")

    # faults

    def _harm(self) -> str:
        """One fault; its name."""
        faults = {
            "controller killed": (4, self._kill_controller),
            "agent killed": (1, lambda: self._kill_one(self._here, ("scipion-cloud",))),
            "ssh or rsync killed": (6, lambda: self._kill_one(self._here, ("ssh", "rsync"))),
            "program there killed": (3, lambda: self._kill_one(self._there, ("python", "rsync"))),
            "sessions there killed": (2, lambda: self._far.host.server.cut()),
            "connections reset": (3, self._far.proxy.cut),
            "link cut": (1, self._cut_link),
            "link stalled": (1, self._stall),
        }
        names = list(faults)
        name = self._random.choices(names, [faults[n][0] for n in names])[0]
        return name if faults[name][1]() else f"{name} (nothing was there)"

    def _kill_controller(self) -> bool:
        if self._controller is None or self._controller.poll() is not None:
            return False
        self._controller.kill()
        self._controller.wait()
        self._controller = None
        return True

    def _kill_one(self, mark: tuple[str, str], names: tuple[str, ...]) -> bool:
        found = _marked(mark)
        with contextlib.suppress(psutil.Error):  # it may have ended by now
            if victims := [p for p in found if p.name().startswith(names)]:
                self._random.choice(victims).kill()
                return True
        return False

    def _cut_link(self) -> bool:
        self._far.proxy.refuse()
        self._far.proxy.cut()
        time.sleep(self._random.uniform(1, 5))
        self._far.proxy.heal()
        return True

    def _stall(self) -> bool:
        self._far.proxy.stall()
        time.sleep(self._random.choice((1, 3, 16)))  # ssh notices after 15
        self._far.proxy.heal()
        return True


def _marked(mark: tuple[str, str]) -> list[psutil.Process]:
    """Our processes with this variable of this value."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if process.environ().get(mark[0]) == mark[1]:
                found.append(process)
    return found
