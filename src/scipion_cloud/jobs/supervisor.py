"""One process per job, from just before its program starts until nothing of it is left.

    python -S -P -m scipion_cloud.jobs.supervisor FOLDER LOCK_FD

It belongs to nobody (own session, adopted by init), keeps orphans of the job below itself, enforces the
time limit, and answers signals: SIGUSR1 cancels the job, SIGTERM says that the machine is going down.
Afterwards it becomes the scheduler for a moment, so that the next job starts at once. Standard library only,
and little of it: there is one of these beside every job.
"""

import ctypes
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from scipion_cloud.jobs import processes
from scipion_cloud.jobs.folder import JobFolder

CANCEL = signal.SIGUSR1
GRACE = 2.0  # seconds between SIGTERM and SIGKILL
KILL_LIMIT = 10.0  # seconds after which processes that outlive SIGKILL are given up and reported

_STOP = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
_WATCHED = (signal.SIGCHLD, CANCEL, *_STOP)
_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36
_libc = ctypes.CDLL(None)


def main(path: Path, lock_fd: int) -> None:
    """Run the job in this folder, whose lock the caller has taken and handed over."""
    os.set_inheritable(lock_fd, False)
    for sig in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
        signal.signal(sig, signal.SIG_DFL)  # whatever the caller ignored; else exit codes could be lost
    signal.pthread_sigmask(signal.SIG_SETMASK, _WATCHED)
    _libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    folder = JobFolder(path)
    job = folder.read("job.json")
    assert job is not None  # noqa: S101 - written before we were started
    folder.reserve_outcome()
    pid = os.getpid()
    folder.write("claim.json", {"pid": pid, "start": processes.started(pid), "boot": processes.boot_id()})
    folder.write_outcome({**_run(job), "time": time.time()})
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    os.execv(  # noqa: S606 - closes the lock as well
        sys.executable,
        [sys.executable, "-S", "-P", "-X", "utf8", "-m", "scipion_cloud.jobs.schedule", job["spool"]],
    )


def _run(job: dict[str, Any]) -> dict[str, Any]:
    try:
        program = _Program(job)
    except (OSError, ValueError) as e:
        return {"state": "FAILED", "exit_code": None, "reason": _why_not_started(job, e)}
    state, reason = _watch(program, job["hours"])
    me = os.getpid()
    left = processes.end_all(
        lambda: processes.members(job["token"], me) if program.collect() else {}, GRACE, KILL_LIMIT
    )
    if left:
        reason += f"; processes that could not be ended: {', '.join(map(str, sorted(left)))}"
    return {"state": state, "exit_code": program.code, "reason": reason, "left": sorted(left)}


class _Program:
    """The job's first process. Raises OSError when it cannot be started."""

    def __init__(self, job: dict[str, Any]) -> None:
        self.code: int | None = None
        supervisor = os.getpid()

        def in_child() -> None:
            signal.pthread_sigmask(signal.SIG_SETMASK, ())
            _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
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


def _why_not_started(job: dict[str, Any], error: Exception) -> str:
    program, cwd = job["argv"][0], job["cwd"]
    if not Path(cwd).is_dir():
        return f"its working folder {cwd!r} does not exist"
    for stream in ("stdout", "stderr"):
        if not Path(job[stream]).parent.is_dir():
            return f"the folder of its log {job[stream]!r} does not exist"
    if isinstance(error, FileNotFoundError):
        return f"its program {program!r} was not found; is it installed, and on PATH?"
    return f"its program {program!r} could not be started: {error}"


def _watch(program: _Program, hours: float | None) -> tuple[str, str]:
    """Wait for the program's end or a reason to end it: state and reason."""
    deadline = time.monotonic() + hours * 3600 if hours else None
    while True:
        program.collect()
        if program.code is not None:
            return ("DONE" if program.code == 0 else "FAILED"), _words(program.code)
        left = 3600.0 if deadline is None else min(deadline - time.monotonic(), 3600.0)
        if left <= 0:
            return "FAILED", f"stopped at its time limit of {hours:g} h; ask for more hours"
        info = signal.sigtimedwait(_WATCHED, left)
        if info and info.si_signo == CANCEL:
            return "CANCELLED", "cancelled"
        if info and info.si_signo in _STOP:
            name = signal.Signals(info.si_signo).name
            return "FAILED", f"stopped from outside ({name}): was the machine being shut down? Start it again"


def _words(code: int) -> str:
    if code == 0:
        return ""
    if code > 0:
        return f"ended with exit code {code}; its log tells more"
    name = signal.Signals(-code).name if -code in set(signal.Signals) else "a real-time signal"
    hint = {"SIGKILL": ": out of memory, or killed by hand", "SIGSEGV": ": the program crashed"}.get(name, "")
    return f"killed by signal {-code} ({name}){hint}"


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
