"""A look at a batch system's jobs, one for all who ask: what has changed is noted in the index.

Supervisors leave word of what they do in `spool/news`, which is cheap to look at. The batch system is asked
at most once in `poll` seconds, whoever asks and however often, and less often while nothing changes.
"""

import logging
import os
import sqlite3
import time
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from scipion_cloud.errors import JobError
from scipion_cloud.jobs import claim, dispatch, index, rows, schedule
from scipion_cloud.jobs.batch_system import BatchSystem, NoAnswer, Seen
from scipion_cloud.jobs.claim import Claim
from scipion_cloud.jobs.folder import JobFolder
from scipion_cloud.jobs.judge import Known, Shown, Verdict, judge, pick
from scipion_cloud.jobs.runner import Runner
from scipion_cloud.jobs.schedule import ATTEMPTS, RESUMES, folder_of, last_line
from scipion_cloud.jobs.spec import JobState

SLOWEST = 10.0  # seconds between two looks while nothing changes
UNHEARD = 30.0  # seconds between two while there is no answer
_LIVE = "ended IS NULL AND site = '' AND batch != ''"
_OF_MACHINE = "ended IS NULL AND site = '' AND batch = ''"
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Looker:
    """The way to look; `BatchBackend` holds the queue's turn meanwhile."""

    spool: Path
    system: BatchSystem
    runner: Runner
    poll: float  # seconds
    lost_after: float  # seconds

    def _adopt(self) -> None:
        """Have the batch system start what waits since this machine was the one that computes."""
        with index.reading(self.spool) as db:
            left = db.execute(f"SELECT 1 FROM jobs WHERE {_OF_MACHINE} LIMIT 1").fetchone()  # noqa: S608
        if left:
            schedule.notice_endings(self.spool)
            with index.writing(self.spool) as db:
                query = f"SELECT * FROM jobs WHERE state = 'QUEUED' AND {_OF_MACHINE} ORDER BY id"  # noqa: S608
                waiting = db.execute(query).fetchall()
                dispatch.plan(db, [(row["id"], rows.spec_of(row)) for row in waiting])

    def is_due(self) -> bool:
        """True if there is something to see."""
        return bool(self._news()) or self._asking_is_due()

    def _asking_is_due(self) -> bool:
        with index.reading(self.spool) as db:
            looked, pause = db.execute("SELECT looked, pause FROM looks").fetchone()
            since = time.time() - looked
            return not 0 <= since < pause and bool(
                db.execute("SELECT 1 FROM jobs WHERE ended IS NULL AND site = '' LIMIT 1").fetchone()
            )

    def look(self, ask: bool = False) -> None:
        """Note what has changed, and send what waits; `ask` the batch system even if it is early."""
        news = self._news()
        if news:
            ids = {int(name.partition(".")[0]) for name in news}
            self._settle(self._rows(ids), None)
            for name in news:
                (self.spool / "news" / name).unlink(missing_ok=True)
        if ask or self._asking_is_due():
            self._adopt()
            self._ask(bool(news))

    def send_new(self) -> None:
        """Send what has just been queued, unless the batch system has been silent until now."""
        with index.reading(self.spool) as db:
            fault = db.execute("SELECT fault FROM looks").fetchone()[0]
        if fault and not self._asking_is_due():
            return
        begin = time.time()
        try:
            dispatch.send(self.spool, self.system, self.runner, None)
        except NoAnswer as e:
            self._note_look(begin, UNHEARD, str(e))
            raise
        with index.writing(self.spool) as db:  # it may start at once
            db.execute("UPDATE looks SET pause = ?", (self.poll,))

    def _ask(self, had_news: bool) -> None:
        begin = time.time()
        live = self._rows(None)
        try:
            seen = self.system.jobs()
            shown = defaultdict(list)
            for one in seen:
                shown[one.name, one.index].append(one)
            changed = self._settle(live, shown)
            dispatch.send(self.spool, self.system, self.runner, shown)
        except JobError as e:
            if not isinstance(e, NoAnswer):
                _log.warning("%s", e)
            self._note_look(begin, UNHEARD, str(e))
            return
        with index.reading(self.spool) as db:
            (pause,) = db.execute("SELECT pause FROM looks").fetchone()
        quiet = not (changed or had_news)
        self._note_look(begin, min(max(pause, self.poll) * 1.5, SLOWEST) if quiet else self.poll, "")

    def _note_look(self, begin: float, pause: float, fault: str) -> None:
        with index.writing(self.spool) as db:
            db.execute(
                "UPDATE looks SET looked = ?, pause = ?, fault = ?", (begin, max(pause, self.poll), fault)
            )

    def _news(self) -> list[str]:
        try:
            names = os.listdir(self.spool / "news")  # noqa: PTH208 - names only, and many times a second
        except FileNotFoundError:
            return []
        return [name for name in names if name.partition(".")[0].isdigit()]

    def _rows(self, ids: Iterable[int] | None) -> list[sqlite3.Row]:
        with index.reading(self.spool) as db:
            if ids is None:
                return db.execute(f"SELECT * FROM jobs WHERE {_LIVE}").fetchall()  # noqa: S608
            query = f"SELECT * FROM jobs WHERE {_LIVE} AND id = ?"  # noqa: S608
            return [row for job in ids for row in db.execute(query, (job,))]

    def _settle(self, live: Sequence[sqlite3.Row], shown: dispatch.Shown | None) -> bool:
        """Judge these jobs, and note what has changed. True if something has, or soon will."""
        changes, extra, killed = [], [], []
        for row in live:
            if row["seen"] is None and not row["attempts"]:
                continue  # not sent yet
            here = shown.get((row["batch"], row["batch_index"]), ()) if shown is not None else ()
            if len(here) == 1 and _is_as_noted(row, here[0]):
                continue
            if row["seen"] is None and not here:
                continue  # it is not known whether it was sent: `dispatch` finds out
            folder = folder_of(self.spool, row["id"])
            try:
                verdict = self._judge(row, folder, here, asked=shown is not None)
            except OSError as e:
                _log.warning("Nothing can be learned of job %d now: %s", row["id"], e)
                continue
            changes.append((row, verdict, here))
            if verdict.revoke:
                killed += [seen.id for seen in here if not seen.state.is_final]
            elif not verdict.state.is_final:
                extra += _copies(here, Claim.of(folder))
        if changes:
            with index.writing(self.spool) as db:
                for row, verdict, here in changes:
                    _note(db, row, verdict, here)
        if extra:
            self.system.drop(extra)
        if killed:
            self.system.kill(killed)
        return any(_differs(row, verdict) for row, verdict, _ in changes)

    def _judge(self, row: sqlite3.Row, folder: JobFolder, here: Sequence[Seen], asked: bool) -> Verdict:
        known = _known(row, folder)
        shown = (pick(here, known.claim) or Shown.MISSING) if asked else Shown.NOT_ASKED
        verdict = judge(known, shown, time.time(), self.lost_after)
        held = known.claim if known.claim and known.claim.batch else None
        if verdict.resend and row["attempts"] >= (RESUMES if held else ATTEMPTS):
            verdict = Verdict(JobState.FAILED, verdict.reason, ended=time.time(), revoke=True)
        if verdict.resend and held:
            claim.release(folder, held)
        if verdict.revoke and folder.path.exists():
            claim.revoke(folder, verdict.reason)
        if (verdict.revoke or verdict.resend) and held and (outcome := folder.read(held.outcome)):
            last = replace(known, claim=held, outcome=outcome)  # it came at the last moment
            return judge(last, Shown.NOT_ASKED, time.time(), self.lost_after)
        if verdict.revoke and verdict.state is JobState.FAILED and known.folder:
            said = last_line(folder)
            return replace(verdict, reason=f"{verdict.reason}; {said}" if said else verdict.reason)
        return verdict


