"""What people and programs ask of a running agent, from the moment of asking to the answer."""

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any


class Ask(StrEnum):
    """The kinds of orders that are worked off one after the other."""

    SAVE = "save"
    REVERT = "revert"


@dataclass(eq=False)
class Order:
    """One thing asked for. `done` is set once `answer` or `error` says how it went."""

    ask: Ask
    generation: int | None = None  # REVERT: to which one
    done: threading.Event = field(default_factory=threading.Event)
    answer: dict[str, Any] | None = None
    error: str | None = None

    def finish(self, answer: dict[str, Any]) -> None:
        """It has been carried out."""
        self.answer = answer
        self.done.set()

    def fail(self, text: str) -> None:
        """It could not be carried out."""
        self.error = text
        self.done.set()


class Orders:
    """The agent's inbox. Thread-safe; `wake` is set whenever something has come."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: list[Order] = []
        self.wake = threading.Event()
        self.closing = threading.Event()  # stop what can be stopped, save, release
        self.hurry = threading.Event()  # it has been said twice: no more waiting for others
        self.allowed = False  # a person has said yes to what the next save removes
        self._refused: str | None = None

    def add(self, order: Order) -> Order:
        """Ask for something; at once refused when the agent takes no more."""
        with self._lock:
            if self._refused is None:
                self._waiting.append(order)
        if self._refused is not None:
            order.fail(self._refused)
        self.wake.set()
        return order

    def take(self, ask: Ask) -> list[Order]:
        """All orders of a kind that have come until now."""
        with self._lock:
            taken = [o for o in self._waiting if o.ask is ask]
            self._waiting = [o for o in self._waiting if o.ask is not ask]
        return taken

    def has(self, ask: Ask) -> bool:
        """Whether such an order waits."""
        with self._lock:
            return any(o.ask is ask for o in self._waiting)

    def refuse(self, text: str) -> None:
        """Answer all that wait, and all that come later, with this."""
        with self._lock:
            self._refused = text
            waiting, self._waiting = self._waiting, []
        for order in waiting:
            order.fail(text)

    def close(self) -> None:
        """Ask for the end; a second time: do not wait for anybody."""
        if self.closing.is_set():
            self.hurry.set()
        self.closing.set()
        self.wake.set()

    def allow(self) -> None:
        """The next save that succeeds may remove as much as it likes; it is made now."""
        self.allowed = True
        self.add(Order(Ask.SAVE))

    def wait(self, until: datetime | None, now: Callable[[], datetime], at_most: float = 1.0) -> None:
        """Sleep until something comes or the time has come, `at_most` seconds."""
        left = at_most if until is None else min(at_most, (until - now()).total_seconds())
        if left > 0:
            self.wake.wait(left)
        self.wake.clear()
