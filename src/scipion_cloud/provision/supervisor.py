"""Keeps a few child processes alive until it is asked to stop, and then leaves none behind."""

import contextlib
import json
import os
import selectors
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from scipion_cloud.errors import SetupError
from scipion_cloud.provision import sessions

FIRST_DELAY = 0.5  # s until a child that died is started again; doubles with each death in a row
LONGEST_DELAY = 30.0
STEADY = 60.0  # s of life after which a child counts as healthy again
LOG_LIMIT = 10 * 1024 * 1024  # bytes; a longer log is put aside at the next start

Notice = Callable[[str], None]  # takes one line about what happened


@dataclass(frozen=True)
class ChildSpec:
    """A program to keep running."""

    name: str
    argv: Sequence[str]
    log: Path
    env: Mapping[str, str] = field(default_factory=dict)  # added to our own environment
    pass_fds: tuple[int, ...] = ()
    ready: Callable[[], bool] | None = None  # asked until it says yes; None: as soon as it runs
    ready_within: float = 60.0  # s
    stop_within: float = 10.0  # s between SIGTERM and SIGKILL


@dataclass
class _Child:
    spec: ChildSpec
    process: subprocess.Popen[bytes] | None = None
    pidfd: int = -1
    started: float = 0.0
    deaths: int = 0  # in a row
    due: float = 0.0  # when to start it again, monotonic s


