"""What a person sees of long work: a line per step with a tick and its time, and one for what goes on now."""

import contextlib
import os
import time
from collections.abc import Iterator

from rich.console import Console
from rich.live import Live
from rich.spinner import Spinner
from rich.text import Text

from scipion_cloud.provision.process import Report
from scipion_cloud.provision.steps import Step

TITLE_WIDTH = 26


class Progress:
    """Shows steps as they go by. A terminal has a living line at the bottom; elsewhere lines are plain."""

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console(highlight=False)
        self._lively = self.console.is_terminal and not self.console.is_dumb_terminal
        self._began = time.monotonic()

    def run(self, step: Step) -> None:
        """Do a step unless it has been done."""
        began = time.monotonic()
        if step.done():
            self._tick(step.title, time.monotonic() - began, "ready")
            return
        with self.doing(step.title) as report:
            step.work(report)

    @contextlib.contextmanager
    def doing(self, title: str) -> Iterator[Report]:
        """Around some work: gives a function to tell what goes on, and ticks the step off at the end."""
        began = time.monotonic()
        if not self._lively:
            self.say(f"… {title}")
        spinner = Spinner("dots", Text(title))

        def report(line: str) -> None:
            first = line.partition("\n")[0]
            spinner.text = Text.assemble(title.ljust(TITLE_WIDTH), (first, "dim"), no_wrap=True)
            spinner.text.truncate(max(20, self.console.width - 4), overflow="ellipsis")

        try:
            with self._bottom(spinner, refresh=True):
                yield report
        except BaseException:
            self.say(Text(f"✗ {title}", "red"))
            raise
        self._tick(title, time.monotonic() - began)

    @contextlib.contextmanager
    def status(self) -> Iterator[Report]:
        """A calm line at the bottom for as long as all is well; nothing where there is no terminal."""
        with self._bottom(Text(), refresh=False) as live:

            def report(line: str) -> None:
                if live:
                    with contextlib.suppress(OSError):  # the terminal has gone
                        live.update(Text(line, "dim", no_wrap=True, overflow="ellipsis"), refresh=True)

            yield report

    def say(self, line: str | Text) -> None:
        """A line that stays."""
        with contextlib.suppress(OSError):
            self.console.print(Text(line) if isinstance(line, str) else line, soft_wrap=True)

    def total(self, what: str) -> None:
        """Close a list of steps with the time since the beginning."""
        self.say(f"{what} after {seconds(time.monotonic() - self._began)}.")

    def mute(self) -> None:
        """Write nowhere from now on: the terminal is gone."""
        self.console.file = open(os.devnull, "w")  # noqa: SIM115, PTH123 - for the rest of the process

    @contextlib.contextmanager
    def _bottom(self, renderable: Spinner | Text, *, refresh: bool) -> Iterator[Live | None]:
        if not self._lively:
            yield None
            return
        with Live(renderable, console=self.console, transient=True, auto_refresh=refresh) as live:
            yield live

    def _tick(self, title: str, took: float, detail: str = "") -> None:
        time_taken = (f"{seconds(took):>10}", "dim")
        self.say(
            Text.assemble(
                ("✓ ", "green"), title.ljust(TITLE_WIDTH), time_taken, (f"  {detail}".rstrip(), "dim")
            )
        )


def seconds(value: float) -> str:
    """A duration for people: `0.3 s`, `12 s`, `3 min 20 s`."""
    if value < 10:
        return f"{value:.1f} s"
    if value < 120:
        return f"{value:.0f} s"
    return f"{value // 60:.0f} min {value % 60:.0f} s"
