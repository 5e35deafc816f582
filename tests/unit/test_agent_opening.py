"""From the lock to work, where the lease is late and where an earlier process was killed on its way."""

import threading
from datetime import timedelta
from pathlib import Path

import pytest
from sync_project import Held, begin, save, shown, tree
from test_agent_parts import MINIMAL

from scipion_cloud.deployments.board import Board
from scipion_cloud.deployments.context import Context
from scipion_cloud.deployments.opening import Opening
from scipion_cloud.deployments.orders import Orders
from scipion_cloud.deployments.session import Session
from scipion_cloud.deployments.settings import AgentSettings
from scipion_cloud.deployments.staging import Staging
from scipion_cloud.errors import LeaseLost
from scipion_cloud.sync.copy import WorkingCopy
from scipion_cloud.sync.repository import Repository
from scipion_cloud.testing.memory import MemoryStorage


class Late(Held):
    """A lease that could not be renewed in time: `answers` says what each look at it finds."""

    def __init__(self, *answers: str) -> None:
        super().__init__(epoch=2)
        self.generation: int | None = None
        self._answers = list(answers)
        self.lost = threading.Event()  # type: ignore[assignment]

    def check(self) -> None:
        answer = self._answers.pop(0) if self._answers else "held"
        if answer == "taken":
            self.lost.set()  # type: ignore[attr-defined]
        if answer != "held":
            raise LeaseLost(f"The lease is {answer}.")

    confirm = check


@pytest.fixture
def repository() -> Repository:
    """One generation, and what a save that was killed has put over it."""
    repository = Repository(MemoryStorage())
    save(repository, {b"a": b"saved"})
    begin(repository, tree({b"a": b"half a save"}), {b"a": b"half a save"})
    assert shown(repository.storage) == {"a": b"half a save"}
    return repository


def opening(repository: Repository, lease: Late, folder: Path) -> tuple[Opening, Context]:
    """An opening of the project in a fresh folder."""
    moment = timedelta(seconds=0.01)
    settings = AgentSettings(
        repository.storage, folder / "work", folder / "state", first_wait=moment, longest_wait=moment
    )
    settings.state.mkdir()
    context = Context(settings, Board(MINIMAL, settings.state), Orders(), Session("d1", settings.storage.url))
    copy = WorkingCopy(settings.work, settings.state)
    return Opening(context, repository, copy, lease, Staging(context, repository, copy)), context  # type: ignore[arg-type]


def test_a_lease_that_is_late_is_waited_for(repository: Repository, tmp_path: Path) -> None:
    lease = Late("late", "late")
    opens, context = opening(repository, lease, tmp_path)
    opens.open()
    assert [trouble.text for trouble in context.board.read().errors] == ["The lease is late."]
    assert (tmp_path / "work" / "a").read_bytes() == b"saved"
    assert shown(repository.storage) == {"a": b"saved"}
    assert context.session.open
    assert lease.generation == 1


def test_one_that_is_lost_ends_it(repository: Repository, tmp_path: Path) -> None:
    opens, context = opening(repository, Late("late", "taken"), tmp_path)
    with pytest.raises(LeaseLost, match="taken"):
        opens.open()
    assert not (tmp_path / "work").exists()
    assert not context.session.open
    assert shown(repository.storage) == {"a": b"half a save"}, "it is another's now"
