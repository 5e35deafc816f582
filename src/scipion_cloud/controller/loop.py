"""One look at everything, twice a second. What fails is told and tried again; nothing stops the rest."""

import logging
import time
from collections.abc import Callable

from django.db import DatabaseError, connection

from scipion_cloud.config import Config
from scipion_cloud.controller.bell import Bell
from scipion_cloud.controller.broker import Brokering
from scipion_cloud.controller.deployments import reconcile_deployments
from scipion_cloud.controller.desktops import reconcile_desktops
from scipion_cloud.controller.nodes import ElasticNodes
from scipion_cloud.controller.preparations import reconcile_preparations
from scipion_cloud.controller.results import Results
from scipion_cloud.controller.runs import Runs
from scipion_cloud.controller.sites import Sites
from scipion_cloud.errors import ScipionCloudError
from scipion_cloud.jobs import backend_for

log = logging.getLogger(__name__)

TICK = 0.5  # s from the end of one tick to the start of the next
REPEAT = 60.0  # s before a trouble that stays is written to the log again


def run_until_stopped(bell: Bell, config: Config) -> None:
    """Tick until the bell is stopped, and sooner than usual when it is rung."""
    backend = backend_for(config)
    results = Results()
    runs = Runs(config, backend, results, wake=bell.ring)
    broker = Brokering(config)
    parts = Parts(
        {
            "runs": runs.reconcile,
            "results": results.reconcile,
            "desktops": reconcile_desktops,
            "deployments": reconcile_deployments,
            "preparations": reconcile_preparations,
            "jobs": backend.tick,
            "nodes": ElasticNodes(config, wake=bell.ring).reconcile,
            "sites": Sites(config).refresh,
            "broker": broker.reconcile,
        }
    )
    try:
        while not bell.stopped:
            parts.tick()
            bell.wait(TICK)
    finally:
        broker.close()
        results.close()


class Parts:
    """What is done at each tick, in order. A part that fails is logged and keeps no other from working."""

    def __init__(self, parts: dict[str, Callable[[], None]]) -> None:
        self._parts = parts
        self._told: dict[str, tuple[str, float]] = {}  # part -> its trouble and when it was logged

    def tick(self) -> None:
        """Do each part once."""
        for name, work in self._parts.items():
            try:
                work()
            except DatabaseError as e:
                self._tell(name, f"the database does not answer ({e}); waiting for it", trace=False)
                _drop_connection()
            except ScipionCloudError as e:
                self._tell(name, str(e), trace=False)
            except Exception as e:  # noqa: BLE001 - logged with its trace
                self._tell(name, f"{type(e).__name__}: {e}", trace=True)
            else:
                if self._told.pop(name, None):
                    log.info("%s: all is well again", name)

    def _tell(self, name: str, trouble: str, *, trace: bool) -> None:
        told, when = self._told.get(name, ("", 0.0))
        if trouble != told or time.monotonic() - when > REPEAT:
            log.error("%s: %s", name, trouble, exc_info=trace)
            self._told[name] = trouble, time.monotonic()


def _drop_connection() -> None:
    """Begin with a fresh connection next time; a broken one would fail for ever."""
    try:
        connection.close()
    except DatabaseError as e:
        log.debug("closing a broken connection: %s", e)
