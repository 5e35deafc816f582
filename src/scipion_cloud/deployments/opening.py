"""From the lock to the moment in which people can work."""

import threading

from scipion_cloud.deployments import session as sessions
from scipion_cloud.deployments.context import Context, Ended
from scipion_cloud.deployments.staging import Staging
from scipion_cloud.deployments.states import Exit, Phase
from scipion_cloud.deployments.tasks import Stopped
from scipion_cloud.deployments.troubles import advice
from scipion_cloud.deployments.trying import NEVER, try_on
from scipion_cloud.errors import LeaseLost, ScipionCloudError, StorageTransient, SyncError
from scipion_cloud.sync.copy import WorkingCopy
from scipion_cloud.sync.generation import Generation
from scipion_cloud.sync.in_use import end_use, is_in_use
from scipion_cloud.sync.layout import SERVICE
from scipion_cloud.sync.lease import Lease
from scipion_cloud.sync.legacy import import_legacy, inspect
from scipion_cloud.sync.manifest import Manifest
from scipion_cloud.sync.progress import Problem
from scipion_cloud.sync.repository import Repository

_OF_FILE_SYSTEMS = {"lost+found"}  # what an empty volume holds


class Opening:
    """The phase STAGING_IN."""

    def __init__(
        self, context: Context, repository: Repository, copy: WorkingCopy, lease: Lease, staging: Staging
    ) -> None:
        self._context, self._repository, self._copy = context, repository, copy
        self._lease, self._staging = lease, staging

    def open(self) -> None:
        """Until people can work. Raises Ended if that cannot be, Stopped, LeaseLost."""
        context = self._context
        context.board.enter(Phase.STAGING_IN, "Fetching the project.")
        # work that an earlier run has left is saved whatever happens; else nothing is lost by stopping
        self._stop = NEVER if context.session.open else context.closing
        if not context.session.open:  # nobody has worked here since the last release
            end_use(self._copy)
        try:
            self._staging.start_source()
            latest = try_on(context, self._recover, "recover", stop=self._stop)
            if context.session.open:
                self._resume(latest)
            elif latest is None:
                self._begin()
            else:
                self._fetch(latest)
        except (Stopped, LeaseLost, Ended):
            raise
        except Exception as e:
            raise Ended(advice(e, context.settings.work), Exit.NOT_READY) from e

    def _recover(self) -> Generation | None:
        """The project's last generation. Raises StorageTransient while the lease is late, but not lost."""
        try:
            return self._put_right()
        except LeaseLost as e:
            if self._lease.lost.is_set():
                raise
            raise StorageTransient(str(e)) from e  # nobody has taken over: it is held again once renewed

    def _put_right(self) -> Generation | None:
        """The project's last generation, once nothing is left of a save that crashed."""
        if not self._context.session.open:  # else the next save goes on with it, or rolls it back
            self._repository.recover(self._lease)
        latest = self._repository.latest()
        if latest is None and not self._context.session.open:
            found = inspect(self._repository.storage)
            latest = self._import(found.describe()) if found else None
        return latest

    def _import(self, what: str) -> Generation:
        if not self._context.settings.import_legacy:
            raise ScipionCloudError(
                f"{what} Run `scipion-cloud data import-legacy` once, which makes it the first generation "
                "without moving a file; then open it again."
            )
        problems: list[Problem] = []
        made = import_legacy(self._repository.storage, self._lease, stale_too=True, tell=problems.append)
        self._context.board.problems(tuple(problems))
        return made

    def _begin(self) -> None:
        """A new project: what lies in the working copy is its first generation."""
        self._copy.begin(self._repository.storage.url, None, Manifest())
        self._copy.complete()
        self._staging.nothing_to_bring()
        self._opened(None, None, unsaved=True)

    def _resume(self, latest: Generation | None) -> None:
        """Go on where an earlier process of this deployment ended without releasing the project."""
        session, copy = self._context.session, self._copy
        marker = copy.check(self._repository.storage.url)
        if (latest and latest.number) != session.base and (
            latest is None or latest.deployment != session.deployment
        ):
            there = (
                f"generation {latest.number}, by {latest.user} on {latest.host}" if latest else "none at all"
            )
            raise Ended(
                f"Unsaved work is in {copy.path}, made from generation {session.base}, but the project is at "
                f"{there}. Nothing was changed on either side. Copy what you need out of the folder, then "
                "open the project with another --work and --state.",
                Exit.DIVERGED,
            )
        if marker.restoring and marker.generation is not None:
            if is_in_use(copy):
                self._staging.ready.set()
            # else it was on the way to an earlier generation: what was saved right before comes back
            self._staging.start_project(self._repository.generation(marker.generation))
            self._wait(self._staging.ready)
        else:
            self._staging.nothing_to_bring()
        self._opened(marker.generation, session.base, unsaved=True)

    def _fetch(self, latest: Generation) -> None:
        """The newest generation, or the one that is wished for."""
        check_strangers(self._copy)
        number = self._context.settings.generation
        if number in (None, latest.number):
            self._staging.start_project(latest)
            self._wait(self._staging.ready)
            self._opened(latest.number, latest.number, unsaved=False)
        else:
            self._staging.start_project(self._repository.generation(number or 0), whole_first=True)
            self._wait(self._staging.whole)
            self._opened(number, latest.number, unsaved=True)  # the next save puts it on top of the latest

    def _wait(self, event: threading.Event) -> None:
        """Until it is set. Raises Stopped, LeaseLost, and why the project cannot come."""
        staging = self._staging
        while not event.wait(0.1) and staging.failure is None:
            if self._stop.is_set():
                raise Stopped
            if self._lease.lost.is_set():
                self._lease.check()
        if staging.failure is not None:
            raise staging.failure
        if self._stop.is_set():
            raise Stopped

    def _opened(self, generation: int | None, base: int | None, *, unsaved: bool) -> None:
        context = self._context
        context.session = sessions.opened(context.settings.state, context.session, base)
        self._lease.generation = generation
        context.board.set(generation=generation, unsaved=unsaved)


def check_strangers(copy: WorkingCopy) -> None:
    """Raise SyncError if nothing is known about a folder and something is in it that a person would miss."""
    if copy.marker is not None or not copy.path.is_dir():
        return
    known = {SERVICE, *_OF_FILE_SYSTEMS}
    if names := sorted(path.name for path in copy.path.iterdir() if path.name not in known):
        raise SyncError(
            f"{copy.path} is not empty ({names[0]!r}), and nothing is known about what is in it. Give an "
            f"empty folder, or the state that belongs to this one ({copy.state} does not)."
        )
