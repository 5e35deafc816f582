"""What is tried at a site to prove that it works; `proving` goes through it."""

import json
import os
import secrets
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from scipion_cloud import __version__
from scipion_cloud.broker.transfer import Transfer
from scipion_cloud.config import Config
from scipion_cloud.errors import SetupError
from scipion_cloud.jobs import JobBackend, JobSpec, JobState
from scipion_cloud.jobs.remote import RemoteBackend
from scipion_cloud.sites import looking, reach, state
from scipion_cloud.sites.model import Flavour, Site, software_label
from scipion_cloud.sites.now import SiteNow
from scipion_cloud.sites.refusals import refusal
from scipion_cloud.sites.scipion import scipion_environment
from scipion_cloud.tools.environment import scipion_environ

SIZE = 8_000_000  # bytes that go there and back
ROOM = 1.0  # GB that an area must have free
PROBES = "probes"  # folder of the tests in an area
ODD = 'it\'s a "file" \\ é'  # what a file may be called
_AS_ROOT = {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}
_PLUGINS = """
import importlib, json, sys
found = {}
for name in sys.argv[1:]:
    try:
        module = importlib.import_module(name)
        found[name] = getattr(module, "__version__", "") or "yes"
    except Exception as e:
        found[name] = None
        print(name, type(e).__name__, e, file=sys.stderr)
print(json.dumps(found))
"""


class Fault(Exception):
    """A step failed; its text says how to mend it."""


