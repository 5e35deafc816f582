"""The way here: the project, and in parallel the source that it reads."""

import threading
import time
from collections.abc import Callable, Sequence

from scipion_cloud.deployments.board import readable
from scipion_cloud.deployments.context import Context
from scipion_cloud.deployments.status import Arriving, Transfer
from scipion_cloud.deployments.tasks import Task
from scipion_cloud.deployments.troubles import advice, is_passing
from scipion_cloud.sync.copy import WorkingCopy
from scipion_cloud.sync.generation import Generation
from scipion_cloud.sync.progress import Problem, Progress
from scipion_cloud.sync.repository import Repository
from scipion_cloud.sync.restore import restore
from scipion_cloud.sync.source import stage_source

_TOLD = 5  # problems


def transfer(progress: Progress) -> Transfer:
    """What a progress says."""
    return Transfer(
        files_done=progress.files_done,
        files_total=progress.files_total,
        bytes_done=progress.bytes_done,
        bytes_total=progress.bytes_total,
        rate=round(progress.rate),
        seconds_left=progress.seconds_left,
    )


class Staging:
    """Brings the project, largest files last, and the source. Each tries on by itself after what may pass."""

    def __init__(self, context: Context, repository: Repository, copy: WorkingCopy) -> None:
        self._context, self._repository, self._copy = context, repository, copy
        self._stop = threading.Event()
        self._tasks: list[Task[None]] = []
        self.project = Progress()
        self.source: Progress | None = None
        self.ready = threading.Event()  # databases and small files are here
        self.whole = threading.Event()  # all of the project is
        self.failure: Exception | None = None  # why the project cannot come

    def start_source(self) -> None:
        """Begin to bring the source, if there is one."""
        source, target = self._context.settings.source, self._context.settings.source_folder
        if source is None:
            return
        progress = self.source = Progress()

        def bring() -> None:
            self._tell(stage_source(source, target, progress=progress, stop=self._stop))

        self._run("source", bring, self._note)

    def start_project(self, generation: Generation, *, whole_first: bool = False) -> None:
        """Begin to bring a generation, or go on with it; ready when the small files, or all, are here."""
        self._run("project", lambda: self._restore(generation, whole_first), self._fail)

    def nothing_to_bring(self) -> None:
        """All of the project is here."""
        self.ready.set()
        self.whole.set()

    def stop(self, grace: float) -> None:
        """End all copying; what has arrived stays. What hangs is left behind after `grace` seconds."""
        self._stop.set()
        end = time.monotonic() + grace
        for task in self._tasks:
            task.done.wait(max(0.0, end - time.monotonic()))

    def arriving(self) -> Arriving | None:
        """What is still to come although work has begun."""
        if not self.ready.is_set() or self.whole.is_set():
            return None
        p = self.project
        return Arriving(max(p.files_total - p.files_done, 0), max(p.bytes_total - p.bytes_done, 0))

    def _restore(self, generation: Generation, whole_first: bool) -> None:
        self.project = progress = Progress()
        problems = restore(
            self._repository,
            generation,
            self._copy,
            progress=progress,
            on_ready=None if whole_first else self.ready.set,
            stop=self._stop,
        )
        self._tell(problems)
        if not self._stop.is_set():
            self.nothing_to_bring()

    def _tell(self, problems: Sequence[Problem]) -> None:
        """What did not come as it is there; the first ones."""
        for problem in problems[:_TOLD]:
            self._context.board.error(f"{readable(problem.path)}: {problem.text}")

    def _run(self, name: str, work: Callable[[], None], on_failure: Callable[[Exception], bool]) -> None:
        """Work in a thread, again and again until it is done or `on_failure` says that there is no use."""
        backoff = self._context.backoff()

        def keep_on() -> None:
            while not self._stop.is_set():
                try:
                    return work()
                except Exception as e:  # noqa: BLE001 - it is told, and decided upon there
                    if self._stop.is_set() or not on_failure(e):
                        return
                self._stop.wait(backoff.failed())

        self._tasks.append(Task(keep_on, f"stage in {name}"))

    def _note(self, error: Exception) -> bool:
        """The source may be missing for a while: the project can be worked on without it."""
        target = self._context.settings.source_folder
        self._context.board.error(f"The source data: {advice(error, target)}")
        return True

    def _fail(self, error: Exception) -> bool:
        self._context.board.error(advice(error, self._context.settings.work))
        if is_passing(error) or self.ready.is_set():
            return True
        self.failure = error
        return False