class Supervisor:
    """Starts children, restarts those that die, stops them all.

    Each child leads its own session (Ctrl-C in the terminal reaches us, not them) and gets SIGTERM from the
    kernel when our thread dies, so use the main one. `state` is a file that names their sessions, so that
    `end_leftovers` finds whatever a crash left. `marker` is NAME=value, put in each child's environment to
    tell them from strangers.
    """

    def __init__(self, children: Sequence[ChildSpec], state: Path, marker: str, notice: Notice) -> None:
        self._children = [_Child(spec) for spec in children]
        self._state = state
        self._marker = marker
        self._notice = notice
        self._stopping = False
        self._selector = selectors.DefaultSelector()
        self._wake_read, self._wake_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._selector.register(self._wake_read, selectors.EVENT_READ)

    def start(self) -> None:
        """Start every child and wait until each is ready.

        Raises SetupError with the end of its log if a child ends before that or takes too long.
        """
        for child in self._children:
            self._spawn(child)
        for child in self._children:
            self._await_ready(child)

    def run(self, tick: Callable[[], None] | None = None, every: float = 1.0) -> None:
        """Watch and restart until `request_stop`; calls `tick` about once in `every` seconds."""
        while not self._stopping:
            for key, _ in self._selector.select(self._patience(every)):
                if isinstance(key.data, _Child):
                    self._buried(key.data)
            for child in self._children:
                if child.process is None and time.monotonic() >= child.due and not self._stopping:
                    self._spawn(child)
            if tick:
                tick()

    def request_stop(self) -> None:
        """Make `run` return soon. May be called from a signal handler, and more than once."""
        self._stopping = True
        with contextlib.suppress(BlockingIOError):
            os.write(self._wake_write, b"!")

    def stop(self, names: Collection[str] | None = None) -> None:
        """Ask every child, or those of these names, to end (SIGTERM), then end its whole session (SIGKILL).

        Nothing is started again afterwards. May be repeated.
        """
        self._stopping = True
        wanted = [child for child in self._children if names is None or child.spec.name in names]
        living = [child for child in wanted if child.process is not None]
        for child in living:
            assert child.process is not None  # noqa: S101 - chosen so above
            child.process.terminate()
        asked = time.monotonic()
        for child in living:
            assert child.process is not None  # noqa: S101
            try:
                child.process.wait(max(0.0, asked + child.spec.stop_within - time.monotonic()))
            except subprocess.TimeoutExpired:
                self._notice(f"{child.spec.name} did not stop in time and was killed")
            self._finish(child)
        if names is None:
            self._state.unlink(missing_ok=True)
        else:
            self._note()

    def pids(self) -> dict[str, int | None]:
        """Process id of each child by name; None while it waits for its restart."""
        return {c.spec.name: c.process.pid if c.process else None for c in self._children}

    def close(self) -> None:
        """Stop, and give back our own descriptors."""
        self.stop()
        self._selector.close()
        os.close(self._wake_read)
        os.close(self._wake_write)

    def _spawn(self, child: _Child) -> None:
        spec = child.spec
        # setpriv is Debian's own (util-linux), and safe where Python's preexec_fn is not
        guard = ["setpriv", "--pdeathsig", "TERM", "--"] if shutil.which("setpriv") else []
        name, _, value = self._marker.partition("=")
        spec.log.parent.mkdir(parents=True, exist_ok=True)
        if spec.log.exists() and spec.log.stat().st_size > LOG_LIMIT:
            spec.log.replace(spec.log.with_name(spec.log.name + ".1"))
        with spec.log.open("ab") as log:
            child.process = subprocess.Popen(
                [*guard, *spec.argv],
                env={**os.environ, **spec.env, name: value},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                pass_fds=spec.pass_fds,
                start_new_session=True,
            )
        child.started = time.monotonic()
        child.pidfd = os.pidfd_open(child.process.pid)
        self._selector.register(child.pidfd, selectors.EVENT_READ, child)
        self._note()

    def _await_ready(self, child: _Child) -> None:
        spec = child.spec
        while child.process and child.process.poll() is None:
            if spec.ready is None or spec.ready():
                return
            if time.monotonic() > child.started + spec.ready_within:
                raise SetupError(
                    f"{spec.name} was not ready within {spec.ready_within:.0f} s.{_log_tail(spec.log)}"
                )
            time.sleep(0.05)
        code = child.process.returncode if child.process else None
        raise SetupError(f"{spec.name} ended at its start ({_ending(code)}).{_log_tail(spec.log)}")

    def _buried(self, child: _Child) -> None:
        assert child.process is not None  # noqa: S101 - its descriptor told of its end
        code = child.process.wait()
        child.deaths = 1 if time.monotonic() - child.started > STEADY else child.deaths + 1
        delay = min(LONGEST_DELAY, FIRST_DELAY * 2 ** (child.deaths - 1))
        self._finish(child)
        child.due = time.monotonic() + delay
        if not self._stopping:
            self._notice(f"{child.spec.name} ended ({_ending(code)}); starting it again in {delay:g} s")

    def _finish(self, child: _Child) -> None:
        """End what is left of a child's session and forget it."""
        assert child.process is not None  # noqa: S101
        sessions.kill(child.process.pid)
        child.process.wait()
        self._selector.unregister(child.pidfd)
        os.close(child.pidfd)
        child.process = None

    def _patience(self, every: float) -> float:
        dues = [child.due - time.monotonic() for child in self._children if child.process is None]
        return max(0.0, min([every, *dues]))

    def _note(self) -> None:
        fresh = self._state.with_name(self._state.name + ".new")
        fresh.write_text(json.dumps([child.process.pid for child in self._children if child.process]))
        fresh.replace(self._state)


def end_leftovers(state: Path, marker: str) -> int:
    """End what a supervisor that crashed left behind, and return how many processes that were."""
    try:
        left = [int(session) for session in json.loads(state.read_text())]
    except (OSError, ValueError, TypeError):  # none, or torn by the crash itself
        return 0
    return sum(sessions.kill(session, marker=marker) for session in left)


def _ending(code: int | None) -> str:
    if code is None:
        return "for an unknown reason"
    if code < 0:
        return f"killed by {signal.Signals(-code).name}"
    return f"exit code {code}"


def _log_tail(log: Path, lines: int = 15) -> str:
    try:
        tail = log.read_text(errors="replace").splitlines()[-lines:]
    except OSError:
        return ""
    return f" The end of {log}:\n" + "\n".join(tail) if tail else f" Its log {log} is empty."