class Proof:
    """The steps, in order. Each returns what it found, or raises what is wrong."""

    def __init__(self, site: Site, config: Config, wait: float) -> None:
        self.site, self.config, self.wait = site, config, wait
        self.token = f"{datetime.now(UTC):%Y%m%d-%H%M%S}-{secrets.token_hex(3)}"
        self.place = f"{PROBES}/{self.token}"  # in the area
        self.transfer = Transfer(site, threading.Event())

    def steps(self) -> Iterator[tuple[str, Callable[[], str]]]:
        """Names and work."""
        if self.site.host:
            yield "Name", self.resolves
            yield "SSH", self.lets_us_in
        yield "Batch system", self.answers
        yield "Nodes", self.has_nodes
        if not self.site.is_home:
            yield "Working area", self.has_room
            yield "Files", self.carries_files
        yield "Job", self.runs_a_job
        if (self.site.max_cpus or 2) > 1 and self.most_cpus() > 1:
            yield "MPI", self.runs_mpi
        yield "Scipion", self.has_scipion

    @property
    def backend(self) -> JobBackend:
        """Its batch system; not patient."""
        found = reach.backend(self.site, self.config)
        return RemoteBackend(found.channel, looking.PATIENCE) if isinstance(found, RemoteBackend) else found

    def resolves(self) -> str:
        """The host's name has an address."""
        try:
            found = socket.getaddrinfo(self.site.host, self.site.port, type=socket.SOCK_STREAM)
        except OSError as e:
            raise Fault(f"{self.site.host} has no address ({e.strerror}). Is `host` right?") from e
        return f"{self.site.host} is {', '.join(sorted({str(facts[4][0]) for facts in found}))}"

    def lets_us_in(self) -> str:
        """SSH with our key to a host that we know; Python and our program are there."""
        command = reach.about_command(self.site)
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        except subprocess.TimeoutExpired as e:
            raise Fault(f"{self.site.host} does not answer within 60 s.") from e
        except FileNotFoundError as e:
            raise SetupError("The program ssh is missing. Run: apt-get install -y openssh-client") from e
        try:
            found = json.loads(done.stdout.rpartition("{")[1] + done.stdout.rpartition("{")[2])
        except ValueError:
            raise Fault(refusal(self.site, done.returncode, done.stderr)) from None
        if found["version"] != __version__:
            raise Fault(
                f"Our program there is of version {found['version']}, and this is {__version__}. "
                f"Run `scipion-cloud site install {self.site.name}`."
            )
        return f"key and host key are right; Python {found['python']}, our program {found['version']}"

    def answers(self) -> str:
        """The batch system does."""
        jobs = self.backend.list(limit=0)
        return f"{self.site.batch.value} answers; {len(jobs)} jobs of ours are there"

    def has_nodes(self) -> str:
        """Its nodes are as the flavours say."""
        looking.look(self.site, self.config)
        now = state.seen_site(self.site, self.config)
        if now.unreachable:
            raise Fault(now.unreachable)
        if not now.usable:
            raise Fault("No node works. Look at the batch system (`sinfo`, `qhost`).")
        for flavour in self.site.flavours:
            if not any(_carries(flavour, node) for node in now.usable):
                raise Fault(
                    f"No node has what the flavour {flavour.name} promises ({_size(flavour)}); they have "
                    f"{_sizes(now)}. Correct the flavour in sites.toml."
                )
        return f"{len(now.usable)} of {len(now.nodes)} nodes work: {_sizes(now)}"

    def has_room(self) -> str:
        """There is space in its working area."""
        free = state.seen_site(self.site, self.config).free_gb or 0.0
        if free < ROOM:
            raise Fault(f"{self.site.area} has only {free:.1f} GB left. Make room, or name another area.")
        return f"{self.site.area} has {free:.0f} GB left"

    def carries_files(self) -> str:
        """A file goes there and comes back the same."""
        content = os.urandom(SIZE)
        with tempfile.TemporaryDirectory() as folder:
            out, back = Path(folder) / "out", Path(folder) / "back"
            out.mkdir()
            (out / ODD).write_bytes(content)
            begun = time.monotonic()
            self.transfer.send_folder(out, self.place)
            there = time.monotonic() - begun
            self.transfer.fetch(self.place, back, lambda _progress: None)
            if (back / ODD).read_bytes() != content:
                raise Fault("A file came back changed. Is the disk of the area in order?")
        state.note_transfer(self.config, self.site.name, SIZE, there)
        return f"{SIZE / 1e6:.0f} MB there and back; {SIZE / 1e6 / there:.0f} MB/s"

    def runs_a_job(self) -> str:
        """A job runs, and what it writes comes back."""
        if self.site.is_home:
            return f"ran on {self._run(['hostname']).strip()}"
        probe = reach.area(self.site) / self.place
        node = self._run(["sh", "-c", 'hostname > "$0/answer"; cat "$0/answer"', str(probe)]).strip()
        with tempfile.TemporaryDirectory() as folder:
            self.transfer.fetch(self.place, Path(folder), lambda _progress: None)
            if (Path(folder) / "answer").read_text().strip() != node:
                raise Fault("What the job wrote has not come back. Do all nodes see the working area?")
        self.transfer.remove(PROBES, [self.token])
        return f"ran on {node}, and its file came back"

    def runs_mpi(self) -> str:
        """Two processes of one program."""
        said = self._run(["sh", "-c", f"{self.site.mpi.format(n=2)} hostname"], tasks=2)
        nodes = [line for line in said.split() if line]
        if len(nodes) != 2:
            raise Fault(f"`mpi` should have started 2 processes, but this came back: {said.strip()[-300:]}")
        return f"2 processes on {' and '.join(dict.fromkeys(nodes))}"

    def has_scipion(self) -> str:
        """Its Scipion environment starts, and has the plugins that are promised."""
        home = self.site.is_home
        python = self.config.scipion_python if home else self.site.scipion
        if python is None:
            raise Fault("No `scipion` is named in sites.toml: no protocol can be sent there.")
        wanted = ["pwem", *self.site.software]
        env = scipion_environ(self.config, self.config.projects) if home else scipion_environment(self.site)
        said = self._run([str(python), "-c", _PLUGINS, *wanted], env=env)
        found = json.loads(said.strip().rpartition("\n")[2])
        if missing := [software_label(name) for name in wanted if found[name] is None]:
            raise Fault(
                f"{python} has no {', '.join(missing)}. Install the plugins there, or correct `software`."
            )
        return ", ".join(f"{software_label(name)} {found[name]}" for name in wanted)

    def most_cpus(self) -> int:
        """CPUs of all nodes together."""
        return state.seen_site(self.site, self.config).cpus

    def _run(self, argv: list[str], tasks: int = 1, env: dict[str, str] | None = None) -> str:
        """What a job prints. Raises Fault with its words if it fails, or does not end in time."""
        cwd = Path("/") if self.site.is_home else reach.area(self.site)
        spec = JobSpec(
            tuple(argv),
            cwd,
            name="site test",
            tasks=tasks,
            memory_gb=0.25,
            env=env or {**_AS_ROOT, **self.site.env},
        )
        backend = self.backend
        job = backend.submit(spec, f"site-test:{self.token}:{secrets.token_hex(4)}")
        deadline = time.monotonic() + self.wait
        while not (status := backend.status([job])[job]).state.is_final:
            if time.monotonic() > deadline:
                backend.cancel([job])
                why = f" ({status.reason})" if status.reason else ""
                raise Fault(f"A small job has not ended within {self.wait:.0f} s{why}.")
            time.sleep(0.3)
        logs: Any = backend.logs(job)
        if status.state is not JobState.DONE:
            words = logs.stderr.strip()[-600:]
            raise Fault(f"A small job failed: {status.reason}. {words}")
        return str(logs.stdout)


def _carries(flavour: Flavour, node: Any) -> bool:
    return bool(
        node.cpus >= flavour.cpus and node.memory_gb >= 0.9 * flavour.memory_gb and node.gpus >= flavour.gpus
    )


def _size(what: Any) -> str:
    gpus = f", {what.gpus} GPUs" if what.gpus else ""
    return f"{what.cpus} CPUs, {what.memory_gb:.0f} GiB{gpus}"


def _sizes(now: SiteNow) -> str:
    return " / ".join(sorted({_size(node) for node in now.usable}))
