"""Threads that do a list of tasks: small ones many at a time, large ones meanwhile."""

import os
import threading
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence

FEW = 2  # threads
PANIC = "PanicException"  # of PyO3, which gives it no name that could be imported

Task = Callable[[], None]


def run_all(small: Iterable[Task], large: Iterable[Task], threads: int) -> None:
    """Do all tasks. A quarter of the threads begins with the large ones, and helps out when these are done.

    One or two threads are for the small ones only; two more do the large ones meanwhile. The first error
    stops all threads after the task that each is at, and is raised. A panic of a library in Rust ends the
    process like a kill: other threads may wait for that library for ever.
    """
    queues = (_Queue(small), _Queue(large))
    errors: list[BaseException] = []

    def work(order: Iterable[_Queue]) -> None:
        for queue in order:
            for task in queue:
                if errors:
                    return
                try:
                    task()
                except BaseException as e:  # noqa: BLE001 - raised again by the thread that waits
                    if type(e).__name__ == PANIC:
                        traceback.print_exc()
                        os.abort()
                    errors.append(e)
                    return

    orders: list[Sequence[_Queue]]
    if threads > FEW:
        movers = max(threads // 4, FEW)
        orders = [*[queues[::-1]] * movers, *[queues] * (threads - movers)]
    else:
        orders = [*[queues[1:]] * FEW, *[queues] * max(threads, 1)]
    crew = [threading.Thread(target=work, args=(order,), daemon=True) for order in orders]
    try:
        for member in crew:
            member.start()
        for member in crew:
            member.join()
    except BaseException as e:
        errors.append(e)
        for member in crew:
            if member.ident is not None:
                member.join()
        raise
    if errors:
        raise errors[0]


class _Queue:
    """An iterator for many threads."""

    def __init__(self, tasks: Iterable[Task]) -> None:
        self._tasks = iter(tasks)
        self._lock = threading.Lock()

    def __iter__(self) -> Iterator[Task]:
        return self

    def __next__(self) -> Task:
        with self._lock:
            return next(self._tasks)
