"""Grid Engine (Sun, Son of, Univa, Open Cluster Scheduler), by its own commands."""

import math
import os
import pwd
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from xml.etree import ElementTree

from scipion_cloud.errors import ConfigError, JobError, JobRefused
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

_VARIABLES = {
    "root": "SGE_ROOT",
    "cell": "SGE_CELL",
    "qmaster_port": "SGE_QMASTER_PORT",
    "execd_port": "SGE_EXECD_PORT",
}
_AS_IN_A_SITE = {"partition": "queue", "interactive_partition": "interactive_queue"}  # in `sites.toml`
_UNHEARD = re.compile("contact qmaster|commlib|unable to send|got no|timeout|qmaster is not", re.IGNORECASE)
_GONE = re.compile("does not exist|has deleted|has registered|already in deletion")
_UNITS = {"K": 2**-20, "M": 2**-10, "G": 1.0, "T": 2.0**10}  # GiB
# Grid Engine numbers the tasks of an array from 1. Whether a job was started again it does not count.
_WRAP = f"""case "$SGE_TASK_ID" in
    ''|undefined) export {INDEX}=0 {BATCH}="$JOB_ID" ;;
    *) export {INDEX}=$((SGE_TASK_ID - 1)) {BATCH}="$JOB_ID.$SGE_TASK_ID" ;;
esac
export {RESTARTS}=0
exec sh """


@dataclass(frozen=True)
class GridEngine(BatchSystem):
    """A Grid Engine cluster: the one that this account's environment leads to, or that of a certain root.

    What a job asks for goes by names that each cluster chooses, hence the fields. Memory is set aside for
    each slot: a job's is divided by its slots, evenly over the nodes that it runs on.
    """

    root: str = ""  # SGE_ROOT, and so on: the environment's if empty
    cell: str = ""
    qmaster_port: str = ""
    execd_port: str = ""
    commands: str = ""  # the folder of qsub and the like; found through PATH if empty
    queue: str = ""  # any that fits if empty
    interactive_queue: str = ""  # for jobs that wait for a person; the same if empty
    one_node: str = "smp"  # parallel environment with all slots on one node
    many_nodes: str = "mpi"  # ... and on several
    memory: str = "mem_free"  # resource for a slot's memory; none is asked for if empty
    gpu: str = "gpu"  # resource for a job's GPUs, a consumable of kind JOB
    gpus: str = "0"  # GPUs of the largest node; Grid Engine does not tell

    @classmethod
    def from_options(cls, options: Mapping[str, str]) -> "GridEngine":
        """From the names and texts of a configuration. Raises ConfigError."""
        names = [field.name for field in fields(cls)]
        options = {_AS_IN_A_SITE.get(name, name): value for name, value in options.items()}
        if unknown := sorted(options.keys() - set(names)):
            raise ConfigError(f"The batch system sge knows {', '.join(names)}, but not {', '.join(unknown)}.")
        if not options.get("gpus", "0").isdigit():
            raise ConfigError(f"gpus has to be a number, not {options['gpus']!r}.")
        return cls(**options)

    def submit(self, ask: Ask) -> str:
        """By qsub."""
        slots = max(1, ask.cpus) * ask.tasks
        environment = self.many_nodes if ask.tasks > 1 else self.one_node
        queue = (self.interactive_queue if ask.cpus == 0 else "") or self.queue
        wants = {
            self.memory: f"{math.ceil(ask.memory_gb * 1024 / slots)}M",
            "h_rt": math.ceil(ask.hours * 3600) if ask.hours else 0,
            self.gpu: ask.gpus,
        }
        wanted = ",".join(f"{name}={value}" for name, value in wants.items() if name and value)
        answer = self._run(
            "qsub",
            ["-terse", "-N", ask.name, "-S", "/bin/sh", "-wd", "/", "-o", "/dev/null", "-j", "y", "-r", "n"]
            + (["-l", wanted] if wanted else [])
            + (["-pe", environment, str(slots)] if slots > 1 else [])
            + (["-q", queue] if queue else [])
            + (["-t", f"1-{ask.count}"] if ask.count > 1 else []),
            f"{_WRAP}{_quoted(ask.script)}\n",
        )
        return answer.strip().partition(".")[0]

    def jobs(self) -> list[Seen]:
        """By one qstat; it remembers the last hundred or so that have ended."""
        user = pwd.getpwuid(os.geteuid()).pw_name
        answer = self._xml("qstat", ["-xml", "-g", "d", "-s", "prsz", "-u", user])
        ours = (job for job in answer.iter("job_list") if _text(job, "JB_name").startswith(PREFIX))
        return [_seen(job, task) for job in ours for task in _tasks(_text(job, "tasks"))]

    def drop(self, ids: Sequence[str]) -> None:
        """By qdel, after a hold that keeps what waits from starting meanwhile."""
        waiting = self._waiting(ids)
        self._each("qhold", waiting)
        held = self._waiting(waiting)
        self._each("qdel", held)
        self._each("qrls", [job for job in waiting if job not in held])

    def kill(self, ids: Sequence[str]) -> None:
        """By qdel."""
        self._each("qdel", ids)

    def limits(self) -> Limits:
        """Of the largest nodes of our queue, taken together."""
        nodes = [node for node in self.nodes() if node.cpus]
        if not nodes:
            raise JobError(
                "Grid Engine has no nodes here" + f" in queue {self.queue!r}" * bool(self.queue) + "."
            )
        cpus, memory_gb = max(node.cpus for node in nodes), max(node.memory_gb for node in nodes)
        return Limits(cpus, memory_gb, gpus=int(self.gpus))

    def nodes(self) -> tuple[Node, ...]:
        """By one qhost."""
        answer = self._xml("qhost", ["-q", "-xml"])
        return tuple(self._node(host) for host in answer.iter("host") if host.get("name") != "global")

    def _node(self, host: ElementTree.Element) -> Node:
        queues = [
            _values(queue)
            for queue in host.iter("queue")
            if queue.get("name") == self.queue or not self.queue
        ]
        slots = max((int(queue["slots"]) for queue in queues), default=0)
        used = sum(int(queue["slots_used"]) for queue in queues)
        marks = "".join(queue["state_string"] for queue in queues)
        state = "full" if used >= slots else "busy" if used else "idle"
        if set(marks) & set("uEo"):
            state = "down"
        elif set(marks) & set("dDsS"):
            state = "drained"
        memory = _values(host)["mem_total"]
        return Node(host.get("name", ""), state, slots, min(used, slots), _gigabytes(memory))

    def _waiting(self, ids: Sequence[str]) -> list[str]:
        queued = {job.id for job in self.jobs() if job.state is JobState.QUEUED} if ids else set()
        return [job for job in ids if job in queued]

    def _each(self, program: str, ids: Sequence[str]) -> None:
        for first in range(0, len(ids), 500):
            self._run(program, ids[first : first + 500])

    def _xml(self, program: str, arguments: Sequence[str]) -> ElementTree.Element:
        text = self._run(program, arguments)
        try:
            return ElementTree.fromstring(text)  # noqa: S314 - the batch system's own words
        except ElementTree.ParseError as e:
            raise NoAnswer(f"Grid Engine's {program} says what cannot be understood: {text[:200]!r}") from e

    def _run(self, program: str, arguments: Sequence[str], text: str = "") -> str:
        settings = {
            name: getattr(self, field) or os.environ.get(name, "") for field, name in _VARIABLES.items()
        }
        env = {name: value for name, value in settings.items() if value}
        path = str(Path(self.commands, program)) if self.commands else program
        done = commands.run([path, *arguments], env, text)
        said = " ".join((done.stderr or done.stdout).split())
        if done.returncode == 0:
            return done.stdout
        if program == "qsub" and not _UNHEARD.search(said):
            raise JobRefused(f"Grid Engine refuses the job: {said}")
        lines = f"{done.stdout}\n{done.stderr}".split("\n")
        if program == "qsub" or any(line.strip() and not _GONE.search(line) for line in lines):
            raise NoAnswer(f"Grid Engine's {program} says: {said or f'exit code {done.returncode}'}")
        return done.stdout


