"""One process per job, from just before its program starts until nothing of it is left.

    python -S -P -m scipion_cloud.jobs.supervisor FOLDER LOCK_FD     on this machine
    python -S -P -m scipion_cloud.jobs.supervisor FOLDER             in a job of a batch system

It keeps orphans of the job below itself, enforces the time limit, and answers signals: SIGUSR1 cancels the
job, SIGTERM says that the machine is going down. On this machine it belongs to nobody (own session, adopted
by init), and afterwards it becomes the scheduler for a moment, so that the next job starts at once. In a
batch system it also looks each second whether somebody asks it to end, and whether the job is still its
(see `claim`). Standard library only, and little of it: there is one of these beside every job.
"""

import os
import re
import signal
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from scipion_cloud.jobs import processes
from scipion_cloud.jobs.folder import JobFolder
from scipion_cloud.jobs.program import Program, libc, why_not_started, words
from scipion_cloud.jobs.runner import Runner

CANCEL = signal.SIGUSR1
GRACE = 2.0  # seconds between SIGTERM and SIGKILL, for jobs of earlier versions that name none
KILL_LIMIT = 10.0  # seconds after which processes that outlive SIGKILL are given up and reported

_STOP = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
_WATCHED = (signal.SIGCHLD, CANCEL, *_STOP)
_PR_SET_CHILD_SUBREAPER = 36
_OF_BATCH_SYSTEM = re.compile(
    "SLURM.*|SGE_.*|PE_HOSTFILE|NHOSTS|NSLOTS|NQUEUES|ARC|JOB_ID|JOB_NAME|QUEUE|PMI.*|CUDA_VISIBLE_DEVICES"
    "|ROCR_VISIBLE_DEVICES|GPU_DEVICE_ORDINAL"
)

Ending = tuple[str, str]  # state and reason; an empty state if the job has not ended, but goes on elsewhere
_GOES_ON: Ending = ("", "")
_LOST: Ending = ("", "another has it")


def main(arguments: Sequence[str]) -> None:
    """Run the job in this folder: FOLDER, and the descriptor of its lock on this machine."""
    folder = JobFolder(Path(arguments[0]))
    for sig in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
        signal.signal(sig, signal.SIG_DFL)  # whatever the caller ignored; else exit codes could be lost
    signal.pthread_sigmask(signal.SIG_SETMASK, _WATCHED)
    libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    job = folder.read("job.json")
    if job is None:  # written before we were started
        sys.exit(f"{folder.path / 'job.json'} is missing: was the folder removed?")
    if len(arguments) > 1:
        _here(folder, job, int(arguments[1]))
    else:
        _in_batch(folder, job)


def _here(folder: JobFolder, job: dict[str, Any], lock_fd: int) -> None:
    """Run a job of this machine, whose folder's lock the caller has taken and handed over."""
    os.set_inheritable(lock_fd, False)
    folder.reserve_outcome()
    pid = os.getpid()
    folder.write("claim.json", {"pid": pid, "start": processes.started(pid), "boot": processes.boot_id()})
    outcome = _run(job)
    if outcome["state"]:
        folder.write_outcome({**outcome, "time": time.time()})
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    argv = Runner().argv("schedule")
    os.execve(argv[0], [*argv, job["spool"]], {**os.environ, **Runner().env})  # noqa: S606 - closes the lock as well


def _in_batch(folder: JobFolder, job: dict[str, Any]) -> None:
    """Run the job if it is ours."""
    from scipion_cloud.jobs import claim  # noqa: PLC0415 - most supervisors do not need it

    mine = claim.Claim.own()
    if not mine.take(folder):
        print(f"Job {mine.batch} does nothing: {folder.path} is another's, or was cancelled.")
        return
    folder.reserve_outcome(mine.outcome)
    claim.tell(folder, f"claim-{mine.restarts}")
    if mine.restarts or any(folder.path.glob("claim-*.json")):  # what an earlier start has left on this node
        processes.end_all(lambda: processes.members(job["token"], mine.pid), 0, KILL_LIMIT)
    given = {k: v for k, v in os.environ.items() if _OF_BATCH_SYSTEM.fullmatch(k)}
    others = {k: v for k, v in job["env"].items() if not _OF_BATCH_SYSTEM.fullmatch(k)}
    job["env"] = others | given

    def look() -> Ending | None:
        if folder.has(claim.CANCEL_FILE):
            return "CANCELLED", "cancelled"
        return None if mine.holds(folder) else _LOST

    outcome = _run(job, look)
    if outcome["state"] and mine.holds(folder):
        folder.write_outcome({**outcome, "time": time.time()}, mine.outcome)
        claim.tell(folder, f"outcome-{mine.restarts}")
    sys.exit(0 if outcome["state"] == "DONE" else 1)


def _run(job: dict[str, Any], look: Callable[[], Ending | None] | None = None) -> dict[str, Any]:
    early = look() if look else None
    if early:
        return {"state": early[0], "exit_code": None, "reason": early[1], "left": []}
    try:
        program = Program(job)
    except (OSError, ValueError) as e:
        return {"state": "FAILED", "exit_code": None, "reason": why_not_started(job, e)}
    state, reason = ending = _watch(program, job, look)
    me, grace = os.getpid(), 0 if ending == _LOST else job.get("grace", GRACE)
    left = processes.end_all(
        lambda: processes.members(job["token"], me) if program.collect() else {}, grace, KILL_LIMIT
    )
    if left:
        reason += f"; processes that could not be ended: {', '.join(map(str, sorted(left)))}"
    return {"state": state, "exit_code": program.code, "reason": reason, "left": sorted(left)}


def _watch(program: Program, job: dict[str, Any], look: Callable[[], Ending | None] | None) -> Ending:
    """Wait for the program's end or a reason to end it."""
    hours = job["hours"]
    deadline = time.monotonic() + hours * 3600 if hours else None
    while True:
        program.collect()
        if program.code is not None:
            return ("DONE" if program.code == 0 else "FAILED"), words(program.code)
        left = min(3600.0 if deadline is None else deadline - time.monotonic(), 1.0 if look else 3600.0)
        if left <= 0:
            return "FAILED", f"stopped at its time limit of {hours:g} h; ask for more hours"
        info = signal.sigtimedwait(_WATCHED, left)
        if info and info.si_signo == CANCEL:
            return "CANCELLED", "cancelled"
        if info and info.si_signo in _STOP:
            return (look and look()) or _stopped(signal.Signals(info.si_signo).name, job)
        if look and (ending := look()):
            return ending


def _stopped(name: str, job: dict[str, Any]) -> Ending:
    """Somebody outside wants it to end. A job that can go on later has not ended with that."""
    if job.get("resumable"):
        return _GOES_ON
    return "FAILED", f"stopped from outside ({name}): was the machine being shut down? Start it again"


if __name__ == "__main__":
    main(sys.argv[1:])
