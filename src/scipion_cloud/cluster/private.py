"""A whole Slurm in one folder, for any user: munge, slurmctld and slurmds on one machine, without systemd.

cluster = PrivateSlurm(folder)
cluster.start()
cluster.run("srun", "hostname")
cluster.stop()

The folder keeps the state: the queue is as it was after a stop and a start. Several clusters live beside
each other, each with ports of its own.
"""

import contextlib
import os
import pwd
import shlex
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

from scipion_cloud.cluster import daemons, munge
from scipion_cloud.cluster.daemons import Daemon
from scipion_cloud.cluster.gpus import gpu_devices, stand_in
from scipion_cloud.cluster.ports import kept_ports, known_ports
from scipion_cloud.cluster.slurm_conf import (
    INTERACTIVE,
    MAIN,
    Layout,
    NodeLine,
    NodeShape,
    cgroup_conf,
    check_folder,
    gres_conf,
    slurm_conf,
)
from scipion_cloud.errors import JobError, SetupError
from scipion_cloud.jobs import processes
from scipion_cloud.jobs.slurm import Slurm

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch")
START_WITHIN = 120.0  # s
STOP_WITHIN = 30.0  # s between SIGTERM and SIGKILL
SLURMD_GRACE = 2.0  # s, the same for slurmd
_CGROUPS = Path("/sys/fs/cgroup")