def _quoted(path: Path) -> str:
    return "'" + str(path).replace("'", "'\\''") + "'"


def _tasks(text: str) -> list[int]:
    """The tasks of an array in one row, `1,4-6:1`; 0 for a job that is none."""
    found: list[int] = []
    for part in text.split(",") if text else ():
        first, _, last = part.partition(":")[0].partition("-")
        found += range(int(first), int(last or first) + 1, int(part.partition(":")[2] or 1))
    return found or [0]


def _seen(job: ElementTree.Element, task: int) -> Seen:
    number = _text(job, "JB_job_number")
    ident, index = (f"{number}.{task}", task - 1) if task else (number, 0)
    name, marks, node = _text(job, "JB_name"), _text(job, "state"), _text(job, "queue_name").partition("@")[2]
    if "z" in marks:
        return Seen(ident, name, index, JobState.DONE, "it ended without saying how; start it again")
    if "q" not in marks:
        return Seen(ident, name, index, JobState.RUNNING, "", (node,) if node else ())
    reason = "waits for free slots, memory or GPUs"
    if "E" in marks:
        reason = (
            f"Grid Engine could not start it, and holds it back; `qstat -j {number}` tells its operators why"
        )
    elif "h" in marks:
        reason = "is held back in Grid Engine"
    return Seen(ident, name, index, JobState.QUEUED, reason)


def _text(element: ElementTree.Element, name: str) -> str:
    return (element.findtext(name) or "").strip()


def _values(element: ElementTree.Element) -> dict[str, str]:
    """What is said of a host or a queue itself, by name."""
    return {value.get("name", ""): value.text or "" for value in element if value.tag.endswith("value")}


def _gigabytes(text: str) -> float:
    """GiB of a number with a unit, `23.5G`; 0 where Grid Engine does not know."""
    number, unit = text[:-1], text[-1:]
    try:
        return float(number) * _UNITS[unit.upper()] if unit.upper() in _UNITS else float(text) / 2**30
    except ValueError:
        return 0.0