def _is_as_noted(row: sqlite3.Row, seen: Seen) -> bool:
    """The quick way for most: nothing has changed, and no folder need be read."""
    if row["missing"] is not None or row["cancelling"] or row["seen"] is None or row["state"] != seen.state:
        return False
    return seen.state is JobState.RUNNING or row["reason"] == seen.reason


def _known(row: sqlite3.Row, folder: JobFolder) -> Known:
    if row["missing"] is not None and folder.path.exists():
        os.listdir(folder.path)  # noqa: PTH208 - NFS forgets what it took for missing
    held = Claim.of(folder)
    return Known(
        JobState(row["state"]),
        bool(row["cancelling"]),
        row["missing"],
        folder.has("job.json"),
        held,
        folder.read(held.outcome) if held and held.batch else None,
        bool(row["resumable"]),
    )


def _copies(here: Sequence[Seen], held: Claim | None) -> list[str]:
    """Batch jobs of one name that wait beside the one that has the claim; they would do nothing."""
    return [seen.id for seen in here if held and seen.id != held.batch and seen.state is JobState.QUEUED]


def _differs(row: sqlite3.Row, verdict: Verdict) -> bool:
    return verdict.state != row["state"] or verdict.missing is not None or verdict.resend


def _note(db: sqlite3.Connection, row: sqlite3.Row, verdict: Verdict, here: Sequence[Seen]) -> None:
    if verdict.state.is_final:
        rows.finish(
            db,
            row["id"],
            {
                "state": verdict.state,
                "exit_code": verdict.exit_code,
                "reason": verdict.reason,
                "started": verdict.started,
                "time": verdict.ended,
            },
        )
        return
    batch_id = here[0].id if here else row["batch_id"]
    db.execute(
        "UPDATE jobs SET state = ?, reason = ?, started = max(?, submitted), missing = ?, seen = ?,"
        " batch_id = ? WHERE id = ? AND ended IS NULL",
        (verdict.state, verdict.reason, verdict.started, verdict.missing, time.time(), batch_id, row["id"]),
    )
    if verdict.resend:
        dispatch.plan_again(db, row["id"])
