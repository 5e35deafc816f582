"""Slurm's programs as processes: started in the foreground, and found again by their environment."""

import os
import re
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from scipion_cloud.jobs import processes

MARK = "SCIPION_CLOUD_SLURM"  # names the slurm.conf in the environment of a cluster's programs
STEP = "slurmstepd"  # has slurmd's environment, and lives on with its job when slurmd ends


@dataclass(frozen=True)
class Daemon:
    """A program to keep running in the foreground, and how to know that it is of use."""

    name: str
    argv: Sequence[str]
    env: Mapping[str, str]  # all of it
    log: Path
    ready: Callable[[], bool]


def spawn(daemon: Daemon) -> "subprocess.Popen[bytes]":
    """Start one as our child, in its own session; it gets SIGTERM when our thread dies."""
    with daemon.log.open("ab") as log:
        return subprocess.Popen(
            ["setpriv", "--pdeathsig", "TERM", "--", *daemon.argv],
            env=daemon.env,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )


def servers(conf: Path, program: str = "") -> processes.Found:
    """The live programs of the cluster with this slurm.conf, whoever started them; or those of one name."""
    mark = _variable(MARK, conf)
    names = {(pid, start): _program(pid) for pid, start, v in _processes() if mark in v}
    return {pid: start for (pid, start), name in names.items() if name != STEP and program in ("", name)}


def workers(conf: Path) -> processes.Found:
    """What the jobs of this cluster have left: whatever carries its slurm.conf and a job's number."""
    mark, cluster = _variable(MARK, conf), _variable("SLURM_CONF", conf)
    return {
        pid: start
        for pid, start, v in _processes()
        if (mark in v and _program(pid) == STEP)
        or (cluster in v and any(x.startswith(b"SLURM_JOB_ID=") for x in v))
    }


def _processes() -> Iterator[tuple[int, int, list[bytes]]]:
    """(pid, start, environment) of all processes but this one, as far as we may know."""
    for entry in os.scandir("/proc"):
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            variables = Path(entry.path, "environ").read_bytes().split(b"\0")
        except OSError:  # ended, or another user's
            continue
        start = processes.started(int(entry.name))
        if start is not None:
            yield int(entry.name), start, variables


def _variable(name: str, value: Path) -> bytes:
    return f"{name}=".encode() + os.fsencode(value)


def _program(pid: int) -> str:
    """A program's own name (Debian's files are called slurmd-wlm and so on); empty if it is gone."""
    try:
        return re.split("[- ]", Path(f"/proc/{pid}/exe").readlink().name)[0]
    except OSError:
        return ""
