"""The jobs in the index: how a specification becomes a row, and a row an answer."""

import json
import os
import re
import sqlite3
import time
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from scipion_cloud.jobs.spec import JobId, JobInfo, JobSpec, JobState, JobStatus

GRACE = 2.0  # seconds between SIGTERM and SIGKILL, for jobs of earlier versions that name none
_INHERITED = re.compile(
    "PATH|LD_LIBRARY_PATH|HOME|USER|LOGNAME|SHELL|LANG|LANGUAGE|LC_.*|TZ|TMPDIR|SCIPION_CLOUD_(HOME|SOFTWARE)"
)


def key_bytes(key: str) -> bytes:
    """Any text as bytes, different for different texts."""
    return key.encode("utf-8", "surrogatepass")


def find(db: sqlite3.Connection, key: str) -> JobId | None:
    """The job with this key."""
    row = db.execute("SELECT id FROM jobs WHERE key = ?", (key_bytes(key),)).fetchone()
    return row["id"] if row else None


def insert(db: sqlite3.Connection, spec: JobSpec, key: str) -> JobId:
    """Add a job; what it inherits of this process's environment is settled here."""
    cursor = db.execute(
        "INSERT INTO jobs (key, token, spec, cpus, memory_gb, tasks, gpus, resumable, site, submitted)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            key_bytes(key),
            os.urandom(16).hex(),
            json.dumps(_content(spec)),
            spec.cpus,
            spec.memory_gb,
            spec.tasks,
            spec.gpus,
            spec.resumable,
            spec.site,
            time.time(),
        ),
    )
    assert cursor.lastrowid  # noqa: S101 - sqlite sets it on each insert
    return JobId(cursor.lastrowid)


def _content(spec: JobSpec) -> dict[str, Any]:
    """What of a specification has no column of its own. Elsewhere, this machine's PATH means nothing."""
    inherited = {} if spec.site else {k: v for k, v in os.environ.items() if _INHERITED.fullmatch(k)}
    return {
        "argv": spec.argv,
        "cwd": str(spec.cwd),
        "name": spec.name,
        "owner": spec.owner,
        "hours": spec.hours,
        "grace": spec.grace,
        "env": inherited | dict(spec.env),
        "stdout": spec.stdout and str(spec.cwd / spec.stdout),
        "stderr": spec.stderr and str(spec.cwd / spec.stderr),
        "parcel": spec.parcel and dict(spec.parcel),
    }


def spec_of(row: sqlite3.Row) -> JobSpec:
    """The specification of a job, with the environment that it inherited."""
    content = json.loads(row["spec"])
    return JobSpec(
        argv=tuple(content["argv"]),
        cwd=Path(content["cwd"]),
        name=content["name"],
        cpus=row["cpus"],
        tasks=row["tasks"],
        gpus=row["gpus"],
        memory_gb=row["memory_gb"],
        hours=content["hours"],
        grace=content.get("grace", GRACE),
        env=content["env"],
        stdout=content["stdout"] and Path(content["stdout"]),
        stderr=content["stderr"] and Path(content["stderr"]),
        owner=content["owner"],
        resumable=bool(row["resumable"]),
        site=row["site"],
        parcel=content.get("parcel"),
    )


def statuses(db: sqlite3.Connection, ids: Iterable[int]) -> dict[JobId, JobStatus]:
    """The status of those of these jobs that exist."""
    found = db.execute(
        "SELECT id, state, exit_code, reason, submitted, started, ended FROM jobs"
        " WHERE id IN (SELECT value FROM json_each(?))",
        (json.dumps(list(ids)),),
    )
    return {JobId(row["id"]): status(row) for row in found}


def status(row: sqlite3.Row) -> JobStatus:
    """What a row says of its job's life."""
    return JobStatus(
        JobState(row["state"]),
        row["exit_code"],
        row["reason"],
        _time(row["submitted"]),
        _time(row["started"]),
        _time(row["ended"]),
    )


def _time(seconds: float | None) -> datetime | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC)


def info(row: sqlite3.Row) -> JobInfo:
    """A line of the list of jobs."""
    content = json.loads(row["spec"])
    return JobInfo(
        row["id"],
        content["name"],
        content["owner"],
        row["cpus"],
        row["memory_gb"],
        status(row),
        content.get("grace", GRACE),
        row["tasks"],
        row["gpus"],
        row["site"],
        content["cwd"],
    )


def finish(db: sqlite3.Connection, job: int, ending: Mapping[str, Any]) -> None:
    """Record how a job ended, once: what has ended stays as it is. A node's clock may differ from ours."""
    db.execute(
        "UPDATE jobs SET state = ?, exit_code = ?, reason = ?, started = coalesce(?, started),"
        " ended = max(?, submitted, coalesce(started, 0), coalesce(?, 0)) WHERE id = ? AND ended IS NULL",
        (
            ending["state"],
            ending["exit_code"],
            ending["reason"],
            ending.get("started"),
            ending["time"],
            ending.get("started"),
            job,
        ),
    )
