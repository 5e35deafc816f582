"""Which faults are tried on which storages, and what is told of it."""

import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from scipion_cloud.testing.soak.disks import small_disk
from scipion_cloud.testing.soak.faults import Faults, faults
from scipion_cloud.testing.soak.kills import PHASES, KillLoop
from scipion_cloud.testing.soak.oracle import Loss, Tally
from scipion_cloud.testing.soak.sites import NAMES, Site, site

SHARES = {"posix": 2, "s3": 1, "sftp": 1}  # of the kills
COLUMNS = (
    "storage",
    "what",
    *(p.replace("_", " ") for p in PHASES),
    "generations",
    "files",
    "databases",
    "losses",
)

Say = Callable[[str], None]


@dataclass
class Row:
    """What was done to one storage, and what was found."""

    storage: str
    what: str
    tally: Tally = field(default_factory=Tally)
    phases: Counter[str] = field(default_factory=Counter)
    events: Counter[str] = field(default_factory=Counter)
    loss: str = ""  # empty: nothing was lost
    trouble: str = ""  # why it ended early, if that was no loss

    def cells(self) -> tuple[object, ...]:
        """Of COLUMNS."""
        counts = [self.phases[phase] for phase in PHASES]
        t = self.tally
        return (self.storage, self.what, *counts, t.generations, t.files, t.databases, int(bool(self.loss)))


def shares(kills: int, storage: str) -> dict[str, int]:
    """How many kills each storage gets."""
    if storage != "all":
        return {storage: kills}
    whole = sum(SHARES.values())
    later = {name: kills * SHARES[name] // whole for name in NAMES[1:]}
    return {NAMES[0]: kills - sum(later.values()), **later}


def soak(kills: Mapping[str, int], rounds: int, folder: Path, seed: str, say: Say) -> list[Row]:
    """Kill the agents on these storages so often, and try `rounds` of each other fault; all at a time.

    `folder` keeps what there is to see if something is lost.
    """
    lock, begun = threading.Lock(), time.monotonic()

    def tell(name: str, text: str) -> None:
        with lock:
            say(f"{time.monotonic() - begun:6.0f} s  {name:5}  {text}")

    def on(name: str) -> list[Row]:
        rows = [killed(name, kills[name], folder / name / "kills", seed, lambda text: tell(name, text))]
        for what in FAULTS[name] if rounds else ():
            rows.append(
                faulted(name, what, rounds, folder / name / what, seed, lambda text: tell(name, text))
            )
        if rounds and name == "posix":
            rows.append(starved(rounds, folder / name / "storage full", seed, lambda text: tell(name, text)))
        return rows

    with ThreadPoolExecutor(len(kills)) as pool:
        return [row for rows in pool.map(on, kills) for row in rows]


def killed(name: str, kills: int, folder: Path, seed: str, say: Say, *, light: bool = False) -> Row:
    """Kill the agents on one storage."""
    row = Row(name, f"{kills} kills")
    with _told(row, say), site(name, folder / "site", light=light) as place:
        loop = KillLoop(place, folder / "run", kills, f"{seed}-{name}", say)
        row.tally, row.phases, row.events = loop.tally, loop.phases, loop.events
        loop.run()
    return row


def _disk(made: Faults, rounds: int) -> None:
    made.full_disk(rounds)


def _calls(made: Faults, rounds: int) -> None:
    made.refused_calls(rounds)


def _network(made: Faults, rounds: int) -> None:
    made.bad_network(rounds)


FAULTS: dict[str, dict[str, Callable[[Faults, int], None]]] = {
    "posix": {"disk full": _disk, "calls refused": _calls},
    "s3": {"network": _network, "calls refused": _calls},
    "sftp": {"network": _network, "disk full": _disk},
}


def faulted(
    name: str, what: str, rounds: int, folder: Path, seed: str, say: Say, *, light: bool = False
) -> Row:
    """Let agents on one storage meet one kind of fault."""
    row = Row(name, what)
    with (
        _told(row, say),
        site(name, folder / "site", light=light) as place,
        faults(place, folder / "run", f"{seed}-{name}-{what}", say) as made,
    ):
        row.tally, row.events = made.tally, made.events
        FAULTS[name][what](made, rounds)
    return row


def starved(rounds: int, folder: Path, seed: str, say: Say) -> Row:
    """A folder as storage, whose disk is full."""
    row = Row("posix", "storage full")
    with _told(row, say), small_disk(folder / "disk") as disk:
        (disk.folder / "storage").mkdir()
        place = Site("posix", (disk.folder / "storage").as_uri(), {})
        with faults(place, folder / "run", seed, say) as made:
            row.tally, row.events = made.tally, made.events
            made.full_storage(disk, rounds)
    return row


@contextmanager
def _told(row: Row, say: Say) -> Iterator[None]:
    """What goes wrong is noted, so that the other storages go on."""
    try:
        yield
    except Loss as e:
        row.loss = str(e)
        say(f"LOSS: {e}")
    except Exception as e:  # noqa: BLE001 - it is told, and makes the whole fail
        row.trouble = f"{type(e).__name__}: {e}"
        say(traceback.format_exc())
