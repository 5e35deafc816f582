"""A Grid Engine of our own, in one folder, of any user: one host, a queue for work, one for people.

with grid_engine(folder) as options:
    system = batch_system("sge", options)
"""

import os
import pwd
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

from scipion_cloud.errors import SetupError
from scipion_cloud.testing.servers.daemon import START_WITHIN, daemon, free_port

_PROGRAMS = Path("/usr/lib/gridengine")  # Debian's, without the wrappers that look for another cell
_SHARED = Path("/usr/share/gridengine")
_HOST = "localhost"  # whatever this machine is called

_BOOTSTRAP = """\
admin_user {user}
default_domain none
ignore_fqdn true
spooling_method classic
spooling_lib libspoolc
spooling_params {folder}/default/common;{folder}/qmaster
binary_path {programs}
qmaster_spool_dir {folder}/qmaster
security_mode none
listener_threads 2
worker_threads 2
scheduler_threads 1
"""
_QUEUE = """\
qname {name}
hostlist {host}
seq_no 0
load_thresholds NONE
suspend_thresholds NONE
nsuspend 1
suspend_interval 00:05:00
priority 0
min_cpu_interval 00:05:00
processors UNDEFINED
qtype BATCH INTERACTIVE
ckpt_list NONE
pe_list {environments}
rerun FALSE
slots {slots}
tmpdir /tmp
shell /bin/sh
prolog NONE
epilog NONE
shell_start_mode posix_compliant
starter_method NONE
suspend_method NONE
resume_method NONE
terminate_method NONE
notify 00:00:60
owner_list NONE
user_lists NONE
xuser_lists NONE
subordinate_list NONE
complex_values NONE
projects NONE
xprojects NONE
calendar NONE
initial_state default
"""
_LIMITS = ("rt", "cpu", "fsize", "data", "stack", "core", "rss", "vmem")
_ENVIRONMENT = """\
pe_name {name}
slots 999
user_lists NONE
xuser_lists NONE
start_proc_args NONE
stop_proc_args NONE
allocation_rule {rule}
control_slaves TRUE
job_is_first_task TRUE
urgency_slots min
accounting_summary FALSE
qsort_args NONE
"""


@contextmanager
def grid_engine(
    folder: Path, *, slots: int = 2, memory_gb: float = 2.0, gpus: int = 0
) -> Iterator[dict[str, str]]:
    """A running cell, until the end of the block; the options of `GridEngine` that lead to it.

    The folder must be new. Raises SetupError where Grid Engine is missing or does not start.
    """
    if not (_PROGRAMS / "sge_qmaster").exists():
        raise SetupError(
            "Grid Engine is missing. Run: apt-get install -y gridengine-master gridengine-exec "
            "gridengine-client"
        )
    ports = {"SGE_QMASTER_PORT": str(free_port()), "SGE_EXECD_PORT": str(free_port())}
    env = {"PATH": os.environ["PATH"], "SGE_ROOT": str(folder), "SGE_CELL": "default", "SGE_ND": "1", **ports}
    cell = _Cell(folder, env)
    cell.lay_out()
    with ExitStack() as running:
        qmaster = running.enter_context(daemon([_PROGRAMS / "sge_qmaster"], folder / "qmaster.log", env=env))
        cell.wait("qconf", "-sh")
        cell.ask("qconf", "-as", _HOST)
        running.enter_context(daemon([_PROGRAMS / "sge_execd"], folder / "execd.log", env=env))
        cell.wait("qconf", "-se", _HOST)
        cell.configure(slots, memory_gb, gpus)
        try:
            yield {
                "root": str(folder),
                "cell": "default",
                "qmaster_port": ports["SGE_QMASTER_PORT"],
                "execd_port": ports["SGE_EXECD_PORT"],
                "commands": str(_PROGRAMS),
                "queue": "work",
                "interactive_queue": "interactive",
            }
        finally:
            cell.clear()
            qmaster.kill()  # a proper end takes it ten seconds


