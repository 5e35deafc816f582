"""What a program costs: time, and the processor's."""

import os
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Cost:
    """Of one program and all that it has started here (a server's share is not in it)."""

    wall: float  # s
    cpu: float  # s, user and system
    memory: int = 0  # bytes; the most that the largest of the processes had

    def __add__(self, other: "Cost") -> "Cost":
        return Cost(self.wall + other.wall, self.cpu + other.cpu, max(self.memory, other.memory))


def run(
    command: Sequence[str | Path], *, env: Mapping[str, str] | None = None, answer: Path | None = None
) -> Cost:
    """Run a program to its end; what it prints goes to `answer`. Raises CalledProcessError."""
    with open(answer or os.devnull, "wb") as output:  # noqa: PTH123 - the null device too
        start = time.monotonic()
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, env={**os.environ, **(env or {})}
        )
        _, status, used = os.wait4(process.pid, 0)
        wall = time.monotonic() - start
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, [str(word) for word in command])
    return Cost(wall, used.ru_utime + used.ru_stime, used.ru_maxrss * 1024)
