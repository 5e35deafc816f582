"""Slow work beside the tick."""

import threading
from collections.abc import Callable, Hashable
from concurrent.futures import Future
from typing import Any, TypeVar

T = TypeVar("T")


class Background:
    """Threads for work that takes longer than a tick, may be repeated, and touches no database.

    Nothing is remembered about work whose result has been fetched. The threads die with the process.
    """

    def __init__(self, at_once: int = 4, done: Callable[[], None] = lambda: None) -> None:
        """Do `at_once` pieces of work at a time, and call `done` from the thread after each."""
        self._done = done
        self._turns = threading.Semaphore(at_once)
        self._going: dict[Hashable, Future[Any]] = {}

    def poll(self, key: Hashable, work: Callable[[], T]) -> T | None:
        """None until the work with this key, begun by the first call, is done; then its result, once.

        Raises what the work raised.
        """
        return self.poll_with(key, lambda: work)

    def poll_with(self, key: Hashable, begin: Callable[[], Callable[[], T]]) -> T | None:
        """The same for work that needs something from here: `begin` collects it and returns the work."""
        future = self._going.get(key)
        if future is None:
            work = begin()
            future = self._going[key] = Future()
            threading.Thread(target=self._do, args=(future, work), daemon=True).start()
        if not future.done():
            return None
        del self._going[key]
        result: T = future.result()
        return result

    def forget(self, key: Hashable) -> None:
        """The result of this work, if it was begun, is not wanted any more."""
        self._going.pop(key, None)

    def _do(self, future: Future[Any], work: Callable[[], Any]) -> None:
        with self._turns:
            try:
                future.set_result(work())
            except BaseException as e:  # noqa: BLE001 - handed to whoever polls
                future.set_exception(e)
        self._done()
