"""A Slurm's nodes as it sees them, and what we ask of it. Every method may raise JobError."""

import os
import re
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from scipion_cloud.cluster.hostlist import expand
from scipion_cloud.errors import JobError

OURS = "scipion-cloud: "
"""What our reasons for a node that is down begin with."""

_SLURMS = ("ResumeTimeout", "Not responding", "Node unexpectedly rebooted")
_LONGEST = 300  # characters of a reason
_GONE = "Invalid job|no longer pending|already finished"  # what is said of a job that has moved on meanwhile
_WITHIN = 60.0  # s; a controller that is being started blocks its clients
_FIELDS = re.compile(r"(\w+)=(\S*)")
_REASON = re.compile(r" Reason=(.*) \[[^@\]]*@([^\]]*)\]")


@dataclass(frozen=True)
class SlurmNode:
    """A node in Slurm's eyes. Of `off`, `wanted`, `down` one at most is true; of none, it is `on`."""

    name: str
    flags: frozenset[str]  # IDLE, CLOUD, POWERED_DOWN ...
    cpus: int = 0
    cpus_used: int = 0
    memory_gb: float = 0.0  # GiB
    reason: str = ""
    reason_at: datetime | None = None

    @property
    def down(self) -> bool:
        """It gets no jobs until somebody says so."""
        return "DOWN" in self.flags

    @property
    def off(self) -> bool:
        """There need not be a machine."""
        return not self.down and bool({"POWERED_DOWN", "POWERING_DOWN"} & self.flags)

    @property
    def wanted(self) -> bool:
        """Slurm waits for it to come."""
        return not self.down and not self.off and "POWERING_UP" in self.flags

    @property
    def on(self) -> bool:
        """It has come, and can have jobs."""
        return not (self.down or self.off or self.wanted)

    @property
    def ours(self) -> bool:
        """It is down because of us or of Slurm itself; else a person did it, and has to undo it."""
        return self.reason.startswith((OURS, *_SLURMS))


@dataclass(frozen=True)
class SlurmJob:
    """A job that has nodes."""

    id: str
    name: str
    nodes: tuple[str, ...] = field(default=())


@dataclass(frozen=True)
class Control:
    """The commands of the Slurm of one slurm.conf."""

    conf: Path

    def nodes(self) -> dict[str, SlurmNode]:
        """All nodes by name, in one call."""
        lines = self._run("scontrol", "--oneliner", "show", "nodes").splitlines()
        nodes = [_node(line) for line in lines if line.startswith("NodeName=")]
        return {node.name: node for node in nodes}

    def jobs(self) -> list[SlurmJob]:
        """The jobs that have nodes, in one call."""
        text = self._run("squeue", "-h", "-t", "CF,R,S,CG", "-o", "%i|%j|%N")
        rows = [line.split("|", 1) for line in text.splitlines()]
        return [SlurmJob(number, *_name_and_nodes(rest)) for number, rest in rows if not rest.endswith("|")]

    def fail(self, names: Sequence[str], reason: str) -> None:
        """Give these nodes up. Their jobs are queued again: those that may run twice, and all that have not
        begun, which Slurm would otherwise end."""
        mended = [job for job in self._configuring(names) if self._set_requeue(job, "1", only_if="0")]
        self._update(names, "State=DOWN", f"Reason={OURS}{' '.join(reason.split())[:_LONGEST]}")
        for job in mended:
            self._set_requeue(job, "0", only_if="1")
        self.hurry()

    def switch_off(self, names: Sequence[str]) -> None:
        """Let Slurm take these nodes for switched off, so that it may ask for them again."""
        self._update(names, "State=POWER_DOWN_FORCE")

    def resume(self, names: Sequence[str]) -> None:
        """Let Slurm ask for these nodes although no job wants them."""
        self._update(names, "State=POWER_UP")

    def suspend(self, names: Sequence[str]) -> None:
        """Let these nodes go when their jobs have ended, without the usual delay; they get no new ones."""
        self._update(names, "State=POWER_DOWN_ASAP")

    def hurry(self) -> None:
        """Let jobs that were queued again start now: the two minutes that Slurm waits are for a node that may
        still be at work on them, and ours are gone."""
        text = self._run("squeue", "-h", "-t", "PD", "-O", "JobID:|,Reason:|,RestartCnt:|")
        for line in text.splitlines():
            job, reason, restarts = line.split("|")[:3]
            if reason == "BeginTime" and restarts not in ("", "0"):
                self._run("scontrol", "update", f"JobId={job}", "StartTime=now", but=_GONE)

    def _configuring(self, names: Sequence[str]) -> list[str]:
        return self._run("squeue", "-h", "-t", "CF", "-w", ",".join(names), "-o", "%i").split()

    def _set_requeue(self, job: str, value: str, only_if: str) -> bool:
        """Say whether a job may be queued again. False if it was not as told."""
        told = self._run("scontrol", "--oneliner", "show", "job", job, but=_GONE)
        if f" Requeue={only_if} " not in told:
            return False
        self._run("scontrol", "update", f"JobId={job}", f"Requeue={value}", but=_GONE)
        return True

    def _update(self, names: Sequence[str], *words: str) -> None:
        if names:
            self._run("scontrol", "update", f"NodeName={','.join(names)}", *words)

    def _run(self, *argv: str, but: str = "") -> str:
        """What a command prints; its failure is none if it says `but`, a regular expression."""
        environ = {**os.environ, "SLURM_CONF": str(self.conf), "TZ": "UTC", "LC_ALL": "C.UTF-8"}
        try:
            done = subprocess.run(
                argv,
                env=environ,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=_WITHIN,
                check=False,
            )
        except FileNotFoundError as e:
            raise JobError(f"{argv[0]} is missing. Run: apt-get install -y slurm-client") from e
        except subprocess.TimeoutExpired as e:
            raise JobError(f"Slurm does not answer: {argv[0]} took more than {_WITHIN:g} s.") from e
        if done.returncode and not (but and re.search(but, done.stderr)):
            raise JobError(f"{argv[0]} failed: {done.stderr.strip() or done.stdout.strip()}")
        return done.stdout


def jobs_by_node(jobs: Iterable[SlurmJob]) -> Mapping[str, tuple[str, ...]]:
    """Names of the jobs on each node that has any."""
    found: dict[str, list[str]] = {}
    for job in jobs:
        for name in job.nodes:
            found.setdefault(name, []).append(job.name)
    return {name: tuple(sorted(names)) for name, names in found.items()}


def _name_and_nodes(text: str) -> tuple[str, tuple[str, ...]]:
    """A job's name may hold anything, a list of nodes no bar."""
    name, _, nodes = text.rpartition("|")
    return name, expand(nodes)


def _node(line: str) -> SlurmNode:
    head, _, _ = line.partition(" Reason=")
    told = dict(_FIELDS.findall(head))
    reason = _REASON.search(line)
    return SlurmNode(
        name=told["NodeName"],
        flags=frozenset(told["State"].replace("*", "").split("+")),
        cpus=int(told.get("CPUTot", 0)),
        cpus_used=int(told.get("CPUAlloc", 0)),
        memory_gb=int(told.get("RealMemory", 0)) / 1024,
        reason=reason[1] if reason else "",
        reason_at=_time(reason[2]) if reason else None,
    )


def _time(text: str) -> datetime | None:
    try:
        return datetime.fromisoformat(text).replace(tzinfo=UTC)
    except ValueError:  # "Unknown"
        return None
