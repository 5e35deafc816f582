"""Elastic nodes as a part of the controller's loop."""

import time
from collections.abc import Callable
from threading import Event

from scipion_cloud.cluster.elastic import Elastic, ElasticCluster
from scipion_cloud.cluster.history import FOLDER
from scipion_cloud.cluster.nodes import Nodes
from scipion_cloud.cluster.power import listen
from scipion_cloud.config import Config
from scipion_cloud.controller.background import Background
from scipion_cloud.sites.reading import read_sites

AT_ONCE = 16  # nodes that are made at a time
REST = 2.0  # s between two looks while nothing moves


class ElasticNodes:
    """The nodes of the home's own cluster, if sites.toml says that they come and go."""

    def __init__(self, config: Config, wake: Callable[[], None]) -> None:
        self._config = config
        self._wake = wake
        self._wanted = Event()
        self._nodes: Nodes | None = None
        self._known = False
        self._next = 0.0

    def reconcile(self) -> None:
        """One look, at once if Slurm has asked for something. Raises ConfigError for a wrong sites.toml,
        JobError while Slurm does not answer."""
        if not self._known:
            self._nodes = self._begin()
            self._known = True
        if self._nodes is None or (time.monotonic() < self._next and not self._wanted.is_set()):
            return
        self._wanted.clear()
        self._next = 0.0
        if self._nodes.reconcile():
            self._next = time.monotonic() + REST

    def _begin(self) -> Nodes | None:
        elastic = Elastic.of(read_sites(self._config).home)
        if elastic is None:
            return None
        cluster = ElasticCluster(self._config.home / FOLDER, elastic)
        listen(cluster.power, self._ring)
        return Nodes(cluster, Background(at_once=AT_ONCE, done=self._wake))

    def _ring(self) -> None:
        self._wanted.set()
        self._wake()
