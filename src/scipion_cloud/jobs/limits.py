"""What the jobs of one machine may use together."""

import os
from pathlib import Path
from typing import NamedTuple

from scipion_cloud.errors import JobError

_CGROUP = Path("/sys/fs/cgroup")


class Limits(NamedTuple):
    """CPUs, memory and length of the queue."""

    cpus: int
    memory_gb: float  # GiB
    max_queued: int = 10_000

    @classmethod
    def of_machine(
        cls, cpus: int | None = None, memory_gb: float | None = None, max_queued: int = 10_000
    ) -> "Limits":
        """What is given; for the rest all CPUs and 90 % of the memory that this process may use."""
        return cls(cpus or len(os.sched_getaffinity(0)), memory_gb or 0.9 * _memory_gb(), max_queued)

    def check(self, cpus: int, memory_gb: float) -> None:
        """Raises JobError when a job asks for more than all there is."""
        if cpus > self.cpus:
            raise JobError(
                f"The job asks for {cpus} CPUs, but jobs on this machine have {self.cpus}. "
                "Ask for fewer, or raise `cpus` in the configuration."
            )
        if memory_gb > self.memory_gb:
            raise JobError(
                f"The job asks for {memory_gb:g} GiB of memory, but jobs on this machine have "
                f"{self.memory_gb:.1f} GiB. "
                "Ask for less, or raise `memory_gb` in the configuration."
            )


def _memory_gb() -> float:
    """Memory of the machine or of the container that we are in, GiB."""
    size = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    for name in ("memory.max", "memory/memory.limit_in_bytes"):
        try:
            size = min(size, int((_CGROUP / name).read_text()))
        except (OSError, ValueError):  # no such cgroup version, or "max"
            continue
    return size / 2**30
