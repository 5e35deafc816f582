"""What people are told of a job that is away, as the reason of its state."""

import time
from collections.abc import Callable
from datetime import datetime

from scipion_cloud.broker.transfer import Progress
from scipion_cloud.broker.words import size_words, time_words
from scipion_cloud.jobs import JobId
from scipion_cloud.jobs.away import Away

TELL_EVERY = 2.0  # s


class Telling:
    """Tells of one job, each thing once and not too often."""

    def __init__(self, away: Away, job: JobId) -> None:
        self._away, self._job = away, job
        self._told, self._at = "", 0.0

    def waits(self, reason: str) -> None:
        """It is not computed yet."""
        if self._is_news(reason):
            self._away.queued(self._job, reason)

    def runs(self, reason: str, started: datetime | None) -> None:
        """It is computed, or has been and is on its way back."""
        if self._is_news(reason):
            self._away.running(self._job, started, reason)

    def afresh(self) -> None:
        """Tell the next thing at once."""
        self._told = ""

    def _is_news(self, reason: str) -> bool:
        now = time.monotonic()
        if reason == self._told or (now - self._at < TELL_EVERY and self._told):
            return False
        self._told, self._at = reason, now
        return True


def sending(label: str, size: int, tell: Callable[[str], None]) -> Callable[[Progress], None]:
    """Tells how far so many bytes are on their way to a site with this label."""

    def told(progress: Progress) -> None:
        part = f", {progress.done / size:.0%}" if size and progress.done else ""
        left = (size - progress.done) / progress.rate if progress.rate else 0.0
        rest = f", {time_words(left)} left" if left > 1 else ""
        tell(f"sending {size_words(size)} to {label}{part}{rest}")

    return told
