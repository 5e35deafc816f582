"""Work that may hang, done beside the agent so that a wish to stop is heard at once."""

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class Stopped(Exception):
    """The agent was told to stop before this was done."""


class Task(Generic[T]):
    """A function that runs in a thread of its own, which does not keep the process alive."""

    def __init__(self, function: Callable[[], T], name: str) -> None:
        self._function = function
        self._result: T | None = None
        self._error: BaseException | None = None
        self.done = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._result = self._function()
        except BaseException as e:  # noqa: BLE001 - it is raised where the result is asked for
            self._error = e
        finally:
            self.done.set()

    def result(self) -> T:
        """What the function returned, or raised, once it is done."""
        self.done.wait()
        if self._error is not None:
            raise self._error
        return self._result  # type: ignore[return-value] # it is a T when there was no error

    def result_unless(self, stop: threading.Event, grace: float) -> T:
        """The same, but raises Stopped `grace` seconds after `stop` is set if it is not done by then."""
        while not self.done.wait(0.05):
            if stop.is_set():
                if not self.done.wait(grace):
                    raise Stopped
                break
        return self.result()
