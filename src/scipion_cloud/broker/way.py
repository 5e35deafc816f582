"""What a trip to a site takes, and shares with others."""

import threading
from dataclasses import dataclass
from pathlib import Path

from scipion_cloud.broker.ledger import Ledger
from scipion_cloud.broker.transfer import Transfer
from scipion_cloud.config import Config
from scipion_cloud.jobs import JobBackend
from scipion_cloud.sites import reach
from scipion_cloud.sites.model import Site


@dataclass(frozen=True)
class Way:
    """The way to one site."""

    config: Config
    site: Site
    backend: JobBackend
    ledger: Ledger
    sweeping: threading.Lock  # held while folders there are chosen and removed

    @property
    def area(self) -> Path:
        """The site's working area, a path there."""
        return reach.area(self.site)

    def transfer(self, stop: threading.Event) -> Transfer:
        """The way of files; `stop` ends what goes on."""
        return Transfer(self.site, stop)
