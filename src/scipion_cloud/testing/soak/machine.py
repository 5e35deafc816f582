"""One machine: a working copy, its agent as a process, and the writer who stands for people."""

import contextlib
import http.client
import os
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path

from scipion_cloud.deployments.sockets import address
from scipion_cloud.deployments.states import Phase
from scipion_cloud.deployments.status import STATUS_FILE, AgentStatus
from scipion_cloud.sync.manifest import Manifest
from scipion_cloud.testing.soak import ledger
from scipion_cloud.testing.soak.ledger import State
from scipion_cloud.testing.soak.oracle import states
from scipion_cloud.testing.soak.writer import DATABASES, make_tree

PATIENCE = 300.0  # s
LEASE = 8.0  # s
# a process that another one of the same user may trace, where the kernel would only let its parent
_TRACEABLE = "import ctypes; ctypes.CDLL(None).prctl(0x59616d61, -1, 0, 0, 0)"
_AGENT = f"{_TRACEABLE}; from scipion_cloud.cli import main; main()"


class Failed(AssertionError):
    """An agent or writer did not do what it should have done in time."""


class Machine:
    """A working copy below `folder` of the project in the storage at `url`; its notes may be elsewhere."""

    def __init__(
        self, folder: Path, url: str, credentials: Mapping[str, str], seed: str, notes: Path | None = None
    ) -> None:
        self.folder = folder
        self.url = url
        self.work = folder / "work"
        self.state = folder / "state"
        self.ledger = (notes or folder) / "ledger"
        self.log = (notes or folder) / "agent.log"
        self.deployment = uuid.uuid4().hex
        self.agent: subprocess.Popen[bytes] | None = None
        self.writer: subprocess.Popen[bytes] | None = None
        self.acknowledged: int | None = None  # the newest generation that its agent has told of
        self._seed = seed
        self._env = {
            **{k: v for k, v in os.environ.items() if not k.startswith("SCIPION_CLOUD_")},
            **{f"SCIPION_CLOUD_STORAGE_{name.upper()}": value for name, value in credentials.items()},
        }
        for made in (folder, notes or folder):
            made.mkdir(parents=True, exist_ok=True)

    # the working copy

    def begin_project(self) -> None:
        """Make a project to begin with."""
        self.work.mkdir()
        make_tree(self.work, self.ledger, self._seed)

    def begin_with(self, manifest: Manifest, rows: Mapping[bytes, int]) -> None:
        """What is about to be restored here, so many rows in the databases of it."""
        found = states(manifest)
        for path in DATABASES:
            if found.get(path) is not None:
                found[path] = State("b")
        ledger.start(self.ledger, found)
        for path, count in rows.items():
            ledger.start_rows(self.ledger, path, count)

    # the agent

    def start(self, *options: str) -> None:
        """Start the agent."""
        command = [
            *("setpriv", "--pdeathsig", "KILL", "--", sys.executable, "-c", _AGENT, "agent", "run"),
            *("--storage", self.url, "--work", str(self.work), "--state", str(self.state)),
            *(
                "--deployment",
                self.deployment,
                "--every",
                "1s",
                "--lease",
                f"{LEASE}s",
                "--longest-wait",
                "2s",
            ),
            *("--max-deleted", "1", "--user", "soak", *options),
        ]
        with self.log.open("ab") as log:
            log.write(f"--- {time.time():.3f} {options}\n".encode())
            self.agent = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self._env,
                start_new_session=True,
            )

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the agent and all that it has started."""
        if self.agent is not None and self.agent.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.agent.pid, number)

    def kill(self) -> None:
        """kill -9."""
        self.signal(signal.SIGKILL)
        if self.agent is not None:
            self.agent.wait()

    def close(self) -> None:
        """Ask the agent to close."""
        if self.agent is not None and self.agent.poll() is None:
            self.agent.send_signal(signal.SIGTERM)

    def status(self) -> AgentStatus | None:
        """What the agent that runs says now; None while it says nothing."""
        if self.agent is None or self.agent.poll() is not None:
            return self.last_status()
        try:
            with address(self.state) as path, socket.socket(socket.AF_UNIX) as plain:
                plain.settimeout(5)
                plain.connect(path)
                connection = http.client.HTTPConnection("agent")
                connection.sock = plain
                connection.request("GET", "/status")
                told = AgentStatus.from_json(connection.getresponse().read())
        except (OSError, ValueError, http.client.HTTPException):
            return None
        return self._note(told)

    def last_status(self) -> AgentStatus | None:
        """What the agent has written down before its end."""
        try:
            return self._note(AgentStatus.from_json((self.state / STATUS_FILE).read_bytes()))
        except (OSError, ValueError):
            return None

    def wait(self, good: Callable[[AgentStatus], object], what: str) -> AgentStatus:
        """Until the agent's status is so. Raises Failed if it ends before, or too late."""
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            ended = self.has_ended
            told = self.status()
            if told is not None and told.pid == self.pid and good(told):
                return told
            if ended:
                raise Failed(f"The agent has ended before {what}: {told}\n{self.words()}")
            time.sleep(0.01)
        raise Failed(f"Too late: {what}. {self.status()}\n{self.words()}")

    def end(self) -> int:
        """Its exit code."""
        assert self.agent is not None
        try:
            return self.agent.wait(PATIENCE)
        except subprocess.TimeoutExpired as e:
            raise Failed(f"The agent does not end: {self.status()}\n{self.words()}") from e

    @property
    def has_ended(self) -> bool:
        """Whether no agent runs."""
        return self.agent is None or self.agent.poll() is not None

    def command(self, *words: str) -> str:
        """Run `scipion-cloud` with these words; what it prints. Raises Failed."""
        done = subprocess.run(
            [sys.executable, "-m", "scipion_cloud.cli", *words],
            env=self._env, capture_output=True, text=True, timeout=PATIENCE, check=False,
        )  # fmt: skip
        if done.returncode:
            raise Failed(f"{' '.join(words)}: {done.stderr}")
        return done.stdout

    @property
    def pid(self) -> int:
        """Of the agent; 0 before its start."""
        return self.agent.pid if self.agent else 0

    def words(self) -> str:
        """The end of its log."""
        return self.log.read_text(errors="replace")[-3000:]

    def trouble(self) -> str:
        """What it has told of last, or how it has ended."""
        told = self.status() or self.last_status()
        said = told.errors[0].text if told and told.errors else "nothing told"
        return f"ended with {self.agent.returncode}: {said}" if self.agent and self.has_ended else said

    def _note(self, told: AgentStatus) -> AgentStatus:
        if told.deployment == self.deployment and told.generation and told.last_saved:
            self.acknowledged = max(self.acknowledged or 0, told.generation)
        return told

    # people

    def people(self, *, whole: bool) -> None:
        """Let people work; on the large files too once these are here."""
        if self.writer is None:
            command = [sys.executable, "-m", "scipion_cloud.testing.soak.writer"]
            self.writer = subprocess.Popen(
                [*command, str(self.work), str(self.ledger), self._seed],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                env=self._env,
                start_new_session=True,
            )
            self._answer()
        self._tell(f"{'whole ' if whole else ''}go")

    def pause(self) -> None:
        """Let people have a break; on return nothing is being changed."""
        if self.writer is not None:
            self._tell("pause")
            self._answer()

    def touch(self) -> None:
        """During a break somebody changes something that takes no room."""
        self._tell("touch")
        self._answer()

    def large(self) -> None:
        """During a break somebody writes a large file."""
        self._tell("large")
        self._answer()

    def crash(self) -> None:
        """The program in which people work is killed."""
        if self.writer is not None:
            self.writer.kill()
            self._forget()

    def leave(self) -> None:
        """People go."""
        if self.writer is not None and self.writer.poll() is None:
            with contextlib.suppress(BrokenPipeError):
                self._tell("quit")
            self.writer.wait(PATIENCE)
        self._forget()

    def _tell(self, word: str) -> None:
        assert self.writer is not None
        assert self.writer.stdin is not None
        self.writer.stdin.write(f"{word}\n".encode())
        self.writer.stdin.flush()

    def _answer(self) -> None:
        assert self.writer is not None
        assert self.writer.stdout is not None
        if self.writer.stdout.readline() != b"paused\n":
            raise Failed("The writer has ended.")

    def _forget(self) -> None:
        if self.writer is not None:
            self.writer.wait()
            for pipe in (self.writer.stdin, self.writer.stdout):
                if pipe is not None:
                    with contextlib.suppress(BrokenPipeError):
                        pipe.close()
            self.writer = None

    def give_up(self) -> None:
        """End all that runs here."""
        self.signal(signal.SIGCONT)
        self.kill()
        if self.writer is not None:
            self.crash()


def is_whole(status: AgentStatus) -> bool:
    """People can work, and all of the project is there."""
    return status.phase.is_open and status.arriving is None


def is_open(status: AgentStatus) -> bool:
    """People can work."""
    return status.phase.is_open


def has_saved(status: AgentStatus) -> bool:
    """Nothing is left to be saved that was there when the last save began."""
    return status.phase is Phase.READY and status.last_checked is not None
