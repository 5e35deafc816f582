"""The process beside a working copy: lock, fetch, save every few minutes, save at the end, release."""

import contextlib
import os
import socket
import sys
from datetime import datetime, timedelta
from typing import Any

from scipion_cloud import __version__
from scipion_cloud.deployments import session as sessions
from scipion_cloud.deployments.board import Board
from scipion_cloud.deployments.closing import Closing
from scipion_cloud.deployments.context import Context, Ended, now
from scipion_cloud.deployments.locking import lock
from scipion_cloud.deployments.opening import Opening
from scipion_cloud.deployments.orders import Ask, Order, Orders
from scipion_cloud.deployments.saving import Saver
from scipion_cloud.deployments.server import serving
from scipion_cloud.deployments.settings import AgentSettings
from scipion_cloud.deployments.staging import Staging, transfer
from scipion_cloud.deployments.states import Exit, Phase
from scipion_cloud.deployments.status import AgentStatus, LeaseStatus
from scipion_cloud.deployments.tasks import Stopped
from scipion_cloud.deployments.troubles import advice
from scipion_cloud.deployments.working import Working
from scipion_cloud.errors import Conflict, LeaseLost, StorageError
from scipion_cloud.sync.copy import WorkingCopy
from scipion_cloud.sync.lease import Lease
from scipion_cloud.sync.repository import Repository

WARN_BEFORE = timedelta(minutes=30)  # the deadline


