"""One job's way to a site and back, a phase at a time. Each may be repeated after a kill; none is left out.

pack     what does it need?
send     its files go to the site
submit   the intent is on the disk: from now on this site, and this key
run      the site's batch system has it
fetch    its results arrive beside their place
place    and are put there
"""

import shutil
import threading
import time
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import Any

from scipion_cloud.broker import places, placing
from scipion_cloud.broker.early import bring_movies
from scipion_cloud.broker.known import stamps
from scipion_cloud.broker.ledger import folder_of
from scipion_cloud.broker.logs import bring_output, bring_protocol_logs
from scipion_cloud.broker.notes import Notes
from scipion_cloud.broker.order import BEGAN, STAGE, spec_there, write_order
from scipion_cloud.broker.packing import pack, send
from scipion_cloud.broker.parcel import Parcel
from scipion_cloud.broker.telling import Telling, sending
from scipion_cloud.broker.transfer import Progress
from scipion_cloud.broker.way import Way
from scipion_cloud.broker.words import size_words
from scipion_cloud.config import Config
from scipion_cloud.errors import BridgeError, InvalidInput, JobError, JobRefused
from scipion_cloud.jobs import JobId, JobState, JobStatus
from scipion_cloud.jobs.away import Away, AwayJob
from scipion_cloud.jobs.folder import JobFolder
from scipion_cloud.sites import state

LOGS_EVERY = 20.0  # s
LOST_AFTER = 60.0  # s for which a site does not know a job before it counts as lost
ATTEMPTS = 3  # at a job that goes on by itself


