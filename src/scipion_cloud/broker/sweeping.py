"""Tidying up at a site: what is over goes soon, inputs that nobody used for long go now and then."""

import threading
import time
from collections.abc import Sequence

from scipion_cloud.broker import places
from scipion_cloud.broker.ledger import DEPTH, too_old
from scipion_cloud.broker.trip import Trip
from scipion_cloud.broker.way import Way
from scipion_cloud.config import Config
from scipion_cloud.sites import state

SOON = 20.0  # s between two looks for what is over
NOW_AND_THEN = 3600.0  # s between two looks at all that is there
KEPT_DAYS = 14  # inputs that nobody has used for so long are removed
_GB = 1e9


class Sweeper:
    """Tidies up at one site."""

    def __init__(self, config: Config, site: str) -> None:
        self._config = config
        self._site = site
        self._next, self._next_all = 0.0, time.monotonic() + NOW_AND_THEN / 10

    def due(self) -> bool:
        """Whether it is time for a look, and something of ours may be there."""
        now = time.monotonic()
        if now < self._next or not places.ledger_file(self._config, self._site).exists():
            return False
        self._next = now + SOON
        return True

    def sweep(self, way: Way, trips: Sequence[Trip]) -> None:
        """Remove what none of these trips, all that go there, uses. Raises TransferError."""
        with way.sweeping:
            used = _busy(trips)
            self._remove(way, [path for path in way.ledger.over() if path not in used])
        if time.monotonic() > self._next_all:
            self._next_all = time.monotonic() + NOW_AND_THEN
            self._sweep_all(way, trips)

    def _sweep_all(self, way: Way, trips: Sequence[Trip]) -> None:
        home = places.home_id(self._config)
        sizes = {}
        for top, depth in (("projects", DEPTH - 1), ("runs", 1)):
            for path, size in way.transfer(threading.Event()).sizes(top, depth).items():
                if path.startswith(f"{home}-"):
                    sizes[f"{top}/{path}"] = size
        most = way.site.max_gb * _GB if way.site.max_gb else None
        with way.sweeping:
            used, now = way.ledger.last_used(), time.time()
            busy = _busy(trips) | {path for path, when in used.items() if now - when < NOW_AND_THEN}
            victims = too_old(sizes, used, busy, most, now - KEPT_DAYS * 86400)
            self._remove(way, victims)
        left = sum(sizes.values()) - sum(sizes[path] for path in victims)
        state.note_use(self._config, self._site, left)

    def _remove(self, way: Way, paths: list[str]) -> None:
        for top in ("projects", "runs"):
            below = [path.removeprefix(f"{top}/") for path in paths if path.startswith(f"{top}/")]
            way.transfer(threading.Event()).remove(top, below)
        way.ledger.removed(paths)


def _busy(trips: Sequence[Trip]) -> set[str]:
    return set().union(*(trip.folders for trip in trips))