class PrivateSlurm:
    """A cluster in `folder`, whose path must be short and plain.

    `nodes`: slurmds on this machine, one as large as the machine if unset. `interactive_cpus`: CPUs of one
    more, alone in the partition "interactive", for jobs that wait for a person (0: none); its memory is the
    first node's once more, or the machine's. `constrain`: whether jobs are held to the memory that they asked
    for, which takes root and control groups of version 1; where that can be if unset. `min_job_age`: seconds
    for which ended jobs are remembered. `extra`, `gres`: more lines for slurm.conf and gres.conf. `address`:
    this machine's, for nodes elsewhere. Raises SetupError for a folder or a constraint that cannot be.

    Beyond the GPUs that the machine has, jobs get numbers alone; several nodes have the same ones.
    """

    def __init__(
        self,
        folder: Path,
        nodes: Sequence[NodeShape] | None = None,
        *,
        interactive_cpus: int = 512,
        constrain: bool | None = None,
        min_job_age: int = 300,
        extra: str = "",
        gres: str = "",
        address: str = "127.0.0.1",
    ) -> None:
        self.folder = folder.absolute()
        check_folder(self.folder)
        self.shapes = tuple([NodeShape.of_machine()] if nodes is None else nodes)
        self.interactive_cpus = interactive_cpus
        if constrain and not can_constrain():
            raise SetupError(
                "Slurm can hold jobs to their memory only for root, with control groups version 1."
            )
        self.constrain = can_constrain() if constrain is None else constrain
        self.min_job_age = min_job_age
        self.extra = extra
        self.gres = gres
        self.address = address
        self._ports = self.folder / "ports.json"
        self._wanted_ports = 2 + len(self.shapes)
        self._children: list[subprocess.Popen[bytes]] = []

    @property
    def conf(self) -> Path:
        """The slurm.conf by which every program finds this cluster."""
        return self.folder / "slurm.conf"

    @property
    def key(self) -> Path:
        """munge's key, which every machine of the cluster needs."""
        return self.folder / "munge" / "key"

    @property
    def port(self) -> int:
        """The port of slurmctld. Raises SetupError before the first `prepare`."""
        if not (ports := known_ports(self._ports)):
            raise SetupError(f"There is no cluster in {self.folder} yet: start it first.")
        return ports[0]

    @property
    def options(self) -> Mapping[str, str]:
        """What `jobs.systems.batch_system("slurm", ...)` has to know."""
        interactive = INTERACTIVE if self.interactive_cpus else MAIN
        return {"conf": str(self.conf), "partition": MAIN, "interactive_partition": interactive}

    @property
    def system(self) -> Slurm:
        """This cluster as a batch system."""
        options = self.options
        return Slurm(self.conf, options["partition"], options["interactive_partition"])

    @property
    def environ(self) -> dict[str, str]:
        """Our own environment with this cluster in it (and no other), for Slurm's commands and programs."""
        mine = {name: value for name, value in os.environ.items() if not name.startswith("SLURM_")}
        return {**mine, "SLURM_CONF": str(self.conf), "PATH": _with_sbin(os.environ.get("PATH", ""))}

    def prepare(self) -> None:
        """Write folders, key and configuration; nothing of it runs now. Ports are kept while they are free.

        Raises SetupError if Slurm is not installed.
        """
        path = self.environ["PATH"]
        if absent := [name for name in PROGRAMS if shutil.which(name, path=path) is None]:
            raise SetupError(
                f"Slurm's {', '.join(absent)} cannot be found. Run: apt-get install -y slurmctld slurmd "
                "slurm-client munge"
            )
        for name in ("", "munge", "state", "spool"):
            (self.folder / name).mkdir(mode=0o755, parents=True, exist_ok=True)
        munge.make_key(self.folder / "munge")
        kept_ports(self._ports, self._wanted_ports, check=True)
        at = self._layout()
        gpus = max((node.shape.gpus for node in at.nodes), default=0)
        real = gpu_devices()[:gpus]
        files = [*real, *(stand_in(self.folder, number) for number in range(len(real), gpus))]
        _write(self.folder / "gres.conf", gres_conf(at.nodes, files, self.gres))
        _write(self.folder / "cgroup.conf", cgroup_conf())
        _write(self.conf, slurm_conf(at))

    def daemons(self, *, slurmd: bool = True) -> list[Daemon]:
        """The programs, each in the foreground, to be started in any order; `prepare` comes before."""
        at, folder = self._layout(), self.folder
        answers = partial(munge.answers, folder / "munge", self.environ)
        wanted: list[tuple[str, list[str], Callable[[], bool]]] = [
            ("munged", munge.munged(folder / "munge"), answers),
            ("slurmctld", _after(munge.ask(folder / "munge"), ["slurmctld", "-D"]), self.is_up),
        ]
        for node in at.slurmds if slurmd else ():
            # slurmd takes over the signals that its parent ignores or blocks, and gives them on to jobs
            serve = ["env", "--default-signal", "slurmd", "-D", "-N", node.name]
            ask = ["sh", "-c", "scontrol ping | grep -q 'is UP'"]
            wanted.append((f"slurmd-{node.name}", _after(ask, serve), partial(self._is_node_up, node.name)))
        environ = {**self.environ, daemons.MARK: str(self.conf)}
        return [Daemon(name, argv, environ, folder / f"{name}.log", ready) for name, argv, ready in wanted]

    def start(self, *, slurmd: bool = True, within: float = START_WITHIN) -> None:
        """Start all that does not run yet, and wait until it is of use; heals what a crash has left.

        The programs get SIGTERM when the thread that called this dies, jobs live on until the next start:
        call it from the main thread. Raises SetupError with the end of a log.
        """
        self.end_servers()
        self.prepare()
        deadline = time.monotonic() + within
        started = [(daemon, daemons.spawn(daemon)) for daemon in self.daemons(slurmd=slurmd)]
        self._children += [process for _, process in started]
        for daemon, process in started:
            self._await(daemon, process, deadline)

    def stop(self, *, jobs: bool = True, grace: float = STOP_WITHIN) -> None:
        """End all programs, and before them, with `jobs`, what still waits or runs. May be repeated.

        Jobs get SIGTERM, and SIGKILL after `grace` seconds. Raises SetupError when something cannot be ended.
        """
        if jobs and daemons.servers(self.conf):
            self._cancel_all(grace)
        self.end_servers()
        if jobs:
            left = processes.end_all(lambda: daemons.workers(self.conf), grace=0, limit=STOP_WITHIN)
            if left:
                raise SetupError(f"Processes of jobs of {self.folder} cannot be ended: {sorted(left)}.")

    def end_servers(self) -> None:
        """End munged, slurmctld and slurmds, whoever started them; jobs go on, and are found again."""
        # slurmd has nothing to save, and waits for jobs that ignore SIGTERM
        for program, grace in (("slurmd", SLURMD_GRACE), ("", STOP_WITHIN)):
            find = partial(daemons.servers, self.conf, program)
            left = processes.end_all(find, grace, limit=STOP_WITHIN)
        if left:
            raise SetupError(f"Slurm's processes {sorted(left)} of {self.folder} cannot be ended.")
        for child in self._children:
            child.wait()
        self._children.clear()

    def run(self, *argv: str, within: float = 60.0) -> str:
        """What a command of Slurm prints. Raises JobError with its own words, or when it takes too long."""
        try:
            done = subprocess.run(
                argv, env=self.environ, capture_output=True, text=True, timeout=within, check=False
            )
        except subprocess.TimeoutExpired as e:
            raise JobError(f"Slurm does not answer: {argv[0]} took more than {within:g} s.") from e
        if done.returncode:
            raise JobError(f"{argv[0]} failed: {done.stderr.strip() or done.stdout.strip()}")
        return done.stdout

    def is_up(self) -> bool:
        """True if slurmctld answers."""
        try:
            return "is UP" in self.run("scontrol", "ping", within=20)
        except JobError:
            return False

    def nodes_up(self) -> set[str]:
        """Names of the nodes whose slurmd has come to the controller, and that take jobs."""
        try:
            lines = self.run("sinfo", "-h", "-N", "-o", "%N %T", within=20).split("\n")
        except JobError:
            return set()
        states = dict(line.split() for line in lines if line)
        return {
            name for name, state in states.items() if state in ("idle", "mixed", "allocated", "completing")
        }

    def _is_node_up(self, name: str) -> bool:
        return name in self.nodes_up()

    def _cancel_all(self, grace: float) -> None:
        deadline = time.monotonic() + grace
        with contextlib.suppress(JobError):  # a controller that does not answer: they are ended by hand
            if self.is_up():
                self.run("scancel", "--user", _user())
                while self.run("squeue", "-h", "-o", "%i") and time.monotonic() < deadline:
                    time.sleep(0.1)

    def _await(self, daemon: Daemon, process: "subprocess.Popen[bytes]", deadline: float) -> None:
        while not daemon.ready():
            if process.poll() is not None:
                what = f"ended at its start with {process.returncode}"
            elif time.monotonic() > deadline:
                what = "is not ready in time"
            else:
                time.sleep(0.05)
                continue
            tail = daemon.log.read_text(errors="replace").strip()[-2000:]
            self.end_servers()
            raise SetupError(f"Slurm's {daemon.name} {what}. The end of {daemon.log}:\n{tail}")

    def _layout(self) -> Layout:
        ports = kept_ports(self._ports, self._wanted_ports)  # slurmctld's, the interactive node's, the nodes'
        # a control group is named after its node, so with them names must be the machine's only ones
        prefix = f"n{ports[0]}-" if self.constrain else "n"
        nodes = [
            NodeLine(f"{prefix}{number}", port, shape)
            for number, (port, shape) in enumerate(zip(ports[2:], self.shapes, strict=True), 1)
        ]
        here = self.shapes[0] if self.shapes else NodeShape.of_machine()
        waiting = NodeShape(self.interactive_cpus, here.memory_gb)
        return Layout(
            folder=self.folder,
            user=_user(),
            host=socket.gethostname().partition(".")[0],
            address=self.address,
            port=ports[0],
            nodes=nodes,
            interactive=NodeLine(f"{prefix}i", ports[1], waiting) if self.interactive_cpus else None,
            cgroups=self.constrain,
            min_job_age=self.min_job_age,
            extra=self.extra,
        )


def can_constrain() -> bool:
    """True where jobs can be held to their memory: for root, with control groups of version 1."""
    groups = (_CGROUPS / "memory", _CGROUPS / "freezer")
    return os.geteuid() == 0 and all(os.access(g / "cgroup.procs", os.W_OK) for g in groups)


def _after(ask: Sequence[str], serve: Sequence[str]) -> list[str]:
    """The command `serve`, held back until `ask` succeeds."""
    return [
        "sh",
        "-c",
        f"until {shlex.join(ask)} >/dev/null 2>&1; do sleep 0.1; done; exec {shlex.join(serve)}",
    ]


def _user() -> str:
    return pwd.getpwuid(os.geteuid()).pw_name


def _with_sbin(path: str) -> str:
    """Debian keeps servers where users' PATH does not lead."""
    words = [word for word in (path or os.defpath).split(os.pathsep) if word]
    return os.pathsep.join([*words, *(w for w in ("/usr/sbin", "/sbin") if w not in words)])


def _write(path: Path, text: str) -> None:
    if not path.exists() or path.read_text() != text:
        fresh = path.with_name(path.name + ".new")
        fresh.write_text(text)
        fresh.replace(path)
