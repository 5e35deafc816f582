"""While people work: save every few minutes, and whenever it is asked for."""

from datetime import timedelta
from typing import Any

from scipion_cloud.deployments.context import Context, now
from scipion_cloud.deployments.orders import Ask, Order
from scipion_cloud.deployments.saving import Outcome, Saver
from scipion_cloud.deployments.staging import Staging
from scipion_cloud.deployments.states import Phase
from scipion_cloud.deployments.troubles import advice
from scipion_cloud.errors import LeaseLost


class Working:
    """The phases READY and SAVING."""

    def __init__(self, context: Context, saver: Saver, staging: Staging) -> None:
        self._context, self._saver, self._staging = context, saver, staging
        self._backoff = context.backoff()

    def work(self) -> None:
        """Until it is to close. Raises LeaseLost once somebody else has the project."""
        context = self._context
        self._plan(timedelta(0) if self._saver.lease.generation is None else context.settings.every)
        self._ready()
        while not self._is_over():
            if self._saver.lease.lost.is_set():
                self._saver.lease.check()
            orders = context.orders
            reverts = orders.take(Ask.REVERT)
            for order in reverts:
                self._revert(order)
            if orders.has(Ask.SAVE) or now() >= self._next:
                self._save()
            elif not reverts:
                orders.wait(self._next, now)

    def _is_over(self) -> bool:
        board, orders = self._context.board, self._context.orders
        deadline = board.deadline
        if deadline is not None and now() >= deadline and not orders.closing.is_set():
            orders.close()
        return orders.closing.is_set()

    def _plan(self, wait: timedelta) -> None:
        self._next = now() + wait
        self._context.board.set(next_save=self._next)

    def _ready(self, message: str = "The project is here; work is saved by itself.") -> None:
        self._context.board.enter(Phase.READY, message)

    def _save(self, note: str = "") -> Outcome:
        """One save, for all that asked for it until now."""
        context = self._context
        orders = context.orders.take(Ask.SAVE)
        context.board.enter(Phase.SAVING, "Saving what has changed. Work goes on meanwhile.", next_save=None)
        try:
            outcome = self._saver.save(note or ("asked for" if orders else "autosave"))
        except LeaseLost as e:
            if self._saver.lease.lost.is_set():
                for order in orders:
                    order.fail(str(e))
                raise
            context.board.error(str(e))
            outcome = Outcome(error=str(e))
        if outcome.error is None:
            self._backoff.succeeded()
            self._plan(context.settings.every)
        else:
            wait = timedelta(seconds=self._backoff.failed())
            self._plan(max(wait, context.settings.every) if outcome.asks else wait)
        self._ready(describe(outcome))
        for order in orders:
            settle(order, outcome)
        if outcome.changed and not context.closing.is_set():
            self._expire()
        return outcome

    def _expire(self) -> None:
        """Let go of old generations."""
        try:
            self._saver.expire()
        except LeaseLost as e:
            if self._saver.lease.lost.is_set():
                raise
            self._context.board.error(str(e))

    def _revert(self, order: Order) -> None:
        """Save; go to the generation; save that."""
        number = order.generation or 0
        if not self._staging.whole.is_set():
            return order.fail("The project is still arriving. Wait until all of it is here, then go back.")
        before = self._save(f"before going back to generation {number}")
        if before.error is not None:
            return order.fail(
                f"Nothing was changed, since the work of now could not be saved: {before.error}"
            )
        try:
            self._context.board.enter(Phase.SAVING, f"Going back to generation {number}.", next_save=None)
            self._saver.revert(number)
        except Exception as e:  # noqa: BLE001 - an order that fails is no reason to end
            text = advice(e, self._context.settings.work)
            self._context.board.error(text)
            self._ready("The project could not be taken back to an earlier generation.")
            return order.fail(text)
        self._context.orders.allowed = True  # to remove what that generation does not have was the wish
        settle(order, self._save(f"back to generation {number}"))


def answer(outcome: Outcome) -> dict[str, Any]:
    """What somebody who waited for a save is told."""
    done = outcome.saved
    assert done is not None  # noqa: S101 - only of one that succeeded
    return {
        "saved": done.generation is not None,
        "generation": done.generation.number if done.generation else None,
        "files": done.files,
        "bytes": done.bytes,
        "problems": len(done.problems),
    }


def settle(order: Order, outcome: Outcome) -> None:
    """Tell the one who asked."""
    if outcome.error is not None:
        order.fail(outcome.error)
    else:
        order.finish(answer(outcome))


def describe(outcome: Outcome) -> str:
    """The sentence for the status."""
    if outcome.asks:
        return "The last save waits for an answer. Work goes on."
    if outcome.error is not None:
        return "The last save failed; it is tried again soon. Work goes on."
    if outcome.saved is None or outcome.saved.generation is None:
        return "All is saved; nothing has changed since."
    return f"Saved as generation {outcome.saved.generation.number}."
