"""The scheduling pass: notice what has ended, start what may start. Whoever touches the queue makes one.

There is no daemon. Passes take turns, so that each sees the queue whole. The order is strictly first come,
first served: a job that does not fit yet holds back those behind it, so that a big one is never starved.
Interactive jobs (0 CPUs: a desktop waits for a person most of its time) go first as long as there is memory.
"""

import json
import logging
import os
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from scipion_cloud.errors import JobError
from scipion_cloud.jobs import index, processes
from scipion_cloud.jobs.folder import JobFolder
from scipion_cloud.jobs.limits import Limits
from scipion_cloud.jobs.turn import turn

ATTEMPTS = 5  # supervisors that may die before they start the program
_SOURCE = Path(__file__).absolute().parents[2]
_log = logging.getLogger(__name__)


def folder_of(spool: Path, job: int) -> JobFolder:
    """The folder of a job."""
    return JobFolder(spool / str(job))


def run(spool: Path, limits: Limits | None = None, wait: float = 15.0) -> None:
    """One pass, within these limits or the last ones known, after `wait` seconds for its turn at most.

    Raises JobError when the queue cannot be used; nothing is lost then, and a later pass does the work.
    """
    spool.mkdir(0o700, parents=True, exist_ok=True)
    with turn(spool, "schedule.lock", wait):
        with index.reading(spool) as db:
            running = db.execute("SELECT * FROM jobs WHERE ended IS NULL AND state = 'RUNNING'").fetchall()
        endings = [(row["id"], ending) for row in running if (ending := _ending(spool, row))]
        with index.writing(spool) as db:
            for job, ending in endings:
                if ending["state"] == "QUEUED":
                    db.execute("UPDATE jobs SET state = 'QUEUED', started = NULL WHERE id = ?", (job,))
                else:
                    index.finish(db, job, ending)
            if limits:
                index.store_limits(db, limits)
            starting = _mark_starting(db, spool, limits or index.limits(db) or Limits.of_machine())
        for job, token in starting:
            _spawn(folder_of(spool, job), token)


def choose(waiting: Iterable[Any], free_cpus: int, free_gb: float) -> list[Any]:
    """The rows (with `cpus` and `memory_gb`) at the head of the queue that fit together."""
    chosen = []
    for row in waiting:
        free_cpus -= row["cpus"]
        free_gb -= row["memory_gb"]
        if free_cpus < 0 or free_gb < -1e-9:
            break
        chosen.append(row)
    return chosen


def _mark_starting(db: sqlite3.Connection, spool: Path, limits: Limits) -> list[tuple[int, str]]:
    """Prepare the folders of the jobs that may start and record them as running: (id, token) of each."""
    now = time.time()
    for row in db.execute(
        "SELECT id, cpus, memory_gb FROM jobs WHERE ended IS NULL AND state = 'QUEUED'"
        " AND (cpus > ? OR memory_gb > ?)",
        (limits.cpus, limits.memory_gb),
    ).fetchall():  # accepted under wider limits; would hold back the queue for ever
        try:
            limits.check(row["cpus"], row["memory_gb"])
        except JobError as e:
            index.finish(db, row["id"], {"state": "FAILED", "exit_code": None, "reason": str(e), "time": now})
    used = db.execute(
        "SELECT coalesce(sum(cpus), 0), coalesce(sum(memory_gb), 0) FROM jobs"
        " WHERE ended IS NULL AND state = 'RUNNING'"
    ).fetchone()
    free_cpus, free_gb = limits.cpus - used[0], limits.memory_gb - used[1]
    queued = "SELECT id, token, spec, cpus, memory_gb FROM jobs WHERE ended IS NULL AND state = 'QUEUED'"
    interactive = choose(db.execute(f"{queued} AND cpus = 0 ORDER BY id"), 0, free_gb)
    free_gb -= sum(row["memory_gb"] for row in interactive)
    starting = []
    for row in [*interactive, *choose(db.execute(f"{queued} AND cpus > 0 ORDER BY id"), free_cpus, free_gb)]:
        try:
            _prepare(folder_of(spool, row["id"]), spool, row)
        except OSError as e:  # a full disk: it waits for a later pass
            _log.warning("Job %d cannot start yet: %s", row["id"], e)
            break
        db.execute(
            "UPDATE jobs SET state = 'RUNNING', started = ?, attempts = attempts + 1 WHERE id = ?",
            (now, row["id"]),
        )
        starting.append((row["id"], row["token"]))
    return starting


