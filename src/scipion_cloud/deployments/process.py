"""An agent as a process: signals mean close, and what happens is told line by line."""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from scipion_cloud.deployments.agent import Agent
from scipion_cloud.deployments.settings import AgentSettings
from scipion_cloud.deployments.states import Exit, Phase
from scipion_cloud.deployments.status import AgentStatus, Transfer, Trouble
from scipion_cloud.deployments.tasks import Task
from scipion_cloud.storage.allocator import give_back_large_blocks

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
_LOOK = 0.25  # s
_TELL = 10.0  # s between two lines about a copy that goes on

Say = Callable[[str], None]


def run(settings: AgentSettings, say: Say) -> Exit:
    """Run an agent to its end, from the main thread. Raises what `Agent.run` raises.

    The work is done in another thread, so that a signal is heard whatever goes on.
    """
    give_back_large_blocks()
    agent = Agent(settings)
    with _signals(agent.close):
        task = Task(agent.run, "agent")
        reporter = _Reporter(say)
        while not task.done.wait(_LOOK):
            if (status := agent.status_or_none()) is not None:
                reporter.look(status)
        code = task.result()
        if (status := agent.status_or_none()) is not None:
            reporter.look(status)
        return code


@contextmanager
def _signals(close: Callable[[], None]) -> Iterator[None]:
    """Call `close` for each signal that asks for the end."""

    def handler(_number: int, _frame: FrameType | None) -> None:
        close()

    before = {number: signal.getsignal(number) for number in SIGNALS}
    heard = [number for number, old in before.items() if old is not signal.SIG_IGN]  # nohup stays in force
    for number in heard:
        signal.signal(number, handler)
    try:
        yield
    finally:
        for number in heard:
            signal.signal(number, before[number])


class _Reporter:
    """Says what has changed since the last look; saves that go well only when there was something to save."""

    def __init__(self, say: Say) -> None:
        self._say = say
        self._said: list[str] = []
        self._errors: tuple[Trouble, ...] = ()
        self._silent = 0.0

    def look(self, status: AgentStatus) -> None:
        """Compare, and say what is new."""
        for error in reversed(status.errors):
            if error not in self._errors:
                self._say(f"! {error.text}")
        self._errors = status.errors
        self._silent += _LOOK
        if status.phase is not Phase.SAVING:
            news = _news(status)
            for line in news:
                if line not in self._said:
                    self._say(line)
                    self._silent = 0.0
            self._said = news
        moving = status.project if status.phase is Phase.STAGING_IN else status.saving
        if self._silent >= _TELL and moving is not None and moving.files_total:
            self._silent = 0.0
            self._say(f"{status.phase.replace('_', ' ')}: {describe(moving)}")


def _news(status: AgentStatus) -> list[str]:
    """What is worth a line when it is new."""
    lines = [f"{status.phase.replace('_', ' ')}: {status.message}"]
    if status.question:
        lines.append(f"question: {status.question}")
    if status.warning:
        lines.append("The project closes soon; its deadline can be set anew.")
    return lines


def describe(moving: Transfer) -> str:
    """How far a copy has come, in one line."""
    rate = f", {moving.rate / 1e6:.1f} MB/s" if moving.rate else ""
    left = f", {moving.seconds_left:.0f} s left" if moving.seconds_left is not None else ""
    return (
        f"{moving.files_done} of {moving.files_total} files, "
        f"{moving.bytes_done / 1e6:.1f} of {moving.bytes_total / 1e6:.1f} MB{rate}{left}"
    )
