"""Nodes that are process trees of this machine: one folder and one first process each.

What is on disk and in /proc is all that is known: where a controller was killed, the next one goes on.
"""

import contextlib
import json
import os
import shutil
import subprocess
import threading
import time
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from scipion_cloud.cluster.gpus import Gpu, shared_gpus
from scipion_cloud.cluster.provider import NoCapacity, NodeProvider, NodeState, ProvidedNode
from scipion_cloud.cluster.trees import MARK, end_nodes
from scipion_cloud.errors import ConfigError, ScipionCloudError
from scipion_cloud.jobs import processes
from scipion_cloud.jobs.turn import turn

_END_WITHIN = 30.0  # s from SIGKILL until a process is gone
_CGROUPS = Path("/sys/fs/cgroup")
_NOTE = "process.json"
_TAIL = 500  # characters of a log


@dataclass(frozen=True)
class _Process:
    """A process of this machine, as nothing else ever is."""

    pid: int
    start: int  # clock ticks since boot; 0 if it ended at once
    boot: str


class Machines(NodeProvider):
    """`capacity` nodes at most (None: as many as are asked for) in `folder`, whose names begin with `prefix`.
    `gpu_files`: the GPUs of this machine, for all nodes together.

    Other names are refused, and other folders left alone.
    """

    def __init__(
        self, folder: Path, prefix: str, capacity: int | None = None, gpu_files: Sequence[Path] = ()
    ) -> None:
        self.folder = folder
        self.prefix = prefix
        self.capacity = capacity
        self.gpu_files = gpu_files

    @abstractmethod
    def _start(self, name: str, folder: Path, mark: str) -> "subprocess.Popen[bytes]":
        """Start the first process, in a session of its own, with `MARK=mark` in its environment."""

    def _cleared(self, name: str) -> None:
        """Called when all processes of a node have ended, to remove what else there is of it."""
        for groups in _CGROUPS.glob(f"*/slurm_{name}"):  # Slurm's own, where it holds jobs to their memory
            for group, _, _ in os.walk(groups, topdown=False):
                with contextlib.suppress(OSError):
                    Path(group).rmdir()

    def create(self, name: str) -> None:
        """Begin to make a node."""
        folder = self._folder(name)
        self._reserve(folder)
        with turn(folder, "lock"):
            if (folder / _NOTE).exists():
                return
            self._end([name])  # what a crash left between the start and our note of it
            mark = _mark(folder)
            try:
                process = self._start(name, folder, mark)
            except OSError as e:
                raise ScipionCloudError(f"Node {name} could not be started: {e}.") from e
            # it outlives us, and as long as it does not, somebody has to take note of its end
            threading.Thread(target=process.wait, name=f"wait-{name}", daemon=True).start()
            start = processes.started(process.pid) or 0
            note = _Process(process.pid, start, processes.boot_id())
            _write(folder / _NOTE, json.dumps(asdict(note)))

    def destroy(self, names: Sequence[str]) -> None:
        """End all processes of these nodes, at once: what they save is in files."""
        there = [name for name in names if self._folder(name).is_dir()]
        if not there:
            return
        if left := self._end(there):
            raise ScipionCloudError(
                f"Processes {sorted(left)} of {', '.join(there)} cannot be ended; it is tried again."
            )
        for name in there:
            self._cleared(name)
            shutil.rmtree(self._folder(name), ignore_errors=True)

    def nodes(self) -> Mapping[str, ProvidedNode]:
        """What the folders and /proc tell."""
        try:
            entries = [e for e in os.scandir(self.folder) if e.name.startswith(self.prefix) and e.is_dir()]
        except FileNotFoundError:
            return {}
        return {entry.name: self._look(Path(entry.path)) for entry in entries}

    def gpus(self, names: Sequence[str], count: int) -> Mapping[str, Sequence[Gpu]]:
        """This machine's, shared out."""
        if (there := len(self.gpu_files)) < len(names) * count:
            raise ConfigError(
                f"{len(names)} elastic nodes with {count} GPUs each would share those of this machine, which "
                f"has {there or 'none'}. Lower max_nodes, or the gpus of their flavour. To try elastic nodes "
                'out without a GPU, give them options = { gpus = "stand-ins" }.'
            )
        return shared_gpus(names, count, self.gpu_files)

    def note(self, name: str) -> "_Process | None":
        """A node's first process, be it dead or alive; None until it was started."""
        try:
            return _Process(**json.loads((self._folder(name) / _NOTE).read_text()))
        except FileNotFoundError:
            return None

    def _reserve(self, folder: Path) -> None:
        """Make the node's folder if there is room for one more. Raises NoCapacity."""
        self.folder.mkdir(mode=0o755, parents=True, exist_ok=True)
        with turn(self.folder, "lock"):
            if folder.is_dir():
                return
            if self.capacity is not None and len(self.nodes()) >= self.capacity:
                raise NoCapacity(f"The quota of {self.capacity} nodes is used up")
            folder.mkdir(mode=0o755)

    def _look(self, folder: Path) -> ProvidedNode:
        name = folder.name
        try:
            since = datetime.fromtimestamp((folder / "mark").stat().st_mtime, UTC)
        except FileNotFoundError:
            since = None
        note = self.note(name)
        if note is None:
            return ProvidedNode(name, NodeState.STARTING, since=since)
        if note.boot == processes.boot_id() and processes.started(note.pid) == note.start:
            return ProvidedNode(name, NodeState.UP, since=since)
        return ProvidedNode(name, NodeState.FAILED, f"it ended: {_last_line(folder)}", since)

    def _end(self, names: Sequence[str]) -> processes.Found:
        """Kill all processes of these nodes; those that could not be ended."""
        marked = [(name, _mark(self._folder(name))) for name in names]
        first = [note.pid for name in names if (note := self.note(name))]
        return end_nodes(marked, first, _END_WITHIN)

    def _folder(self, name: str) -> Path:
        if not name.startswith(self.prefix) or "/" in name:
            raise ScipionCloudError(f"{name!r} is no node of this cluster: their names begin {self.prefix}.")
        return self.folder / name


def environment(mark: str) -> dict[str, str]:
    """What a node's first process sees: as little as a machine that was just switched on."""
    return {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", MARK: mark}


def later(command: Sequence[str]) -> list[str]:
    """The same command, begun with the next second of the clock.

    Slurm counts in whole seconds, and takes a node that was booted before it asked for one for stale: our
    nodes would come too early.
    """
    return ["sh", "-c", 'sleep "$1"; shift; exec "$@"', "later", f"{1 - time.time() % 1:.3f}", *command]


def _mark(folder: Path) -> str:
    """What a node's processes carry; made on first use, never the same twice."""
    path = folder / "mark"
    if not path.exists():
        _write(path, os.urandom(16).hex())
    return path.read_text()


def _last_line(folder: Path) -> str:
    try:
        text = (folder / "log").read_text(errors="replace").strip()
    except FileNotFoundError:
        text = ""
    return text.rpartition("\n")[2][-_TAIL:] or "without a word"


def _write(path: Path, text: str) -> None:
    fresh = path.with_name(path.name + ".new")
    fresh.write_text(text)
    fresh.replace(path)
