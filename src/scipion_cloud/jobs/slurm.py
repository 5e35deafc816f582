"""Slurm, by its own commands (20.11 and later)."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from scipion_cloud.errors import JobError, JobRefused
from scipion_cloud.jobs import commands
from scipion_cloud.jobs.batch_system import (
    BATCH,
    INDEX,
    PREFIX,
    RESTARTS,
    Ask,
    BatchSystem,
    NoAnswer,
    Node,
    Seen,
)
from scipion_cloud.jobs.limits import Limits
from scipion_cloud.jobs.spec import JobState

_WAITS = (
    "PENDING",
    "CONFIGURING",
    "REQUEUED",
    "REQUEUE_HOLD",
    "REQUEUE_FED",
    "RESV_DEL_HOLD",
    "SPECIAL_EXIT",
)
_RUNS = ("RUNNING", "COMPLETING", "SUSPENDED", "STOPPED", "SIGNALING", "STAGE_OUT", "RESIZING")
_ENDINGS = {
    "CANCELLED": "it was cancelled in Slurm",
    "TIMEOUT": "stopped at Slurm's time limit; ask for more hours",
    "DEADLINE": "stopped at Slurm's deadline",
    "OUT_OF_MEMORY": "out of memory; ask for more",
    "NODE_FAIL": "the node it ran on failed; start it again",
    "BOOT_FAIL": "the node it was to run on did not start; start it again",
    "PREEMPTED": "it had to make room for a job of higher priority; start it again",
    "REVOKED": "it was revoked by Slurm",
    "FAILED": "it was killed from outside, with its supervisor; start it again",
    "COMPLETED": "it ended without saying how",
}
_WORDS = {
    "Resources": "waits for free CPUs, memory or GPUs",
    "Priority": "waits for jobs before it",
    "BeginTime": "waits a moment, after it was started and lost",
    "Dependency": "waits for another job",
    "PartitionDown": "waits: the partition is down",
    "ReqNodeNotAvail": "waits for nodes that are not available",
    "None": "",
}
_SAYS_NOTHING = ("None", "NonZeroExitCode", "JobLaunchFailure", "Resources", "Priority", "TimeLimit")
_NODE_STATES = {
    "idle": "idle",
    "mixed": "busy",
    "allocated": "full",
    "completing": "busy",
    "planned": "idle",
    "reserved": "busy",
    "draining": "drained",
    "drained": "drained",
    "maint": "drained",
    "powering_down": "stopping",
    "powered_down": "off",
    "powering_up": "starting",
}
_SUFFIXES = {"~": "off", "#": "starting", "!": "stopping", "%": "stopping", "*": "down", "@": "starting"}
_UNHEARD = re.compile("contact|timed out|temporarily|Zero Bytes|Connection|communication", re.IGNORECASE)
_WRAP = f"""export {INDEX}="${{SLURM_ARRAY_TASK_ID:-0}}" {RESTARTS}="${{SLURM_RESTART_COUNT:-0}}"
export {BATCH}="${{SLURM_ARRAY_JOB_ID:-$SLURM_JOB_ID}}${{SLURM_ARRAY_TASK_ID:+_$SLURM_ARRAY_TASK_ID}}"
exec sh """


@dataclass(frozen=True)
class Slurm(BatchSystem):
    """A Slurm cluster; the one that this machine belongs to, or that of a certain slurm.conf."""

    conf: Path | None = None
    partition: str = ""  # the cluster's default if empty
    interactive_partition: str = ""  # for jobs that wait for a person; the same one if empty

    def submit(self, ask: Ask) -> str:
        """By sbatch."""
        partition = (self.interactive_partition if ask.cpus == 0 else "") or self.partition
        answer = self._run(
            [
                "sbatch",
                "--parsable",
                f"--job-name={ask.name}",
                "--chdir=/",
                "--output=/dev/null",
                "--error=/dev/null",
                f"--ntasks={ask.tasks}",
                f"--cpus-per-task={max(1, ask.cpus)}",
                f"--mem={math.ceil(ask.memory_gb * 1024)}M",
                "--requeue" if ask.resumable else "--no-requeue",
                *([f"--gres=gpu:{ask.gpus}"] if ask.gpus else []),
                *([f"--time={math.ceil(ask.hours * 60)}"] if ask.hours else []),
                *([f"--partition={partition}"] if partition else []),
                *([f"--array=0-{ask.count - 1}"] if ask.count > 1 else []),
            ],
            f"#!/bin/sh\n{_WRAP}{_quoted(ask.script)}\n",
        )
        return answer.strip().partition(";")[0]

    def jobs(self) -> list[Seen]:
        """By one squeue."""
        answer = self._run(
            ["squeue", "--me", "--states=all", "--array", "--noheader", "--format=%F|%K|%j|%T|%N|%r"],
            timeout=15,
        )
        return [_seen(line) for line in answer.splitlines() if f"|{PREFIX}" in line]

    def drop(self, ids: Sequence[str]) -> None:
        """By scancel, of those that are pending; it would take such a filter for one of an array for all."""
        self._cancel(["--state=PENDING"], [one for one in ids if "_" not in one])
        if of_arrays := [one for one in ids if "_" in one]:
            waiting = {seen.id for seen in self.jobs() if seen.state is JobState.QUEUED}
            self._cancel([], [one for one in of_arrays if one in waiting])

    def kill(self, ids: Sequence[str]) -> None:
        """By scancel, which ends what does not end by itself."""
        self._cancel([], ids)

    def limits(self) -> Limits:
        """Of the largest nodes in our partition, taken together."""
        nodes = [node for node in self._nodes() if node.cpus]
        if not nodes:
            raise JobError(
                "Slurm has no nodes here" + (f" in partition {self.partition!r}." * bool(self.partition))
            )
        return Limits(
            max(node.cpus for node in nodes),
            max(node.memory_gb for node in nodes),
            gpus=max(node.gpus for node in nodes),
        )

    def nodes(self) -> tuple[Node, ...]:
        """By sinfo."""
        return tuple({node.name: node for node in self._nodes()}.values())

    def _nodes(self) -> list[Node]:
        only = [f"--partition={self.partition}"] if self.partition else []
        answer = self._run(
            ["sinfo", "--noheader", "--Node", "--format=%N|%T|%C|%m|%G|%P|%E", *only], timeout=15
        )
        found = [line.split("|", 6) for line in answer.splitlines()]
        default = {fields[5] for fields in found if fields[5].endswith("*")}
        return [_node(fields) for fields in found if self.partition or not default or fields[5] in default]

    def _cancel(self, options: Sequence[str], ids: Sequence[str]) -> None:
        for first in range(0, len(ids), 500):
            self._run(["scancel", "--quiet", *options, *ids[first : first + 500]], gone_is_fine=True)

    def _run(
        self, argv: list[str], text: str = "", timeout: float = commands.TIMEOUT, gone_is_fine: bool = False
    ) -> str:
        if self.conf and not self.conf.exists():  # else the commands look for it in the network, at length
            raise NoAnswer(f"Slurm's configuration {self.conf} is not there. Has the cluster been started?")
        env = {"SLURM_CONF": str(self.conf)} if self.conf else {}
        done = commands.run(argv, env, text, timeout)
        if done.returncode == 0:
            return done.stdout
        said = " ".join(done.stderr.split()).replace("sbatch: ", "").replace("error: ", "")
        if gone_is_fine and not _UNHEARD.search(said):
            return done.stdout
        if _UNHEARD.search(said) or argv[0] != "sbatch":
            raise NoAnswer(f"Slurm's {argv[0]} says: {said or f'exit code {done.returncode}'}")
        raise JobRefused(f"Slurm refuses the job: {said}")


def _quoted(path: Path) -> str:
    return "'" + str(path).replace("'", "'\\''") + "'"


def _seen(line: str) -> Seen:
    job, number, name, state, nodes, reason = line.split("|", 5)
    in_array = number.isdigit()
    ident, index = (f"{job}_{number}", int(number)) if in_array else (job, 0)
    names = (nodes,) if nodes else ()
    if state in _WAITS:
        return Seen(ident, name, index, JobState.QUEUED, _WORDS.get(reason, f"waits: {reason}"), names)
    if state in _RUNS:
        return Seen(ident, name, index, JobState.RUNNING, "", names)
    ending = JobState.DONE if state == "COMPLETED" else JobState.FAILED
    words = _ENDINGS.get(state, f"Slurm says {state}")
    more = "" if reason in _SAYS_NOTHING else f" ({reason})"
    return Seen(
        ident, name, index, JobState.CANCELLED if state == "CANCELLED" else ending, words + more, names
    )


def _node(fields: Sequence[str]) -> Node:
    name, state, cpus, memory, gres, _, reason = fields
    allocated, _, _, total = map(int, cpus.split("/"))
    base, mark = state.rstrip("*~#!%$@^-+"), state[-1]
    gpus = sum(int(n) for n in re.findall(r"\bgpu(?::[^,:(]+)?:(\d+)", gres))
    word = _SUFFIXES.get(mark) or _NODE_STATES.get(base, "down")
    return Node(
        name,
        word,
        total,
        allocated,
        int(memory.rstrip("+")) / 1024,
        gpus,
        "" if reason == "none" else reason,
    )
