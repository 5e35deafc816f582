"""What the jobs of one machine may use together."""

import os
from pathlib import Path
from typing import NamedTuple

from scipion_cloud.errors import JobRefused

_CGROUP = Path("/sys/fs/cgroup")


class Limits(NamedTuple):
    """CPUs, memory, length of the queue and GPUs."""

    cpus: int
    memory_gb: float  # GiB
    max_queued: int = 10_000
    gpus: int = 0

    @classmethod
    def of_machine(
        cls,
        cpus: int | None = None,
        memory_gb: float | None = None,
        max_queued: int = 10_000,
        gpus: int = 0,
    ) -> "Limits":
        """What is given; for the rest all CPUs and 90 % of the memory that this process may use, no GPU."""
        return cls(cpus or len(os.sched_getaffinity(0)), memory_gb or 0.9 * _memory_gb(), max_queued, gpus)

    def check(self, cpus: int, memory_gb: float, gpus: int = 0, here: bool = True) -> None:
        """Raises JobRefused when a job asks for more than all there is, `here` or on any one node."""
        where = "jobs on this machine have" if here else "the largest node has"
        raise_it = " or raise `{}` in the configuration." if here else " or send it where there is more."
        if cpus > self.cpus:
            raise JobRefused(
                f"The job asks for {cpus} CPUs, but {where} {self.cpus}. Ask for fewer,{raise_it}".format(
                    "cpus"
                )
            )
        if memory_gb > self.memory_gb:
            raise JobRefused(
                f"The job asks for {memory_gb:g} GiB of memory, but {where} {self.memory_gb:.1f} GiB. "
                f"Ask for less,{raise_it}".format("memory_gb")
            )
        if gpus > self.gpus:
            raise JobRefused(
                f"The job asks for {gpus} GPUs, but {where} {self.gpus or 'none'}. "
                f"Ask for fewer,{raise_it}".format("gpus")
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