class Agent:
    """One deployment. `run` does all of it; the other methods may be called from any thread meanwhile."""

    def __init__(self, settings: AgentSettings) -> None:
        self._settings = settings
        self._orders = Orders()
        self._board: Board | None = None
        self._staging: Staging | None = None
        self._saver: Saver | None = None
        self._lease: Lease | None = None

    def run(self) -> Exit:
        """Live from the lock to its release. How the process is to end; the status tells why.

        Raises AgentRuns if another agent works on the state folder, SyncError if that is another project's.
        """
        settings = self._settings
        with sessions.locked(settings.state):
            session = sessions.load(settings.state, settings.storage.url, settings.deployment)
            self._board = Board(self._first_status(session), settings.state, self._live)
            context = Context(settings, self._board, self._orders, session)
            with self._board, serving(self, settings.state):
                code = self._run(context)
                self._orders.refuse("The agent has ended.")
                self._board.set(exit_code=int(code), next_save=None)
            return code

    # what the socket serves

    def status(self) -> AgentStatus:
        """How it stands."""
        assert self._board is not None  # noqa: S101 - it is served only while it runs
        return self._board.read()

    def status_or_none(self) -> AgentStatus | None:
        """The same, None before it has begun."""
        return None if self._board is None else self._board.read()

    def save(self) -> Order:
        """Save now. Raises Conflict before anybody could work."""
        self._needs_open("save")
        return self._orders.add(Order(Ask.SAVE))

    def revert(self, generation: int) -> Order:
        """Save, then make the working copy an earlier generation, then save that as a new one.

        Raises Conflict before anybody could work, and while it closes.
        """
        self._needs_open("revert")
        if self._orders.closing.is_set():
            raise Conflict("The project is being closed: open it again to go back to an earlier generation.")
        return self._orders.add(Order(Ask.REVERT, generation))

    def confirm(self) -> None:
        """Allow the save that asks. Raises Conflict if none does."""
        if self.status().question is None:
            raise Conflict("Nothing waits for a confirmation.")
        self._orders.allow()

    def close(self) -> None:
        """Do what is right in this phase to end: stop copying, or save and release. Never waits."""
        self._orders.close()

    def set_deadline(self, at: datetime | None) -> None:
        """When it is to close by itself. Raises Conflict if it is closing already."""
        if self._orders.closing.is_set():
            raise Conflict("The project is being closed already.")
        assert self._board is not None  # noqa: S101
        self._board.set(deadline=at)
        self._orders.wake.set()

    # its life

    def _run(self, context: Context) -> Exit:
        board = context.board
        try:
            return self._live_on(context)
        except Stopped:
            self._end_early(context)
            if context.session.open:
                text = (
                    "Stopped before the project was locked again, with work of an earlier run still unsaved."
                )
                board.enter(Phase.FAILED, f"{text} Start the agent again with the same --state.")
                return Exit.UNSAVED
            board.enter(
                Phase.RELEASED, "Stopped before anybody could work; nothing was changed in the storage."
            )
            return Exit.RELEASED
        except Ended as e:
            self._end_early(context, diverged=e.code is Exit.DIVERGED)
            board.error(str(e))
            board.enter(Phase.FAILED, str(e))
            return Exit.UNSAVED if context.session.open and e.code is Exit.NOT_READY else e.code
        except LeaseLost as e:
            self._step_aside()
            board.error(str(e))
            board.enter(Phase.FAILED, str(e))
            return Exit.LEASE_LOST
        except Exception as e:  # noqa: BLE001 - the last line: the lock is left to expire, the working copy stays
            text = advice(e, self._settings.work)
            board.error(text)
            board.enter(Phase.FAILED, text)
            return Exit.ERROR if context.session.open else Exit.NOT_READY

    def _live_on(self, context: Context) -> Exit:
        settings = self._settings
        lease = self._lease = lock(context)
        repository = Repository(settings.storage)
        source = settings.source_folder if settings.source else None
        copy = WorkingCopy(settings.work, settings.state, source)
        staging = self._staging = Staging(context, repository, copy)
        Opening(context, repository, copy, lease, staging).open()
        saver = self._saver = Saver(context, repository, copy, lease)
        Working(context, saver, staging).work()
        Closing(context, saver, staging, copy).close()
        return Exit.RELEASED

    def _end_early(self, context: Context, *, diverged: bool = False) -> None:
        """Stop copying, and give the lock back unless work waits to be saved under it."""
        if self._staging is not None:
            self._staging.stop(grace=2.0)
        if self._lease is not None and (diverged or not context.session.open):
            Closing.give_back(context, self._lease, patience=3.0)

    def _step_aside(self) -> None:
        """Somebody else has the project: stop all that touches it, and tell that it has stopped."""
        if self._staging is not None:
            self._staging.stop(grace=2.0)
        if self._lease is not None:
            with contextlib.suppress(StorageError):
                self._lease.step_aside()

    def _needs_open(self, what: str) -> None:
        phase = self.status().phase
        if not (phase.is_open or phase.is_closing):
            raise Conflict(
                f"There is nothing to {what} yet: the project is not here."
                if not phase.is_final
                else "The agent has ended; start it again to open the project."
            )

    # what it says

    def _first_status(self, session: sessions.Session) -> AgentStatus:
        s, moment = self._settings, now()
        return AgentStatus(
            phase=Phase.LOCKING,
            message="Asking the storage for the lock of the project.",
            storage=s.storage.url,
            source_storage=s.source.url if s.source else None,
            work=str(s.work),
            deployment=session.deployment,
            pid=os.getpid(),
            host=socket.gethostname(),
            started=moment,
            updated=moment,
            deadline=s.deadline,
            unsaved=session.open,
            versions={"scipion_cloud": __version__, "python": sys.version.split()[0]},
        )

    def _live(self) -> dict[str, Any]:
        """The fields that change by themselves."""
        board = self._board
        fields: dict[str, Any] = {}
        assert board is not None  # noqa: S101
        if staging := self._staging:
            fields["project"] = transfer(staging.project)
            fields["source"] = transfer(staging.source) if staging.source else None
            fields["arriving"] = staging.arriving()
        if self._saver:
            fields["saving"] = self._saver.progress()
        if self._lease and self._lease.held:
            info = self._lease.info
            fields["lease"] = LeaseStatus(
                info.epoch, f"{info.user} on {info.host}", info.acquired, info.renewed
            )
        fields["closing"] = self._orders.closing.is_set()
        fields["warning"] = self._warning(board.deadline)
        return fields

    def _warning(self, deadline: datetime | None) -> str | None:
        left = None if deadline is None else deadline - now()
        if left is None or left > WARN_BEFORE or self._orders.closing.is_set():
            return None
        minutes = max(0, round(left.total_seconds() / 60))
        return f"The project is saved and closed in {minutes} min, unless its time is extended."
