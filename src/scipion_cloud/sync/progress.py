"""How far a transfer has come, and what went wrong on the way."""

import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

WINDOW = 20.0  # seconds over which the rate is taken
STEP = 0.5  # seconds between two samples of it
PER_FILE = 64 * 1024  # bytes that one more file costs in time: small files are slow for their size


@dataclass(frozen=True, slots=True)
class Problem:
    """Something that could not be saved, restored or verified; the text tells what was done instead."""

    path: bytes  # relative to the project's folder; b"" for the whole of it
    text: str
    unsaved: bool = False  # what lies there now is not in the storage, and should be


class Progress:
    """Files and bytes done and expected. Safe to use from many threads; `clock` counts seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self.files_total = self.files_done = self.bytes_total = self.bytes_done = 0
        self._samples: deque[tuple[float, int, int]] = deque([(clock(), 0, 0)])  # time, files, bytes

    def expect(self, files: int = 0, size: int = 0) -> None:
        """So many more files and bytes are to be done."""
        with self._lock:
            self.files_total += files
            self.bytes_total += size

    def add(self, files: int = 0, size: int = 0) -> None:
        """So many more files and bytes are done."""
        with self._lock:
            self.files_done += files
            self.bytes_done += size
            now = self._clock()
            if now - self._samples[-1][0] >= STEP:
                self._samples.append((now, self.files_done, self.bytes_done))
            while len(self._samples) > 1 and self._samples[1][0] <= now - WINDOW:
                self._samples.popleft()

    @property
    def rate(self) -> float:
        """Bytes per second over the last 20 seconds or so."""
        return self._speed(0)

    @property
    def seconds_left(self) -> float | None:
        """Seconds until all that is expected is done; None while nobody can know."""
        files, size = self.files_total - self.files_done, self.bytes_total - self.bytes_done
        left = max(size, 0) + PER_FILE * max(files, 0)
        if not left:
            return 0.0
        speed = self._speed(PER_FILE)
        return left / speed if speed else None

    def _speed(self, per_file: int) -> float:
        with self._lock:
            start, files, size = self._samples[0]
            now = self._clock()
            for sample in self._samples:  # also when nothing has been done for a while
                if sample[0] > now - WINDOW:
                    break
                start, files, size = sample
            done = self.bytes_done - size + per_file * (self.files_done - files)
            return done / (now - start) if now > start else 0.0
