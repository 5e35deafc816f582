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
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from scipion_cloud.errors import JobError
from scipion_cloud.jobs import index, processes, rows
from scipion_cloud.jobs.folder import OUTCOME, JobFolder
from scipion_cloud.jobs.limits import Limits
from scipion_cloud.jobs.runner import Runner
from scipion_cloud.jobs.turn import turn

ATTEMPTS = 5  # supervisors that may die before they start the program
RESUMES = 20  # starts of a job that goes on by itself, and is lost again and again
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
        notice_endings(spool)
        with index.writing(spool) as db:
            if limits:
                index.store_limits(db, limits)
            starting = _mark_starting(db, spool, limits or index.limits(db) or Limits.of_machine())
        for job, token in starting:
            _spawn(folder_of(spool, job), token)


def notice_endings(spool: Path) -> None:
    """Note which of this machine's jobs have ended, under the queue's turn."""
    with index.reading(spool) as db:
        query = "SELECT * FROM jobs WHERE ended IS NULL AND state = 'RUNNING' AND site = '' AND batch = ''"
        running = db.execute(query).fetchall()
    endings = [(row["id"], ending) for row in running if (ending := _ending(spool, row))]
    if not endings:
        return
    with index.writing(spool) as db:
        for job, ending in endings:
            if ending["state"] == "QUEUED":
                db.execute(
                    "UPDATE jobs SET state = 'QUEUED', started = NULL, devices = '' WHERE id = ?", (job,)
                )
            else:
                rows.finish(db, job, ending)


def choose(waiting: Iterable[Any], free_cpus: int, free_gb: float, free_gpus: int) -> list[Any]:
    """The rows (with `cpus`, `memory_gb` and `gpus`) at the head of the queue that fit together."""
    chosen = []
    for row in waiting:
        free_cpus -= row["cpus"]
        free_gb -= row["memory_gb"]
        free_gpus -= row["gpus"]
        if free_cpus < 0 or free_gb < -1e-9 or free_gpus < 0:
            break
        chosen.append(row)
    return chosen


def _mark_starting(db: sqlite3.Connection, spool: Path, limits: Limits) -> list[tuple[int, str]]:
    """Prepare the folders of the jobs that may start and record them as running: (id, token) of each."""
    now = time.time()
    _fail_too_big(db, limits, now)
    used = db.execute(
        "SELECT coalesce(sum(cpus * tasks), 0) AS cpus, coalesce(sum(memory_gb), 0) AS memory_gb,"
        " group_concat(nullif(devices, '')) AS devices"
        " FROM jobs WHERE ended IS NULL AND state = 'RUNNING' AND site = '' AND batch = ''"
    ).fetchone()
    free_cpus, free_gb = limits.cpus - used["cpus"], limits.memory_gb - used["memory_gb"]
    devices = [n for n in range(limits.gpus) if str(n) not in (used["devices"] or "").split(",")]
    queued = (
        "SELECT id, token, spec, cpus * tasks AS cpus, memory_gb, gpus, resumable FROM jobs"
        " WHERE ended IS NULL AND state = 'QUEUED' AND site = '' AND batch = '' AND cpus"
    )
    starting = choose(db.execute(f"{queued} = 0 ORDER BY id"), 0, free_gb, len(devices))
    free_gb -= sum(row["memory_gb"] for row in starting)
    free_gpus = len(devices) - sum(row["gpus"] for row in starting)
    starting += choose(db.execute(f"{queued} > 0 ORDER BY id"), free_cpus, free_gb, free_gpus)
    started = []
    for row in starting:
        given = ",".join(str(devices.pop(0)) for _ in range(row["gpus"]))
        try:
            _prepare(folder_of(spool, row["id"]), spool, row, given if limits.gpus else None)
        except OSError as e:  # a full disk: it waits for a later pass
            _log.warning("Job %d cannot start yet: %s", row["id"], e)
            break
        db.execute(
            "UPDATE jobs SET state = 'RUNNING', reason = '', started = ?, attempts = attempts + 1,"
            " devices = ? WHERE id = ?",
            (now, given, row["id"]),
        )
        started.append((row["id"], row["token"]))
    return started


def _fail_too_big(db: sqlite3.Connection, limits: Limits, now: float) -> None:
    """Jobs that were accepted under wider limits would hold back the queue for ever."""
    for row in db.execute(
        "SELECT id, cpus * tasks AS cpus, memory_gb, gpus FROM jobs"
        " WHERE ended IS NULL AND state = 'QUEUED' AND site = '' AND batch = ''"
        " AND (cpus * tasks > ? OR memory_gb > ? OR gpus > ?)",
        (limits.cpus, limits.memory_gb, limits.gpus),
    ).fetchall():
        try:
            limits.check(row["cpus"], row["memory_gb"], row["gpus"])
        except JobError as e:
            rows.finish(db, row["id"], {"state": "FAILED", "exit_code": None, "reason": str(e), "time": now})


def _prepare(folder: JobFolder, spool: Path, row: sqlite3.Row, devices: str | None) -> None:
    folder.path.mkdir(exist_ok=True)
    for stale in ("claim.json", OUTCOME):  # of a run that was lost, or of a queue that was
        (folder.path / stale).unlink(missing_ok=True)
    order = order_of(row, folder) | {"spool": str(spool)}
    if devices is not None:
        order["env"]["CUDA_VISIBLE_DEVICES"] = devices
    folder.write("job.json", order)


def order_of(row: sqlite3.Row, folder: JobFolder) -> dict[str, Any]:
    """What a supervisor is told: `job.json`."""
    spec: dict[str, Any] = json.loads(row["spec"])
    for stream in ("stdout", "stderr"):
        spec[stream] = spec[stream] or str(folder.path / f"{stream}.log")
    spec["env"] |= {"SCIPION_CLOUD_JOB_ID": str(row["id"]), processes.TOKEN: row["token"]}
    return {**spec, "token": row["token"], "resumable": bool(row["resumable"])}


def _spawn(folder: JobFolder, token: str) -> None:
    """Start a supervisor that is nobody's child; it holds the folder's lock from before its birth."""
    runner = Runner()
    argv = ["setsid", "--fork", *runner.argv("supervisor")]
    env = {"PATH": os.defpath, processes.TOKEN: token, **runner.env}
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
        if outcome := folder.read(OUTCOME):
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
        return {
            "state": "FAILED",
            "reason": f"its supervisor did not start: {last_line(folder) or 'no reason is known'}",
        }
    if row["resumable"] and row["attempts"] < RESUMES:
        return {"state": "QUEUED"}
    claim = folder.read("claim.json") or {}
    if claim.get("boot") != processes.boot_id():
        return {"state": "FAILED", "reason": "the machine was restarted while the job ran; start it again"}
    return {
        "state": "FAILED",
        "reason": "the job was killed from outside, with its supervisor; start it again",
    }


def last_line(folder: JobFolder) -> str:
    """What a supervisor said last; only those that fail say anything."""
    try:
        text = (folder.path / "supervisor.log").read_text(errors="replace")
    except OSError as e:
        return str(e)
    return text.strip().rpartition("\n")[2]


def main(arguments: Sequence[str]) -> None:
    """One pass over the queue in this folder."""
    try:
        run(Path(arguments[0]))
    except JobError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main(sys.argv[1:])
