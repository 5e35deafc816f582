"""How long to wait before trying again."""

import random
from collections.abc import Callable


class Backoff:
    """Waits that double from `first` to `longest` seconds, each shortened by up to a half at random.

    So that a hundred agents do not all come back at the same moment to a server that has just got up.
    """

    def __init__(
        self, first: float = 2.0, longest: float = 300.0, chance: Callable[[], float] = random.random
    ) -> None:
        self._first, self._longest, self._chance = first, longest, chance
        self.failures = 0

    def failed(self) -> float:
        """Count a failure; the seconds to wait now."""
        whole = min(self._first * 2.0 ** min(self.failures, 30), self._longest)
        self.failures += 1
        return whole * (1 - self._chance() / 2)

    def succeeded(self) -> None:
        """Begin again with short waits."""
        self.failures = 0