class _Cell:
    def __init__(self, folder: Path, env: Mapping[str, str]) -> None:
        self._folder = folder
        self._env = env

    def lay_out(self) -> None:
        """The files that Grid Engine wants before it starts."""
        folder, common = self._folder, self._folder / "default" / "common"
        common.mkdir(parents=True)
        for name in ("qmaster", "execd"):
            (folder / name).mkdir()
        (folder / "util").symlink_to(_SHARED / "util")
        (folder / "utilbin").symlink_to(_PROGRAMS)
        arch = subprocess.check_output([_SHARED / "util" / "arch"], text=True).strip()
        for name in ("bin", "lib", "utilbin"):
            place = folder / name
            if not place.exists():
                place.mkdir()
                (place / arch).symlink_to(_PROGRAMS)
        user = pwd.getpwuid(os.geteuid()).pw_name
        (common / "bootstrap").write_text(_BOOTSTRAP.format(user=user, folder=folder, programs=_PROGRAMS))
        (common / "act_qmaster").write_text(f"{_HOST}\n")
        (common / "host_aliases").write_text(f"{_HOST} {os.uname().nodename}\n")
        settings = (_SHARED / "default-configuration").read_text()
        for name, value in {"execd_spool_dir": f"{folder}/execd", "min_uid": "0", "min_gid": "0"}.items():
            lines = (f"{name} {value}" if line.startswith(name) else line for line in settings.splitlines())
            settings = "\n".join(lines) + "\n"
        (folder / "configuration").write_text(settings)
        self.ask("spoolinit", "classic", "libspoolc", f"{common};{folder}/qmaster", "init")
        self.ask("spooldefaults", "configuration", str(folder / "configuration"))
        for kind, source in {"complexes": "centry", "usersets": "usersets"}.items():
            self.ask("spooldefaults", kind, str(_SHARED / "util" / "resources" / source))
        self.ask("spooldefaults", "managers", user)

    def configure(self, slots: int, memory_gb: float, gpus: int) -> None:
        """Resources, parallel environments, queues, and a scheduler that does not let one wait."""
        complexes = self.ask("qconf", "-sc").splitlines()
        lines = [line for line in complexes if not line.startswith(("mem_free ", "#"))]
        lines += ["mem_free mf MEMORY <= YES YES 0 0", "gpu gpu INT <= YES JOB 0 0"]
        self._load("-Mc", "complexes", "\n".join(lines) + "\n")
        values = f"mem_free={memory_gb}G,gpu={gpus}"
        self.ask("qconf", "-mattr", "exechost", "complex_values", values, _HOST)
        for name, rule in {"smp": "$pe_slots", "mpi": "$fill_up"}.items():
            self._load("-Ap", name, _ENVIRONMENT.format(name=name, rule=rule))
        unlimited = "".join(f"s_{name} INFINITY\nh_{name} INFINITY\n" for name in _LIMITS)
        for name, environments, count in (("work", "smp mpi", slots), ("interactive", "NONE", 100)):
            text = _QUEUE.format(name=name, host=_HOST, environments=environments, slots=count)
            self._load("-Aq", name, text + unlimited)
        scheduler = dict(line.split(None, 1) for line in self.ask("qconf", "-ssconf").splitlines())
        scheduler |= {"schedule_interval": "0:0:1", "flush_submit_sec": "1", "flush_finish_sec": "1"}
        self._load("-Msconf", "scheduler", "".join(f"{k} {v}\n" for k, v in scheduler.items()))

    def clear(self) -> None:
        """End all jobs and the node, and wait until no job is left."""
        self.ask("qdel", "-f", "-u", "*", check=False)
        deadline = time.monotonic() + START_WITHIN
        while self.ask("qstat", "-u", "*", check=False) and time.monotonic() < deadline:
            time.sleep(0.1)
        self.ask("qconf", "-ke", _HOST, check=False)

    def wait(self, *command: str) -> None:
        """Wait until a command succeeds."""
        deadline = time.monotonic() + START_WITHIN
        while True:
            try:
                self.ask(*command)
                return
            except SetupError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.1)

    def ask(self, program: str, *arguments: str, check: bool = True) -> str:
        """Run one of Grid Engine's programs: what it says."""
        done = subprocess.run(
            [_PROGRAMS / program, *arguments], env=self._env, capture_output=True, text=True, timeout=60
        )
        if check and done.returncode != 0:
            raise SetupError(f"{program} failed: {done.stdout.strip()} {done.stderr.strip()}")
        return done.stdout

    def _load(self, option: str, name: str, text: str) -> None:
        path = self._folder / f"{name}.conf"
        path.write_text(text)
        self.ask("qconf", option, str(path))
