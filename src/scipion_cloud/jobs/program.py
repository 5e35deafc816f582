"""The job's own process, below its supervisor. Standard library only."""

import ctypes
import os
import signal
import subprocess
from pathlib import Path
from typing import Any

_PR_SET_PDEATHSIG = 1
libc = ctypes.CDLL(None)


class Program:
    """The job's first process. Raises OSError when it cannot be started."""

    def __init__(self, job: dict[str, Any]) -> None:
        self.code: int | None = None
        supervisor = os.getpid()

        def in_child() -> None:
            signal.pthread_sigmask(signal.SIG_SETMASK, ())
            libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
            if os.getppid() != supervisor:  # it died before the line above
                os._exit(127)

        with Path(job["stdout"]).open("ab") as out, Path(job["stderr"]).open("ab") as err:
            self._popen = subprocess.Popen(
                job["argv"],
                cwd=job["cwd"],
                env=job["env"],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                start_new_session=True,  # `kill 0` in a job must not reach us
                preexec_fn=in_child,  # safe: there are no threads here
            )

    def collect(self) -> bool:
        """Collect what has ended, orphans too (they become our children). False when nothing is left."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return False
            if pid == 0:
                return True
            if pid == self._popen.pid and self.code is None:
                self.code = os.waitstatus_to_exitcode(status)


def why_not_started(job: dict[str, Any], error: Exception) -> str:
    """In words for people."""
    program, cwd = job["argv"][0], job["cwd"]
    if not Path(cwd).is_dir():
        return f"its working folder {cwd!r} does not exist"
    for stream in ("stdout", "stderr"):
        if not Path(job[stream]).parent.is_dir():
            return f"the folder of its log {job[stream]!r} does not exist"
    if isinstance(error, FileNotFoundError):
        return f"its program {program!r} was not found; is it installed, and on PATH?"
    return f"its program {program!r} could not be started: {error}"


def words(code: int) -> str:
    """What an exit code means."""
    if code == 0:
        return ""
    if code > 0:
        return f"ended with exit code {code}; its log tells more"
    name = signal.Signals(-code).name if -code in set(signal.Signals) else "a real-time signal"
    hint = {"SIGKILL": ": out of memory, or killed by hand", "SIGSEGV": ": the program crashed"}.get(name, "")
    return f"killed by signal {-code} ({name}){hint}"
