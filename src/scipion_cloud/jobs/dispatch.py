"""Send jobs to a batch system, each once.

What is about to be sent is committed first, with a name that no other job has. Where it is not known whether
that happened, the name is looked up before it is sent again; and should two batch jobs of one name come to
exist all the same, the claim in the job's folder lets only one of them run.
"""

import hashlib
import logging
import os
import shlex
import sqlite3
import time
from collections.abc import Mapping, Sequence
from itertools import groupby
from pathlib import Path

from scipion_cloud.errors import JobError
from scipion_cloud.jobs import index, rows
from scipion_cloud.jobs.batch_system import INDEX, PREFIX, Ask, BatchSystem, NoAnswer, Seen
from scipion_cloud.jobs.claim import Claim
from scipion_cloud.jobs.folder import JobFolder, sync_file_system
from scipion_cloud.jobs.runner import Runner
from scipion_cloud.jobs.schedule import folder_of, order_of
from scipion_cloud.jobs.spec import JobId, JobSpec
from scipion_cloud.jobs.supervisor import KILL_LIMIT

ARRAY = 1000  # jobs in one; Slurm takes that many unless it is told otherwise
MARGIN = 60.0  # seconds by which the batch system's time limit is later than ours

Shown = Mapping[tuple[str, int], Sequence[Seen]]
"""What the batch system shows, by name and number in the array."""

_log = logging.getLogger(__name__)


def plan(db: sqlite3.Connection, jobs: Sequence[tuple[JobId, JobSpec]]) -> None:
    """Give new jobs their names: equal ones that follow each other become arrays."""
    for _, group in groupby(jobs, key=lambda job: _alike(job[1])):
        members = [job for job, _ in group]
        for first in range(0, len(members), ARRAY):
            array = members[first : first + ARRAY]
            name = _name(db, array[0])
            db.executemany(
                "UPDATE jobs SET batch = ?, batch_index = ? WHERE id = ?",
                [(name, number, job) for number, job in enumerate(array)],
            )


def plan_again(db: sqlite3.Connection, job: int) -> None:
    """Give a job that was lost a new name, which is its alone."""
    db.execute("UPDATE jobs SET batch = ?, batch_index = 0, seen = NULL WHERE id = ?", (_name(db, job), job))


def _name(db: sqlite3.Connection, job: int) -> str:
    """The same for the same key and attempt, and no other queue's."""
    token, key, attempts = db.execute(
        "SELECT looks.token, key, attempts FROM jobs, looks WHERE id = ?", (job,)
    ).fetchone()
    text = f"{token} {attempts} ".encode() + key
    return PREFIX + hashlib.blake2b(text, digest_size=12).hexdigest()


def _alike(spec: JobSpec) -> tuple[object, ...]:
    return spec.cpus, spec.tasks, spec.gpus, spec.memory_gb, spec.hours, spec.grace, spec.resumable


def send(spool: Path, system: BatchSystem, runner: Runner, shown: Shown | None) -> None:
    """Send what waits to be sent, under the queue's turn.

    Without `shown`, only what was never tried. Raises NoAnswer, and the rest is sent later.
    """
    with index.reading(spool) as db:
        waiting = db.execute(
            "SELECT * FROM jobs WHERE ended IS NULL AND site = '' AND batch != '' AND seen IS NULL"
            " ORDER BY id"
        ).fetchall()
    for name in dict.fromkeys(row["batch"] for row in waiting):
        group = [row for row in waiting if row["batch"] == name]
        if any(row["attempts"] for row in group):
            if shown is None:
                continue
            if there := _there(spool, group, shown):
                _note_sent(spool, group, there)
                continue
        try:
            _send(spool, system, runner, name, group)
        except OSError as e:  # a full disk: it waits for a later pass
            _log.warning("Job %d cannot be sent yet: %s", group[0]["id"], e)


def _there(spool: Path, group: Sequence[sqlite3.Row], shown: Shown) -> str:
    """The batch system's id of a group that was sent by somebody who did not live to note it."""
    for row in group:
        for seen in shown.get((row["batch"], row["batch_index"]), ()):
            if not seen.state.is_final:
                return seen.id
        claim = Claim.of(folder_of(spool, row["id"]))
        if claim and claim.batch:
            return claim.batch
    return ""


def _send(spool: Path, system: BatchSystem, runner: Runner, name: str, group: Sequence[sqlite3.Row]) -> None:
    with index.reading(spool) as db:
        query = "SELECT id FROM jobs WHERE batch = ? ORDER BY batch_index"
        ids = [row["id"] for row in db.execute(query, (name,))]
    for row in group:
        _prepare(folder_of(spool, row["id"]), row)
    script = folder_of(spool, ids[0]).path / f"{name}.sh"
    script.write_text(_script(spool, runner, ids))
    sync_file_system(spool)
    with index.writing(spool) as db:
        db.executemany("UPDATE jobs SET attempts = attempts + 1 WHERE id = ?", [(r["id"],) for r in group])
    try:
        batch_id = system.submit(_ask(name, script, group[0], len(ids)))
    except NoAnswer as e:
        with index.writing(spool) as db:
            reason = f"the batch system does not answer: {e}"
            db.executemany("UPDATE jobs SET reason = ? WHERE id = ?", [(reason, r["id"]) for r in group])
        raise
    except JobError as e:
        ending = {"state": "FAILED", "exit_code": None, "reason": str(e), "time": time.time()}
        with index.writing(spool) as db:
            for row in group:
                rows.finish(db, row["id"], ending)
        return
    _note_sent(spool, group, batch_id)


def _note_sent(spool: Path, group: Sequence[sqlite3.Row], batch_id: str) -> None:
    with index.writing(spool) as db:
        db.executemany(
            "UPDATE jobs SET batch_id = ?, seen = ?, missing = NULL, reason = '' WHERE id = ?",
            [(batch_id, time.time(), row["id"]) for row in group],
        )


def _ask(name: str, script: Path, row: sqlite3.Row, count: int) -> Ask:
    spec = rows.spec_of(row)
    late = (spec.grace + KILL_LIMIT + MARGIN) / 3600
    return Ask(
        name,
        script,
        script.parent,
        spec.cpus,
        spec.tasks,
        spec.gpus,
        spec.memory_gb,
        spec.hours and spec.hours + late,
        spec.resumable,
        count,
    )


def _prepare(folder: JobFolder, row: sqlite3.Row) -> None:
    """A folder from a queue that was lost has another's claim, and no id is given twice: none is met here."""
    folder.path.mkdir(exist_ok=True)
    if not folder.has("job.json"):
        folder.write("job.json", order_of(row, folder), sync=False)


def _script(spool: Path, runner: Runner, ids: Sequence[JobId]) -> str:
    """For sh: find the folder by the number in the array, and become the job's supervisor."""
    exports = " ".join(f"{name}={shlex.quote(value)}" for name, value in runner.env.items())
    return (
        "#!/bin/sh\n"
        f"set -- {' '.join(map(str, ids))}\n"
        f'shift "${INDEX}"\n'
        f"cd {shlex.quote(os.fspath(spool))} || exit 1\n"
        'exec >>"$1/supervisor.log" 2>&1 </dev/null\n'
        f'exec env {exports} {shlex.join(runner.argv("supervisor"))} "$PWD/$1"\n'
    )
