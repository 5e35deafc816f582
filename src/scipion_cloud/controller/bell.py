"""What the loop waits on between two ticks."""

import contextlib
import os
import select


class Bell:
    """Rung when there is something to look at before the next tick is due.

    A pipe, because threads and signal handlers ring it at any instant; an Event could lock itself up there.
    """

    def __init__(self) -> None:
        self.stopped = False
        self._read, self._write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)

    def ring(self) -> None:
        """End the present wait, or the next one."""
        with contextlib.suppress(BlockingIOError):  # full: it is ringing already
            os.write(self._write, b"!")

    def stop(self) -> None:
        """Ring for the last time."""
        self.stopped = True
        self.ring()

    def wait(self, seconds: float) -> bool:
        """Wait until the bell is rung, at most so long; True if it was."""
        rung = bool(select.select([self._read], [], [], seconds)[0])
        if rung:
            os.read(self._read, 65536)
        return rung