class Trip:
    """The way of one job."""

    def __init__(self, config: Config, job: AwayJob) -> None:
        self.job = job
        self.stop = threading.Event()  # set when the job is cancelled
        self.turn = threading.Lock()  # held by the thread that works on it
        self._config = config
        self._away = Away(config.jobs)
        self._notes = Notes(JobFolder(config.jobs / str(job.id)))
        self._telling = Telling(self._away, job.id)
        self._logs_at = 0.0
        self._unknown_since: float | None = None
        self._runs = job.state is JobState.RUNNING  # as was last heard
        self._shown = False  # in the run's own database
        self._unanswered = 0  # times that Scipion could not tell what the protocol needs

    @property
    def phase(self) -> str:
        """What is to be done next."""
        return self._notes.phase

    @property
    def remote(self) -> JobId | None:
        """The number that the job has at the site."""
        return self._notes.remote

    @property
    def logs_due(self) -> bool:
        """Whether it is time to bring the logs of a job that runs."""
        return self._runs and time.monotonic() - self._logs_at > LOGS_EVERY

    @cached_property
    def parcel(self) -> Parcel:
        """What is known of the job. Raises InvalidInput."""
        return Parcel.from_json(self.job.spec.parcel)

    @cached_property
    def place(self) -> str:
        """Where the job's root is in the site's area."""
        return places.project_place(self._config, self.parcel.root)

    @property
    def folders(self) -> set[str]:
        """The folders below the site's area that the job uses."""
        mine = {folder_of(f"{self.place}/{self.parcel.run}"), self._start}
        return mine | {folder_of(path) for path in self._paths()}

    def step(self, way: Way) -> None:
        """Do what is next. Raises InvalidInput when it can never be done, TransferError and JobError when
        it may be tried again, Stopped when the job was cancelled meanwhile.
        """
        match self.phase:
            case "pack" | "send" if self.stop.is_set():
                self.end(way, JobState.CANCELLED, None, "cancelled before it was sent")
            case "pack":
                self._pack(way)
            case "send":
                self._send(way)
            case "submit":
                self._submit(way)
            case "run" if self.stop.is_set():
                remote = self._at_site
                way.backend.cancel([remote])
                self.seen(way, way.backend.status([remote])[remote])
            case "run":
                self._follow(way)
            case "fetch":
                self._fetch(way)
            case "place":
                self._place(way)

    def fail(self, way: Way, reason: str) -> None:
        """It can never be done."""
        self.end(way, JobState.FAILED, None, reason)

    def end(self, way: Way, state: JobState, code: int | None, reason: str) -> None:
        """Report the job's end; what it left at the site is removed some time later."""
        if self.phase != "pack":
            way.ledger.end([folder_of(f"{self.place}/{self.parcel.run}"), self._start])
        shutil.rmtree(self._arrivals, ignore_errors=True)
        self._away.finish(self.job.id, state, code, reason)

    def tell(self, reason: str) -> None:
        """Let people know what is being done, not too often. Raises JobError."""
        if self._runs or self.phase in ("fetch", "place"):
            self._telling.runs(reason, self._notes.started)
        else:
            self._telling.waits(reason)

    def trouble(self, reason: str) -> None:
        """Let people know at once what does not work. Raises JobError."""
        self._telling.afresh()
        self.tell(reason)

    def seen(self, way: Way, status: JobStatus) -> None:
        """What the site says of the job that it has. Raises as `step` does."""
        if status.state is JobState.UNKNOWN:
            self._unknown(way)
            return
        self._unknown_since = None
        if status.state.is_final:
            ending = {"state": status.state, "exit_code": status.exit_code, "reason": status.reason}
            self._notes.saw_start(status.started)
            self._go("fetch", outcome=ending)
            return
        self._runs = status.state is JobState.RUNNING
        if self._runs:
            if not self._shown and self.parcel.protocol is not None:
                placing.show_running(self.parcel)
            self._shown = True
            self._notes.saw_start(status.started)
            self.tell(f"runs at {way.site.label}")
        else:
            self.tell(f"waiting at {way.site.label}{f': {status.reason}' if status.reason else ''}")

    # the phases

    def _pack(self, way: Way) -> None:
        self.tell(f"looking for what {way.site.label} needs")
        try:
            contents = pack(self._config, way.site, self.parcel, self.place)
        except BridgeError as e:  # asked again, for Scipion may have been busy
            self._unanswered += 1
            if self._unanswered < ATTEMPTS:
                raise
            raise InvalidInput(f"Scipion cannot tell what it needs: {e}") from e
        self._notes.keep_contents(contents)
        self._go("send")

    def _send(self, way: Way) -> None:
        transfer, contents = way.transfer(self.stop), self._notes.contents()
        with way.sweeping:
            way.ledger.use([*self._paths(), f"{self.place}/{self.parcel.run}", self._start])
        began = time.monotonic()
        told = sending(way.site.label, contents.size, self.tell)
        told(Progress(0, 0.0))
        inputs = stamps(contents)  # a file that changes meanwhile does not count as sent
        sent = send(contents, self.parcel, f"{self._start}/{STAGE}", transfer, told)
        state.note_transfer(self._config, way.site.name, sent, time.monotonic() - began)
        order = self._notes.folder.path / "order"
        turn = (self.job.id, self._notes.attempt)
        write_order(order, way.site, self.job.spec, self.parcel, self.place, contents, turn)
        transfer.send_folder(order, self._start)
        own = f"{self.place}/{self.parcel.run}/"
        with suppress(JobError):  # it is for estimates only
            way.ledger.sent({path: stamp for path, stamp in inputs.items() if not path.startswith(own)})
        self._go("submit")

    def _submit(self, way: Way) -> None:
        self.tell(f"submitting to {way.site.label}")
        try:
            remote = way.backend.submit(
                spec_there(way.site, self.job.spec, self.parcel, self._start), self._key
            )
        except JobRefused as e:
            raise InvalidInput(f"{way.site.label} refuses: {e}") from e
        self._go("run", remote=remote)
        self.tell(f"waiting at {way.site.label}")

    def _unknown(self, way: Way) -> None:
        """The site cannot say how the job is. Lost is only one whose key is not known there either."""
        found = way.backend.find(self._key)
        if found is not None:
            self._unknown_since = None
            if found != self.remote:  # its queue was made anew, and got our request once more
                self._go("run", remote=found)
            return
        now = time.monotonic()
        self._unknown_since = self._unknown_since or now
        if now - self._unknown_since < LOST_AFTER:
            return
        if self.job.spec.resumable and self._notes.attempt < ATTEMPTS and not self.stop.is_set():
            shutil.rmtree(self._arrivals, ignore_errors=True)  # of the attempt that counts no more
            self._notes.go_again()
            self._unknown_since, self._runs, self._shown = None, False, False
            self.trouble(f"{way.site.label} has lost it; it is sent again")
            return
        self.fail(
            way, f"{way.site.label} has lost the job: its queue does not know it any more. Run it again."
        )

    def _fetch(self, way: Way) -> None:
        ending = self._notes.outcome
        if self.stop.is_set() or ending["state"] == JobState.CANCELLED:
            self._bring_logs(way, threading.Event())
            self.end(way, JobState.CANCELLED, ending["exit_code"], "cancelled")
            return
        words = f"bringing results back from {way.site.label}"
        self.tell(words)
        began, last = time.monotonic(), Progress(0, 0.0)

        def told(progress: Progress) -> None:
            nonlocal last
            last = progress
            self.tell(f"{words}, {size_words(progress.done)} so far")

        if self._has_begun(way, self.stop):
            way.transfer(self.stop).fetch(f"{self.place}/{self.parcel.run}/", self._arrivals, told)
        state.note_transfer(self._config, way.site.name, last.done, time.monotonic() - began)
        self._bring_output(way)
        self._go("place")

    def _place(self, way: Way) -> None:
        trees = self._notes.contents().trees
        roots = {f"{way.area}/{tree.place}": tree.root for tree in trees}
        placing.place(self._arrivals, self.parcel, roots)
        ending = self._notes.outcome
        found, reason = JobState(ending["state"]), ending["reason"]
        if found is JobState.FAILED:
            reason = f"at {way.site.label}: {reason}"
        self.end(way, found, ending["exit_code"], reason)

    # parts of them

    def _follow(self, way: Way) -> None:
        """Bring what people want to see while it runs."""
        try:
            self._bring_logs(way, self.stop)
            if self._notes.began:
                bring_movies(way, self.parcel, self.place, self._arrivals, self.stop)
        finally:
            self._logs_at = time.monotonic()  # the site is asked in between, however long this takes

    def _bring_logs(self, way: Way, stop: threading.Event) -> None:
        if self._has_begun(way, stop):
            bring_protocol_logs(way, self.parcel, self.place, stop)
        self._bring_output(way)

    def _has_begun(self, way: Way, stop: threading.Event) -> bool:
        """Whether what lies in the run's folder there is this attempt's, not that of an earlier job."""
        if not self._notes.began and BEGAN in way.transfer(stop).sizes(self._start, 1):
            self._notes.go(self.phase, began=True)
        return self._notes.began

    def _bring_output(self, way: Way) -> None:
        bring_output(way, self._at_site, self.job.spec, self._notes.folder.path)

    def _go(self, phase: str, **facts: Any) -> None:
        """Commit the next phase."""
        self._notes.go(phase, **facts)
        self._telling.afresh()

    def _paths(self) -> list[str]:
        """All files of the job below the area; none before it is known what it needs."""
        if self.phase == "pack":
            return []
        return [f"{tree.place}/{path}" for tree in self._notes.contents().trees for path in tree.files]

    @property
    def _at_site(self) -> JobId:
        """Its number there, once it has one."""
        if self.remote is None:
            raise InvalidInput(f"{self._notes.folder.path} does not say what the job is at its site.")
        return self.remote

    @property
    def _key(self) -> str:
        return f"{places.home_id(self._config)}:{self.job.id}:{self._notes.attempt}"

    @property
    def _start(self) -> str:
        return places.run_place(self._config, self.job.id, self._notes.attempt)

    @property
    def _arrivals(self) -> Path:
        return placing.arrivals(self.parcel, self.job.id)
