"""How much may be in memory at a time."""

import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager


class Budget:
    """Shares of `total`, given in the order in which they are asked for. For many threads."""

    def __init__(self, total: int) -> None:
        self._total = self._free = total
        self._asking: deque[object] = deque()
        self._changed = threading.Condition()

    @contextmanager
    def share(self, amount: int) -> Iterator[None]:
        """Wait for `amount`, or for all of it where it is more, and have it for the length of the block."""
        amount, me = min(amount, self._total), object()
        with self._changed:
            self._asking.append(me)
            try:
                self._changed.wait_for(lambda: self._asking[0] is me and self._free >= amount)
                self._free -= amount
            finally:
                self._asking.remove(me)
                self._changed.notify_all()
        try:
            yield
        finally:
            with self._changed:
                self._free += amount
                self._changed.notify_all()
