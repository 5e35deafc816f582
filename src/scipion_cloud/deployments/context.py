"""What the parts of one agent share."""

import threading
from dataclasses import dataclass
from datetime import UTC, datetime

from scipion_cloud.deployments.backoff import Backoff
from scipion_cloud.deployments.board import Board
from scipion_cloud.deployments.orders import Orders
from scipion_cloud.deployments.session import Session
from scipion_cloud.deployments.settings import AgentSettings
from scipion_cloud.deployments.states import Exit
from scipion_cloud.errors import ScipionCloudError


class Ended(ScipionCloudError):
    """The agent cannot go on; the text says why, `code` how its process ends."""

    def __init__(self, text: str, code: Exit) -> None:
        self.code = code
        super().__init__(text)


@dataclass
class Context:
    """One deployment in this process."""

    settings: AgentSettings
    board: Board
    orders: Orders
    session: Session

    @property
    def closing(self) -> threading.Event:
        """Set when the agent has been told to end."""
        return self.orders.closing

    def backoff(self) -> Backoff:
        """Waits between two tries, as the settings want them."""
        s = self.settings
        return Backoff(s.first_wait.total_seconds(), s.longest_wait.total_seconds())


def now() -> datetime:
    """UTC."""
    return datetime.now(UTC)
