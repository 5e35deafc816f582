"""The end: the last save, until it succeeds; then the release."""

import os
import shutil
import time

from scipion_cloud.deployments import session as sessions
from scipion_cloud.deployments.board import readable
from scipion_cloud.deployments.context import Context
from scipion_cloud.deployments.orders import Ask
from scipion_cloud.deployments.saving import Outcome, Saver
from scipion_cloud.deployments.staging import Staging
from scipion_cloud.deployments.states import Phase
from scipion_cloud.deployments.tasks import Task
from scipion_cloud.deployments.troubles import advice
from scipion_cloud.deployments.working import settle
from scipion_cloud.errors import LeaseLost, ScipionCloudError
from scipion_cloud.sync.copy import WorkingCopy
from scipion_cloud.sync.lease import Lease

TRIES = 3  # before the status says that the final save fails
ROUNDS = 3  # of saving what was still written during the save before
_POLL = 0.2  # s


class Closing:
    """The phases STAGING_OUT and SAVE_FAILED."""

    def __init__(self, context: Context, saver: Saver, staging: Staging, copy: WorkingCopy) -> None:
        self._context, self._saver, self._staging, self._copy = context, saver, staging, copy

    def close(self) -> None:
        """Save until all is in the storage, and release. Raises LeaseLost once somebody else has it."""
        context = self._context
        context.board.enter(Phase.STAGING_OUT, "Closing: the last save.", next_save=None)
        for order in context.orders.take(Ask.REVERT):
            order.fail("The project is being closed: open it again to go back to an earlier generation.")
        self._staging.stop(grace=5.0)
        self._wait_for_others()
        self._save_all()
        context.session = sessions.closed(context.settings.state, context.session)
        self.give_back(context, self._saver.lease)
        self._copy.close()
        kept = not context.settings.remove_work or context.board.read().unsaved
        removed = not kept and self._remove_work()
        context.board.enter(
            Phase.RELEASED,
            f"All is saved, and the project is closed.{' The working copy was removed.' if removed else ''}",
        )

    def _wait_for_others(self) -> None:
        """Give programs that work in the folder time to finish; the second wish to close ends it."""
        grace = self._context.settings.stop_grace.total_seconds()
        if grace > 0:
            text = f"Closing: programs have {grace:.0f} s to finish, then comes the last save."
            self._context.board.set(message=text)
            self._context.orders.hurry.wait(grace)

    def _save_all(self) -> None:
        context, board = self._context, self._context.board
        backoff = context.backoff()
        failures = rounds = 0
        while True:
            answered = context.orders.allowed
            outcome = self._save()
            if outcome.error is None and (answered or not outcome.left):
                rounds += 1
                if not outcome.changed or rounds == ROUNDS:
                    return
                continue
            failures += 1
            wait = backoff.failed()
            if failures >= TRIES or outcome.asks:
                if outcome.left:
                    board.set(question=_what_is_left(outcome))
                board.enter(
                    Phase.SAVE_FAILED,
                    "The working copy and the lock are kept, and it is tried again until it succeeds. "
                    f"{outcome.error or _what_is_left(outcome)}",
                )
            self._wait(wait)

    def _save(self) -> Outcome:
        orders = self._context.orders.take(Ask.SAVE)
        try:
            outcome = self._saver.save("closing")
        except LeaseLost as e:
            if self._saver.lease.lost.is_set():
                for order in orders:
                    order.fail(str(e))
                raise
            self._context.board.error(str(e))
            outcome = Outcome(error=str(e))
        for order in orders:
            settle(order, outcome)
        return outcome

    def _wait(self, seconds: float) -> None:
        """Until the next try: the time is over, somebody asks for it or answers, or the lease is lost."""
        orders, end = self._context.orders, time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            if orders.has(Ask.SAVE) or self._saver.lease.lost.is_set():
                return
            orders.wake.wait(min(left, 1.0))
            orders.wake.clear()

    @staticmethod
    def give_back(context: Context, lease: Lease, patience: float | None = None) -> None:
        """Release the lease, trying on; one that somebody else has by now is fine.

        Nothing is unsaved: after `patience` seconds, or a second wish to end, it may as well expire.
        """
        backoff, began = context.backoff(), time.monotonic()
        while True:
            task = Task(lambda: lease.release(lease.generation), "release")
            while not task.done.wait(_POLL):
                if _is_enough(context, began, patience):
                    return
            try:
                return task.result()
            except LeaseLost:
                return
            except (ScipionCloudError, OSError) as e:
                text = advice(e, context.settings.work)
                context.board.error(f"All is saved, but the lock cannot be released yet: {text}")
            end = time.monotonic() + backoff.failed()
            while time.monotonic() < end:
                if _is_enough(context, began, patience):
                    return
                time.sleep(_POLL)

    def _remove_work(self) -> bool:
        """Empty the working copy; the folder itself may be a mount."""
        try:
            for entry in os.scandir(self._context.settings.work):
                if entry.is_dir(follow_symlinks=False):
                    shutil.rmtree(entry.path)
                else:
                    os.unlink(entry.path)  # noqa: PTH108 - the name may be any bytes
        except OSError as e:
            self._context.board.error(f"The working copy could not be removed: {e.strerror}.")
            return False
        return True


def _what_is_left(outcome: Outcome) -> str:
    """The question whether to close without it."""
    first = outcome.left[0]
    return (
        f"{len(outcome.left)} files could not be saved, as {readable(first.path)}, which {first.text} Mend "
        "that; or confirm that the project is closed without their present content."
    )


def _is_enough(context: Context, began: float, patience: float | None) -> bool:
    return context.orders.hurry.is_set() or (patience is not None and time.monotonic() - began > patience)