def _prepare(folder: JobFolder, spool: Path, row: sqlite3.Row) -> None:
    folder.path.mkdir(exist_ok=True)
    for stale in ("claim.json", "outcome.json"):  # nothing ran here; this is from a queue that was lost
        (folder.path / stale).unlink(missing_ok=True)
    spec = json.loads(row["spec"])
    for stream in ("stdout", "stderr"):
        spec[stream] = spec[stream] or str(folder.path / f"{stream}.log")
    spec["env"] |= {"SCIPION_CLOUD_JOB_ID": str(row["id"]), processes.TOKEN: row["token"]}
    folder.write("job.json", {**spec, "token": row["token"], "spool": str(spool)})


def _spawn(folder: JobFolder, token: str) -> None:
    """Start a supervisor that is nobody's child; it holds the folder's lock from before its birth."""
    argv = [
        "setsid",
        "--fork",
        sys.executable,
        "-S",
        "-P",
        "-X",
        "utf8",
        "-m",
        "scipion_cloud.jobs.supervisor",
    ]
    env = {"PATH": os.defpath, "PYTHONPATH": str(_SOURCE), processes.TOKEN: token}
    try:
        lock = folder.lock()
        try:
            with (folder.path / "supervisor.log").open("ab") as log:
                subprocess.run(
                    [*argv, str(folder.path), str(lock)],
                    check=True,
                    pass_fds=(lock,),
                    cwd="/",
                    env=env,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                )
        finally:
            os.close(lock)
    except (OSError, subprocess.CalledProcessError) as e:  # no process free: the next pass tries again
        _log.warning("The supervisor of %s did not start: %s", folder.path, e)


def _ending(spool: Path, row: sqlite3.Row) -> dict[str, Any] | None:
    """How a running job ended, or that it must be queued again; None while anything of it runs."""
    folder = folder_of(spool, row["id"])
    try:
        supervised = folder.is_supervised()  # first: it writes the outcome before it lets go
        if outcome := folder.read("outcome.json"):
            return outcome
        if supervised or processes.end_all(lambda: processes.members(row["token"]), grace=0, limit=1):
            return None
        return {"exit_code": None, "time": time.time(), **_lost(folder, row)}
    except OSError as e:
        _log.warning("Nothing can be learned of job %d now: %s", row["id"], e)
        return None


def _lost(folder: JobFolder, row: sqlite3.Row) -> dict[str, str]:
    """What to make of a job whose supervisor is gone without a word."""
    if row["cancelling"]:
        return {"state": "CANCELLED", "reason": "cancelled"}
    if not folder.has("job.json"):
        return {"state": "FAILED", "reason": f"its folder {folder.path} was removed while it ran"}
    if not folder.has("claim.json"):  # the program was never started
        if row["attempts"] < ATTEMPTS:
            return {"state": "QUEUED"}
        return {"state": "FAILED", "reason": f"its supervisor did not start: {_last_line(folder)}"}
    claim = folder.read("claim.json") or {}
    if claim.get("boot") != processes.boot_id():
        return {"state": "FAILED", "reason": "the machine was restarted while the job ran; start it again"}
    return {
        "state": "FAILED",
        "reason": "the job was killed from outside, with its supervisor; start it again",
    }


def _last_line(folder: JobFolder) -> str:
    try:
        text = (folder.path / "supervisor.log").read_text(errors="replace")
    except OSError as e:
        return str(e)
    return text.strip().rpartition("\n")[2] or "no reason is known"


if __name__ == "__main__":
    try:
        run(Path(sys.argv[1]))
    except JobError as error:
        sys.exit(str(error))
