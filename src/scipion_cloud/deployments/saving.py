"""One save at a time: its progress, its outcome on the board, and what is kept of earlier ones."""

import math
import time
from dataclasses import dataclass
from datetime import timedelta

from scipion_cloud.deployments.context import Context, now
from scipion_cloud.deployments.staging import transfer
from scipion_cloud.deployments.status import Transfer
from scipion_cloud.deployments.troubles import advice
from scipion_cloud.errors import LeaseLost, NeedsConfirmation
from scipion_cloud.sync.copy import WorkingCopy
from scipion_cloud.sync.lease import Lease
from scipion_cloud.sync.progress import Problem, Progress
from scipion_cloud.sync.repository import Repository
from scipion_cloud.sync.restore import revert
from scipion_cloud.sync.retention import expire
from scipion_cloud.sync.save import Saved, save

EXPIRE_EVERY = timedelta(hours=1)


@dataclass(frozen=True)
class Outcome:
    """How a save went: `saved`, or `error` with what to do about it."""

    saved: Saved | None = None
    error: str | None = None
    asks: bool = False  # the error is a question to a person

    @property
    def left(self) -> tuple[Problem, ...]:
        """What lies in the working copy and is not in the storage though the save went well."""
        return tuple(p for p in self.saved.problems if p.unsaved) if self.saved else ()

    @property
    def changed(self) -> bool:
        """Whether a new generation was made."""
        return self.saved is not None and self.saved.generation is not None


class Saver:
    """Saves the working copy, under a lease that may be exchanged for a fresh one of the same deployment."""

    def __init__(self, context: Context, repository: Repository, copy: WorkingCopy, lease: Lease) -> None:
        self._context, self._repository, self._copy = context, repository, copy
        self.lease = lease
        self._progress: Progress | None = None
        self._expired = -math.inf  # when that was done last, by the monotonic clock

    def progress(self) -> Transfer | None:
        """How far the save that is running has come."""
        progress = self._progress
        return None if progress is None else transfer(progress)

    def save(self, note: str) -> Outcome:
        """Save once. Never raises but LeaseLost: what else went wrong is in the outcome and on the board."""
        board, settings = self._context.board, self._context.settings
        self._progress = Progress()
        try:
            done = save(
                self._copy,
                self._repository,
                self.lease,
                note=note,
                allow_deletions=self._context.orders.allowed,
                max_deleted=settings.max_deleted,
                progress=self._progress,
            )
        except LeaseLost:
            board.set(unsaved=True)
            raise
        except NeedsConfirmation as e:
            board.set(unsaved=True, question=str(e))
            return Outcome(error=str(e), asks=True)
        except Exception as e:  # noqa: BLE001 - whatever it is, the working copy is what counts: try again
            text = advice(e, settings.state)
            board.error(f"Not saved: {text}")
            board.set(unsaved=True)
            return Outcome(error=text)
        finally:
            self._progress = None
        self._context.orders.allowed = False  # it counts once
        outcome = Outcome(saved=done)
        self._note(done, unsaved=bool(outcome.left))
        return outcome

    def revert(self, number: int) -> None:
        """Make the working copy an earlier generation. Raises NotFound, and what `sync.revert` raises."""
        self._progress = Progress()
        try:
            generation = self._repository.generation(number)
            revert(self._repository, generation, self._copy, progress=self._progress)
        finally:
            self._progress = None

    def expire(self) -> None:
        """Let go of old generations, if that was not done within the last hour."""
        if time.monotonic() - self._expired < EXPIRE_EVERY.total_seconds():
            return
        self._expired = time.monotonic()
        try:
            expire(self._repository, self.lease, self._context.settings.retention, now())
        except LeaseLost:
            raise
        except Exception as e:  # noqa: BLE001 - room is lost, nothing else
            self._context.board.error(f"Old generations stay: {advice(e, self._context.settings.state)}")

    def _note(self, done: Saved, *, unsaved: bool) -> None:
        board, moment = self._context.board, now()
        board.problems(done.problems)
        if done.generation is None:
            board.set(last_checked=moment, unsaved=unsaved, question=None)
            return
        number = self.lease.generation = done.generation.number
        board.set(last_saved=moment, last_checked=moment, unsaved=unsaved, question=None, generation=number)
