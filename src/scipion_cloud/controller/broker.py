"""The broker's part of the loop: jobs for other sites move on, and Scipion knows the sites."""

import time

from scipion_cloud.broker.broker import Broker
from scipion_cloud.broker.queues import write_hosts
from scipion_cloud.config import Config

_HOSTS_EVERY = 10.0  # s


class Brokering:
    """All that is away of this home."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._broker = Broker(config)
        self._next = 0.0

    def reconcile(self) -> None:
        """One step. Raises JobError, or ConfigError for a wrong `sites.toml`."""
        self._broker.tick()
        if time.monotonic() > self._next:
            write_hosts(self._config)
            self._next = time.monotonic() + _HOSTS_EVERY

    def close(self) -> None:
        """Stop; what runs at sites goes on."""
        self._broker.close()
