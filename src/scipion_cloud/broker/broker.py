"""The broker: every job for another site one step further at each tick, until its results are here.

Nothing is kept in memory that a broker started after a kill would miss. Slow work is done by threads, so
many at a time for each site; what does not work now is tried again, later and later, until it is cancelled.
"""

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Hashable, Mapping
from datetime import UTC, datetime

from scipion_cloud.broker import places
from scipion_cloud.broker.ledger import Ledger
from scipion_cloud.broker.sweeping import Sweeper
from scipion_cloud.broker.transfer import Stopped
from scipion_cloud.broker.trip import Trip
from scipion_cloud.broker.way import Way
from scipion_cloud.config import Config
from scipion_cloud.errors import InvalidInput, ScipionCloudError
from scipion_cloud.jobs import JobId, JobStatus
from scipion_cloud.jobs.away import Away, AwayJob
from scipion_cloud.sites import reach
from scipion_cloud.sites.model import Site
from scipion_cloud.sites.reading import read_sites

_log = logging.getLogger(__name__)

POLL = 3.0  # s between two questions to a site how our jobs are
FIRST_PAUSE, LONGEST_PAUSE = 1.0, 60.0  # s before something is tried again
AT_ONCE = {"pack": 1, "send": 2, "submit": 4, "run": 4, "fetch": 2, "place": 2}
"""Threads for each phase: one for what asks Scipion, else so many for each site."""


