"""Agents that are killed, paused and replaced at random moments, while people work."""

import json
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from scipion_cloud.deployments.states import Exit, Phase
from scipion_cloud.deployments.status import AgentStatus
from scipion_cloud.storage import Storage
from scipion_cloud.sync.generation import Generation
from scipion_cloud.sync.repository import Repository
from scipion_cloud.testing.soak.expiring import KEEP
from scipion_cloud.testing.soak.machine import PATIENCE, Failed, Machine, is_open, is_whole
from scipion_cloud.testing.soak.oracle import Loss, Oracle, Tally
from scipion_cloud.testing.soak.sites import Site
from scipion_cloud.testing.soak.trees import difference, tree
from scipion_cloud.testing.soak.writer import APART

PHASES = (Phase.LOCKING, Phase.STAGING_IN, Phase.READY, Phase.SAVING, Phase.STAGING_OUT)
# how long a phase takes, about; s
LONG = {
    Phase.LOCKING: 0.05,
    Phase.STAGING_IN: 0.05,
    Phase.READY: 1.0,
    Phase.SAVING: 0.5,
    Phase.STAGING_OUT: 0.5,
}
FETCHING = 1.0  # STAGING_IN, if there is something to be fetched
Say = Callable[[str], None]


class KillLoop:
    """Kills the agents of one project so many times. What it found is in `tally`, `phases` and `events`."""

    def __init__(self, site: Site, folder: Path, kills: int, seed: str, say: Say) -> None:
        self.site = site
        self.folder = folder
        self.kills = kills
        self.tally = Tally()
        self.phases: Counter[str] = Counter()
        self.events: Counter[str] = Counter()
        self._seed = seed
        self._random = random.Random(seed)  # noqa: S311 - to be had again
        self._say = say
        self._storage: Storage = site.open()
        self._oracle = Oracle(self._storage, self.tally)
        self._made = 0
        self._machines: list[Machine] = []
        self._machine = self._new()
        self._options: tuple[str, ...] = ()  # of its agent, until people work there

    def run(self) -> None:
        """All of it. Raises Loss, and Failed if an agent does not do what it should."""
        try:
            self._machine.begin_project()
            while self.phases.total() < self.kills:
                self._round()
            self._final()
        finally:
            for machine in self._machines:
                machine.give_up()
            self._storage.close()

    def _new(self) -> Machine:
        self._made += 1
        folder = self.folder / f"machine-{self._made}"
        machine = Machine(folder, self.site.url, self.site.credentials, f"{self._seed}-{self._made}")
        self._oracle.ledgers[machine.deployment] = machine.ledger
        self._machines.append(machine)
        return machine

    def _round(self) -> None:
        """Start an agent, and do something bad to it."""
        chance = self._random.random()
        if self._machine.has_ended:
            self._start()
        if chance < 0.12 and self._made_something():
            self._close_and_go_on()
        elif chance < 0.2 and self._made_something():
            self._fence()
        else:
            self._kill(self._target())
            if self._random.random() < 0.1:
                self._machine.crash()
                self.events["writers killed"] += 1
            self._examine()
            if self._random.random() < 0.12 and self._made_something():
                self.events["machines lost"] += 1
                self._replace("--take-over", "the machine is gone")

    def _start(self) -> None:
        """Until people work there, a machine may still have to take the project over."""
        self._machine.start(*([] if self._machine.ledger.exists() else self._options))

    def _made_something(self) -> bool:
        return Repository(self._storage).latest() is not None

    def _target(self) -> Phase:
        """A phase that was seldom hit."""
        fresh = not self._machine.ledger.exists()
        early = fresh and self._random.random() < 0.6
        return min(PHASES[: 2 if early else None], key=lambda p: self.phases[p] + 2 * self._random.random())

    def _kill(self, target: Phase) -> None:
        machine = self._machine
        phase = self._reach(target)
        if phase is None:
            return self._closed()
        machine.kill()
        self.phases[phase] += 1
        self._oracle.expect(machine.acknowledged)
        self._say(f"kill {self.phases.total()}: {phase}, meant {target}; generation {machine.acknowledged}")
        time.sleep(self.site.rest)

    def _reach(self, target: Phase) -> Phase | None:
        """Wait for a random moment in a phase; the one that it really is; None if the agent has ended."""
        machine = self._machine
        if target in (Phase.LOCKING, Phase.STAGING_IN):
            order = list(Phase)
            machine.wait(lambda s: order.index(s.phase) >= order.index(target), str(target))
        else:
            self._open()
            time.sleep(self._random.random() * 2.5)
            if target is Phase.STAGING_OUT:
                machine.pause()
                machine.close()
                machine.wait(lambda s: s.closing and s.phase not in (Phase.READY, Phase.SAVING), str(target))
            else:
                machine.wait(lambda s: s.phase is target, str(target))
        fetching = target is Phase.STAGING_IN and not machine.ledger.exists()
        long = FETCHING if fetching else LONG[target]
        time.sleep(self._random.random() * long * (1 + self.site.rest * 2))
        if machine.has_ended:
            return None
        told = machine.status()
        return (
            None if machine.has_ended else told.phase if told and told.pid == machine.pid else Phase.LOCKING
        )

    def _open(self, *, whole: bool = False) -> AgentStatus:
        """Wait until people can work, and let them."""
        machine = self._machine
        look = not machine.ledger.exists() and self._random.random() < 0.5
        told = machine.wait(is_whole if look or whole else is_open, "people can work")
        if not machine.ledger.exists():
            self._arrive(machine, told, look)
        machine.people(whole=is_whole(told))
        return told

    def _arrive(self, machine: Machine, told: AgentStatus, look: bool) -> None:
        """The project has come to another machine."""
        assert told.generation is not None
        repository = Repository(self._storage)
        manifest = repository.manifest(told.generation)
        machine.begin_with(manifest, self._oracle.rows(manifest))
        if look:
            self.events["copies compared"] += 1
            self._oracle.is_here(manifest, machine.work)

    def _examine(self) -> None:
        self._oracle.examine()

    def _replace(self, *options: str) -> None:
        """Go on with another machine; the one before is gone with all that was not saved."""
        self._machine.leave()
        self._machine, self._options = self._new(), options
        self._start()

    def _close_and_go_on(self) -> None:
        """Close well; then open it somewhere else, or here again."""
        machine = self._machine
        self._open(whole=True)
        time.sleep(self._random.random() * 2)
        machine.pause()
        machine.close()
        self._closed()
        if self._random.random() < 0.4:
            self._expire()
        if self._random.random() < 0.6:
            self.events["other machines"] += 1
            self._replace()

    def _closed(self) -> None:
        """It was closed: all must be there."""
        machine = self._machine
        if (code := machine.end()) != Exit.RELEASED:
            raise Failed(f"Closing ended with {code}: {machine.last_status()}\n{machine.words()}")
        machine.last_status()
        self._oracle.expect(machine.acknowledged)
        self.events["closed"] += 1
        if not machine.ledger.exists():
            return  # nobody had worked here yet
        self._oracle.examine()
        self._oracle.agrees(machine.deployment)

    def _fence(self) -> None:
        """An agent sleeps for longer than its lease, and wakes up when another one has the project."""
        sleeper = self._machine
        phase = self._reach(self._target())
        if phase is None:
            return self._closed()
        if phase is Phase.LOCKING:  # it may be about to take the project over itself
            sleeper.kill()
            return
        sleeper.signal(signal.SIGSTOP)
        self._oracle.expect(sleeper.acknowledged)
        self._machine, self._options = self._new(), ("--take-over", "it does not answer")
        self._start()
        self._open()
        now = self._machine.acknowledged
        if self._random.random() < 0.5:
            self._machine.wait(lambda _: self._machine.acknowledged != now, "a save after taking over")
        sleeper.signal(signal.SIGCONT)
        code = sleeper.end()
        if code != Exit.LEASE_LOST and phase.is_open:
            raise Failed(f"A writer that was fenced in {phase} ended with {code}: {sleeper.words()}")
        self.events[f"fenced while {phase}"] += 1
        sleeper.leave()
        self._say(f"fenced in {phase}; it ended with {code}")

    def _expire(self) -> None:
        """Let go of old generations, sometimes killed while at it."""
        before = {g.number: g for g in Repository(self._storage).generations()}
        command = [sys.executable, "-m", "scipion_cloud.testing.soak.expiring"]
        told = json.dumps([self.site.url, dict(self.site.credentials)]).encode()
        for limit in (self._random.random() * 3, PATIENCE):
            try:
                subprocess.run(command, input=told, timeout=limit, check=True)
                break
            except subprocess.TimeoutExpired:
                self.events["expiries killed"] += 1
                time.sleep(self.site.rest)
                self._expired(before)
        self.events["expired"] += self._expired(before)

    def _expired(self, before: dict[int, Generation]) -> int:
        now = time.time()
        there = {g.number for g in Repository(self._storage).generations()}
        old = {n for n, g in before.items() if now - g.created.timestamp() > KEEP.all_for.total_seconds()}
        self._oracle.forget((before.keys() - there) & old - {max(before)})
        self._oracle.examine()
        self._oracle.read_all()
        return len(before) - len(there)

    def _final(self) -> None:
        """Close; restore to a new folder; all is as it was left."""
        machine = self._machine
        if machine.has_ended:
            self._start()
        self._open(whole=True)
        machine.pause()
        machine.close()
        self._closed()
        self._oracle.read_all()
        folder = self.folder / "restored"
        machine.command("data", "restore", "--storage", self.site.url, "--to", str(folder))
        left, found = tree(machine.work), tree(folder)
        if wrong := difference(left, found, apart=APART):
            raise Loss("The project is not what it was when it was closed:\n" + "\n".join(wrong[:20]))
