"""How a process of this package is started beside us or on another machine. Standard library only."""

import sys
from dataclasses import dataclass, field
from pathlib import Path

_ROOT = Path(__file__).absolute().parents[2]  # the folder of the sources, or the one file that we run from
_VERBS = {"supervisor": "supervise", "schedule": "schedule"}  # of the one file
_PYTHON = ("-S", "-P", "-X", "utf8")


@dataclass(frozen=True)
class Runner:
    """A Python and this package: a folder with its sources, or the one file that `bundle` makes of it.

    `root` and `python` have to be at these paths wherever it is used. `-S` keeps site-packages out: what is
    started so needs none, and starts in milliseconds.
    """

    python: str = field(default_factory=lambda: sys.executable)
    root: Path = _ROOT

    def argv(self, module: str) -> tuple[str, ...]:
        """The command that runs the module `supervisor` or `schedule`; its arguments are to follow."""
        if self.root.is_file():
            return (self.python, *_PYTHON, str(self.root), _VERBS[module])
        return (self.python, *_PYTHON, "-m", f"scipion_cloud.jobs.{module}")

    @property
    def env(self) -> dict[str, str]:
        """The variables that the command needs."""
        return {} if self.root.is_file() else {"PYTHONPATH": str(self.root)}