class Broker:
    """Moves the jobs of one home. One process at a time has one."""

    def __init__(self, config: Config) -> None:
        """Nothing is begun before the first tick."""
        self._config = config
        self._away = Away(config.jobs)
        self._trips: dict[JobId, Trip] = {}
        self._ways: dict[str, Way] = {}
        self._threads: dict[Hashable, threading.Thread] = {}
        self._going: Counter[Hashable] = Counter()
        self._pauses: dict[Hashable, tuple[float, float]] = {}  # not before, length of the pause
        self._troubled: dict[JobId, str] = {}  # since when
        self._polled: dict[str, float] = {}
        self._sweepers: dict[str, Sweeper] = {}

    def tick(self) -> None:
        """Look at all jobs; returns at once. Raises JobError when the queue cannot be read, ConfigError."""
        self._threads = {key: thread for key, thread in self._threads.items() if thread.is_alive()}
        jobs = self._away.live()
        for gone in self._trips.keys() - {job.id for job in jobs}:
            if not self._busy(gone):
                del self._trips[gone]
                self._troubled.pop(gone, None)
        sites = {site.name: site for site in read_sites(self._config)}
        asking: dict[str, list[Trip]] = {}
        taken: dict[tuple[str, str], JobId] = {}
        for job in jobs:
            trip = self._trip(job)
            if job.cancelling:
                trip.stop.set()
            site = sites.get(job.spec.site)
            if site is None or site.is_home:
                trip.tell(f"{job.spec.site} is not in sites.toml any more; put it back, or cancel the job")
                continue
            first = taken.setdefault(_folder(job), job.id)
            if first != job.id and not job.cancelling and trip.phase in ("pack", "send"):
                trip.tell(f"waiting for job {first}, which works in the same folder")
                continue
            if trip.phase == "run" and not job.cancelling and not trip.logs_due:
                asking.setdefault(site.name, []).append(trip)
            else:
                self._advance(trip, site)
        for name, trips in asking.items():
            self._ask(sites[name], trips)
        for site in sites.values():
            self._sweep(site)

    def close(self, wait: float = 10.0) -> None:
        """End what goes on here; what goes on at sites goes on. A later broker continues."""
        for trip in self._trips.values():
            trip.stop.set()
        deadline = time.monotonic() + wait
        for thread in self._threads.values():
            thread.join(max(0.0, deadline - time.monotonic()))

    def _trip(self, job: AwayJob) -> Trip:
        if job.id not in self._trips:
            self._trips[job.id] = Trip(self._config, job)
        return self._trips[job.id]

    def _way(self, site: Site) -> Way:
        """Made anew when the site's description has changed. Raises ConfigError."""
        way = self._ways.get(site.name)
        if way is None or way.site != site:
            ledger = Ledger(places.ledger_file(self._config, site.name))
            sweeping = way.sweeping if way else threading.Lock()
            way = Way(self._config, site, reach.backend(site, self._config), ledger, sweeping)
            self._ways[site.name] = way
        return way

    def _advance(self, trip: Trip, site: Site) -> None:
        """Have the next phase of a trip done, if there is a thread for it."""
        lane = trip.phase if trip.phase == "pack" else (site.name, trip.phase)
        if self._busy(trip.job.id) or self._paused(trip.job.id) or self._going[lane] >= AT_ONCE[trip.phase]:
            return

        def work() -> None:
            try:
                way = self._way(site)
                with trip.turn:
                    try:
                        trip.step(way)
                    except InvalidInput as e:
                        trip.fail(way, str(e))
                self._well(trip)
            except Stopped:
                pass  # the next step ends it
            except (ScipionCloudError, OSError) as e:
                self._later(trip, str(e))
            except Exception as e:  # noqa: BLE001 - a fault of ours: told, and tried again after an upgrade
                _log.exception("Job %d, %s", trip.job.id, trip.phase)
                self._later(trip, f"{type(e).__name__}: {e}")

        self._start(trip.job.id, lane, work)

    def _well(self, trip: Trip) -> None:
        """What did not work does now; the next thing need not wait."""
        self._pauses.pop(trip.job.id, None)
        self._troubled.pop(trip.job.id, None)

    def _later(self, trip: Trip, error: str) -> None:
        """Something did not work now; it is tried again after a while, and people are told."""
        self._pause(trip.job.id)
        since = self._troubled.setdefault(trip.job.id, f"{datetime.now(UTC):%H:%M} UTC")
        _log.warning("Job %d, %s: %s", trip.job.id, trip.phase, error)
        try:
            trip.trouble(f"{error} Tried again since {since}.")
        except ScipionCloudError as e:
            _log.warning("Job %d: %s", trip.job.id, e)

    def _ask(self, site: Site, trips: list[Trip]) -> None:
        """Ask a site how these jobs are, all at once."""
        key = ("ask", site.name)
        recent = time.monotonic() - self._polled.get(site.name, -POLL) < POLL
        if recent or key in self._threads or self._paused(key):
            return
        self._polled[site.name] = time.monotonic()

        def work() -> None:
            try:
                way = self._way(site)
                found = way.backend.status([trip.remote for trip in trips if trip.remote])
                for trip in trips:
                    self._tell_trip(trip, way, found)
                self._pauses.pop(key, None)
            except (ScipionCloudError, OSError) as e:
                self._pause(key)
                for trip in trips:
                    self._later(trip, str(e))

        self._start(key, key, work)

    def _tell_trip(self, trip: Trip, way: Way, found: Mapping[JobId, JobStatus]) -> None:
        """Let a trip know what its site says; one that is cancelled meanwhile asks itself.

        One whose logs or movies come just now hears it next time, so that the others need not wait.
        """
        if not trip.turn.acquire(blocking=False):
            return
        try:
            if trip.phase == "run" and not trip.stop.is_set() and trip.remote is not None:
                trip.seen(way, found[trip.remote])
                self._well(trip)
        except (ScipionCloudError, OSError) as e:
            self._later(trip, str(e))
        finally:
            trip.turn.release()

    def _sweep(self, site: Site) -> None:
        """Have what nobody needs any more removed from a site."""
        key = ("sweep", site.name)
        sweeper = self._sweepers.setdefault(site.name, Sweeper(self._config, site.name))
        if site.is_home or key in self._threads or not sweeper.due():
            return
        mine = [trip for trip in self._trips.values() if trip.job.spec.site == site.name]

        def work() -> None:
            try:
                sweeper.sweep(self._way(site), mine)
            except (ScipionCloudError, OSError) as e:
                _log.warning("%s cannot be tidied up now: %s", site.name, e)

        self._start(key, key, work)

    # threads

    def _busy(self, key: Hashable) -> bool:
        return key in self._threads

    def _start(self, key: Hashable, lane: Hashable, work: Callable[[], None]) -> None:
        def run() -> None:
            try:
                work()
            except Exception:  # noqa: BLE001 - logged with its trace
                _log.exception("The broker's work on %s broke off", key)
                self._pause(key)
            finally:
                self._going[lane] -= 1

        self._going[lane] += 1
        thread = threading.Thread(target=run, name=f"broker {key}", daemon=True)
        self._threads[key] = thread
        thread.start()

    def _paused(self, key: Hashable) -> bool:
        return time.monotonic() < self._pauses.get(key, (0.0, 0.0))[0]

    def _pause(self, key: Hashable) -> None:
        last = self._pauses.get(key, (0.0, FIRST_PAUSE / 2))[1]
        length = min(2 * last, LONGEST_PAUSE)
        self._pauses[key] = time.monotonic() + length, length


def _folder(job: AwayJob) -> tuple[str, str]:
    parcel = job.spec.parcel or {}
    return str(parcel.get("root", job.id)), str(parcel.get("run", ""))
