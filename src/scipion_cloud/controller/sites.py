"""Looks at every site, beside the tick, so that the broker and the pages know how each of them is."""

import time
from functools import partial

from scipion_cloud.config import Config
from scipion_cloud.controller.background import Background
from scipion_cloud.sites.looking import EVERY, look
from scipion_cloud.sites.model import Site
from scipion_cloud.sites.reading import read_sites

_LEAST = 2.0  # s between two readings of sites.toml


class Sites:
    """Asks each site every half a minute; a site that hangs keeps none of the others waiting."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._work = Background(at_once=16)
        self._due: dict[str, float] = {}  # site -> when to begin the next look
        self._next = 0.0

    def refresh(self) -> None:
        """Begin the looks that are due. Raises ConfigError for a wrong `sites.toml`."""
        now = time.monotonic()
        if now < self._next:
            return
        self._next = now + _LEAST
        for site in read_sites(self._config):
            if now < self._due.get(site.name, 0.0):
                continue
            if self._work.poll(site.name, partial(_look, site, self._config)):
                self._due[site.name] = now + EVERY


def _look(site: Site, config: Config) -> bool:
    look(site, config)
    return True
