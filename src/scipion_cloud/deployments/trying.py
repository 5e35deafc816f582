"""Requests that are made until they succeed, or until the agent is told to stop."""

import contextlib
import threading
from collections.abc import Callable
from functools import partial
from typing import TypeVar

from scipion_cloud.deployments.context import Context
from scipion_cloud.deployments.tasks import Stopped, Task
from scipion_cloud.deployments.troubles import advice, is_passing

T = TypeVar("T")

NEVER = threading.Event()  # to stop
GRACE = 2.0  # s that a request under way gets when the agent is told to stop


def try_on(
    context: Context,
    work: Callable[[], T],
    name: str,
    *,
    stop: threading.Event,
    undo: Callable[[T], None] | None = None,
) -> T:
    """What `work` returns, tried again after what may pass, with the error on the board.

    Raises Stopped once `stop` is set; `undo` is then given what comes too late. Raises what does not pass.
    """
    backoff = context.backoff()
    while True:
        task = Task(work, name)
        try:
            result = task.result_unless(stop, GRACE)
        except Stopped:
            if undo is not None:
                Task(partial(_undo, task, undo), f"undo {name}")
            raise
        except Exception as e:
            if not is_passing(e):
                raise
            context.board.error(advice(e, context.settings.work))
            if stop.wait(backoff.failed()):
                raise Stopped from e
            continue
        if stop.is_set():
            if undo is not None:
                _undo(task, undo)
            raise Stopped
        return result


def _undo(task: Task[T], undo: Callable[[T], None]) -> None:
    with contextlib.suppress(Exception):
        undo(task.result())
