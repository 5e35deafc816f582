"""Agents on disks that are full or fail, and on networks that do: they say so, go on, and lose nothing."""

import random
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from scipion_cloud.deployments.states import Exit, Phase
from scipion_cloud.sync.repository import Repository
from scipion_cloud.testing.servers.proxy import Proxy, fault_proxy
from scipion_cloud.testing.soak.disks import CALLS, Disk, refusing, small_disk
from scipion_cloud.testing.soak.machine import LEASE, Failed, Machine, is_whole
from scipion_cloud.testing.soak.oracle import Oracle, Tally
from scipion_cloud.testing.soak.sites import Site

Say = Callable[[str], None]


@contextmanager
def faults(site: Site, folder: Path, seed: str, say: Say) -> Iterator["Faults"]:
    """A project in an empty storage, to be used within the block."""
    made = Faults(site, folder, seed, say)
    try:
        made.begin()
        yield made
    finally:
        made.close()


class Faults:
    """One project in a storage, and agents that meet faults. What was found is in `tally` and `events`."""

    def __init__(self, site: Site, folder: Path, seed: str, say: Say) -> None:
        self.site = site
        self.folder = folder
        self.tally = Tally()
        self.events: Counter[str] = Counter()
        self._seed = seed
        self._random = random.Random(seed)  # noqa: S311 - to be had again
        self._say = say
        self._storage = site.open()
        self._oracle = Oracle(self._storage, self.tally)
        self._machines: list[Machine] = []

    def close(self) -> None:
        """End all that runs."""
        for machine in self._machines:
            machine.give_up()
        self._storage.close()

    def begin(self) -> None:
        """Make a project, and save it."""
        machine = self._new(self.folder / "first")
        machine.begin_project()
        machine.start()
        machine.wait(lambda s: s.last_saved, "the first save")
        self._end(machine)

    def full_disk(self, rounds: int) -> None:
        """The disk of the working copy is full while the project comes, and again while it is saved."""
        with small_disk(self.folder / "disk") as disk:
            machine = self._new(disk.folder / "machine", notes=self.folder / "notes")
            with disk.full(machine, self._random.randrange(1 << 18, 2 << 20)):
                self._tells(machine, "room", "full")
            self._open(machine)
            for _ in range(rounds):
                time.sleep(self._random.random() * 2)
                machine.pause()  # how programs behave on a full disk is not the question
                with disk.full(machine, self._random.choice([0, 4096])):
                    machine.touch()
                    self._tells(machine, "full")
                machine.people(whole=True)
                self._saves(machine)
                self.events["disk full"] += 1
                self._say("disk full")
            self._end(machine)

    def full_storage(self, disk: Disk, rounds: int) -> None:
        """The disk of the storage, a folder, is full while the project is saved."""
        machine = self._new(self.folder / "near")
        machine.start()
        self._open(machine)
        for _ in range(rounds):
            time.sleep(self._random.random() * 2)
            with disk.full(machine, self._random.randrange(100_000)):
                machine.pause()
                machine.large()
                self._tells(machine, "full")
            machine.people(whole=True)
            self._saves(machine)
            self.events["storage full"] += 1
            self._say("storage full")
        self._end(machine)

    def refused_calls(self, rounds: int) -> None:
        """The system refuses some calls of the agent, while it fetches and while it saves."""
        self._oracle.lenient = True
        for number in range(rounds):
            fetching = number % 2 == 1
            machine = self._new(self.folder / f"refused-{number}")
            machine.start()
            machine.wait(lambda s: s.phase is not Phase.LOCKING, "it has begun")
            if not fetching:
                self._open(machine)
            kind = self._random.choice(list(CALLS))
            error = self._random.choice(
                ["EIO", "EIO", "ENOSPC"] if kind in ("writing", "naming") else ["EIO"]
            )
            when = f"{self._random.randrange(1, 40)}+{self._random.choice([1, 3, 20, 1000])}"
            calls = CALLS[kind]
            if self.site.name == "s3":  # its client wakes threads by `write`, which no kernel refuses
                calls = calls.removeprefix("write,")
            with refusing(machine, error, calls, when):
                time.sleep(2 + 2 * self._random.random())
            what = f"{error} {kind}"
            self._say(f"{what} from call {when}, {'fetching' if fetching else 'saving'}: {machine.trouble()}")
            while machine.has_ended:
                self.events[f"{what}: ended with {machine.end()}"] += 1
                machine.start()
                time.sleep(5)
            self._open(machine)
            self._saves(machine)
            self._end(machine)
            self.events[what] += 1
            shutil.rmtree(machine.folder / "work")
        self._oracle.lenient = False

    def bad_network(self, rounds: int) -> None:
        """The network to the server is cut, stalls, cuts off and refuses, while fetching and saving."""
        with fault_proxy("127.0.0.1", self.site.port) as proxy:
            far = replace(self.site, url=self.site.at(proxy.port))
            machine = self._new(self.folder / "far", far)
            machine.start()
            machine.wait(lambda s: s.phase is not Phase.LOCKING, "it has begun")
            for _ in range(rounds):
                time.sleep(self._random.random() * 2)
                name = self._break(proxy)
                self._say(f"network {name}: {machine.trouble()}")
                self._open(machine)
                self._saves(machine)
                self.events[f"network {name}"] += 1
            self._end(machine)

    def _break(self, proxy: Proxy) -> str:
        """Do something bad for some seconds, perhaps more than the lease lasts; its name."""
        ways: dict[str, Callable[[], object]] = {
            "reset": proxy.cut,
            "cut off": lambda: proxy.cut_after(self._random.randrange(200_000)),
            "stalled": proxy.stall,
            "gone": lambda: _gone(proxy),
            "slow": lambda: proxy.slow(0.3, 300_000),
        }
        name = self._random.choice(list(ways))
        ways[name]()
        long = name in ("stalled", "gone") and self._random.random() < 0.5
        time.sleep((LEASE + 2 if long else 1) + 2 * self._random.random())
        proxy.heal()
        return f"{name} for longer than the lease" if long else name

    # what is common

    def _new(self, folder: Path, site: Site | None = None, notes: Path | None = None) -> Machine:
        site = site or self.site
        machine = Machine(folder, site.url, site.credentials, f"{self._seed}-{folder.name}", notes)
        self._oracle.ledgers[machine.deployment] = machine.ledger
        self._machines.append(machine)
        return machine

    def _open(self, machine: Machine) -> None:
        """Wait until all of the project is there, and let people work."""
        told = machine.wait(is_whole, "the project is here")
        if not machine.ledger.exists():
            assert told.generation is not None
            manifest = Repository(self._storage).manifest(told.generation)
            machine.begin_with(manifest, self._oracle.rows(manifest))
            self._oracle.is_here(manifest, machine.work)
        machine.people(whole=True)

    def _tells(self, machine: Machine, *words: str) -> None:
        """It is told, from now on, in one of these words."""
        now = time.time()
        machine.wait(
            lambda s: any(e.time.timestamp() > now and any(w in e.text for w in words) for e in s.errors),
            f"an error with {words}",
        )

    def _saves(self, machine: Machine) -> None:
        """A save succeeds from now on."""
        now = machine.acknowledged or 0
        machine.wait(lambda _: (machine.acknowledged or 0) > now, "a save")

    def _end(self, machine: Machine) -> None:
        """Close; all is there."""
        machine.leave()
        machine.close()
        if (code := machine.end()) != Exit.RELEASED:
            raise Failed(f"Closing ended with {code}: {machine.last_status()}\n{machine.words()}")
        machine.last_status()
        self._oracle.expect(machine.acknowledged)
        self._oracle.examine()
        self._oracle.agrees(machine.deployment)


def _gone(proxy: Proxy) -> None:
    proxy.refuse()
    proxy.cut()
