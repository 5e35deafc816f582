"""The small parts of an agent: phases, status, board, session, orders, waits."""

import json
import os
import threading
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from scipion_cloud.deployments import session as sessions
from scipion_cloud.deployments.backoff import Backoff
from scipion_cloud.deployments.board import Board, readable
from scipion_cloud.deployments.orders import Ask, Order, Orders
from scipion_cloud.deployments.session import AgentRuns, Session
from scipion_cloud.deployments.states import TRANSITIONS, Phase
from scipion_cloud.deployments.status import (
    STATUS_FILE,
    AgentStatus,
    Arriving,
    LeaseStatus,
    LeftOut,
    Transfer,
    Trouble,
    schema,
)
from scipion_cloud.deployments.tasks import Stopped, Task
from scipion_cloud.deployments.troubles import advice, is_passing
from scipion_cloud.errors import StorageDenied, StorageFull, StorageTransient, SyncError
from scipion_cloud.sync.progress import Problem

NOON = datetime(2026, 11, 20, 12, tzinfo=UTC)
FULL = AgentStatus(
    phase=Phase.SAVING,
    message="Saving what has changed.",
    storage="sftp://host/p",
    work="/data/p",
    deployment="d1",
    pid=7,
    host="node1",
    started=NOON,
    updated=NOON + timedelta(microseconds=5),
    source_storage="file:///movies",
    project=Transfer(1, 2, 3, 4, 5.5, None),
    source=Transfer(),
    saving=Transfer(seconds_left=0.0),
    arriving=Arriving(3, 10**12),
    generation=41,
    last_saved=NOON,
    last_checked=NOON,
    next_save=NOON,
    unsaved=True,
    errors=(Trouble(NOON, "The storage is full."),),
    problems=(LeftOut("a\\xff", "It is a socket."),),
    problems_total=1,
    question="All files would go.",
    deadline=NOON,
    warning="Soon.",
    closing=True,
    lease=LeaseStatus(2, "me", NOON, NOON),
    exit_code=0,
    versions={"python": "3.11"},
)
MINIMAL = AgentStatus(
    phase=Phase.LOCKING,
    message="",
    storage="",
    work="",
    deployment="",
    pid=1,
    host="",
    started=NOON,
    updated=NOON,
)
REFERENCE = Path(__file__).parents[2] / "docs" / "reference"


@pytest.mark.parametrize("status", [FULL, MINIMAL])
def test_a_status_survives_json(status: AgentStatus) -> None:
    assert AgentStatus.from_json(status.to_json()) == status


def test_the_published_schema_is_the_one_in_force() -> None:
    stored = json.loads((REFERENCE / "agent-status.json").read_text())
    assert stored == schema(), "run: scipion-cloud agent schema > docs/reference/agent-status.json"


def test_the_reference_names_every_field_phase_and_order() -> None:
    page = (REFERENCE / "agent.md").read_text()
    for name in [*schema()["properties"], *(p.value for p in Phase)]:
        assert f"`{name}`" in page, name


def test_every_phase_leads_to_an_end() -> None:
    assert set(TRANSITIONS) == set(Phase)
    for phase in Phase:
        assert phase.is_final == (not TRANSITIONS[phase])
        seen, todo = set(), [phase]
        while todo:
            at = todo.pop()
            if at not in seen:
                seen.add(at)
                todo += TRANSITIONS[at]
        assert phase.is_final or {Phase.RELEASED, Phase.FAILED} <= seen


def test_nothing_is_released_without_a_last_save_once_people_work() -> None:
    before = {phase for phase, after in TRANSITIONS.items() if Phase.RELEASED in after}
    assert before.isdisjoint(phase for phase in Phase if phase.is_open)


@pytest.fixture
def board(tmp_path: Path) -> Board:
    return Board(MINIMAL, tmp_path)


def test_the_board_refuses_steps_that_there_are_not(board: Board) -> None:
    with pytest.raises(AssertionError, match="does not go from locking to saving"):
        board.enter(Phase.SAVING, "")
    board.enter(Phase.STAGING_IN, "fetching")
    board.enter(Phase.STAGING_IN, "still fetching")
    assert (board.phase, board.read().message) == (Phase.STAGING_IN, "still fetching")


def test_the_board_writes_what_changes_whole(board: Board, tmp_path: Path) -> None:
    file = tmp_path / STATUS_FILE
    with board:
        deadline = time.monotonic() + 60
        for number in range(200):
            board.set(generation=number)
            if file.exists():
                AgentStatus.from_json(file.read_bytes())
        while not file.exists() or AgentStatus.from_json(file.read_bytes()).generation != 199:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        board.set(message="the end")
    assert AgentStatus.from_json(file.read_bytes()).message == "the end"


def test_the_board_keeps_the_latest_errors_once_each(board: Board) -> None:
    for number in range(30):
        board.error(f"error {number % 15}")
    errors = [e.text for e in board.read().errors]
    assert errors == [f"error {n}" for n in range(14, 4, -1)]


def test_problems_are_counted_and_the_first_hundred_shown(board: Board) -> None:
    board.problems(tuple(Problem(b"f%d" % n, "It is a socket.") for n in range(150)))
    status = board.read()
    assert (len(status.problems), status.problems_total) == (100, 150)


def test_a_full_disk_does_not_end_the_board(tmp_path: Path) -> None:
    board = Board(MINIMAL, tmp_path / "missing")
    with board:
        board.set(message="heard all the same")
    assert board.read().message == "heard all the same"


@pytest.mark.parametrize(
    ("path", "shown"),
    [(b"plain.mrc", "plain.mrc"), ("µ/ü".encode(), "µ/ü"), (b"a\nb", "a\\nb"), (b"a\xffb", "a\\xffb")],
)
def test_paths_are_readable(path: bytes, shown: str) -> None:
    assert readable(path) == shown
    json.dumps(readable(path))


def test_two_agents_on_one_state_are_kept_apart(tmp_path: Path) -> None:
    state = tmp_path / "state"
    with (
        sessions.locked(state),
        pytest.raises(AgentRuns, match=f"process {os.getpid()}"),
        sessions.locked(state),
    ):
        pass
    with sessions.locked(state):
        pass


def test_a_deployment_keeps_its_id(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    first = sessions.load(tmp_path, "file:///p")
    assert sessions.load(tmp_path, "file:///p") == first
    assert sessions.load(tmp_path, "file:///p", first.deployment) == first
    assert sessions.load(tmp_path / "other", "file:///p").deployment != first.deployment


def test_unsaved_work_is_not_given_to_another_project(tmp_path: Path) -> None:
    session = sessions.opened(tmp_path, sessions.load(tmp_path, "file:///p", "d1"), 3)
    with pytest.raises(SyncError, match="Unsaved work of file:///p"):
        sessions.load(tmp_path, "file:///q")
    with pytest.raises(SyncError, match="deployment d1"):
        sessions.load(tmp_path, "file:///p", "d2")
    assert sessions.load(tmp_path, "file:///p") == session
    sessions.closed(tmp_path, session)
    assert sessions.load(tmp_path, "file:///q", "d2") == Session("d2", "file:///q")


def test_a_damaged_session_is_never_taken_for_a_fresh_one(tmp_path: Path) -> None:
    (tmp_path / sessions.SESSION_FILE).write_text('{"deployment": ')
    with pytest.raises(SyncError, match="damaged"):
        sessions.load(tmp_path, "file:///p")


def test_orders_are_answered_also_when_the_agent_ends() -> None:
    orders = Orders()
    waiting = orders.add(Order(Ask.SAVE))
    assert (orders.has(Ask.SAVE), orders.has(Ask.REVERT)) == (True, False)
    orders.refuse("The agent has ended.")
    late = orders.add(Order(Ask.REVERT, 3))
    for order in (waiting, late):
        assert order.done.wait(60)
        assert order.error == "The agent has ended."
    assert orders.take(Ask.SAVE) == []


def test_orders_are_taken_once_by_kind() -> None:
    orders = Orders()
    save, revert = orders.add(Order(Ask.SAVE)), orders.add(Order(Ask.REVERT, 3))
    assert orders.take(Ask.REVERT) == [revert]
    assert orders.take(Ask.REVERT) == []
    assert orders.take(Ask.SAVE) == [save]


def test_the_second_wish_to_close_hurries() -> None:
    orders = Orders()
    orders.close()
    assert (orders.closing.is_set(), orders.hurry.is_set()) == (True, False)
    orders.close()
    assert orders.hurry.is_set()


def test_waits_double_up_to_the_longest_and_differ() -> None:
    slowest = Backoff(2, 300, lambda: 0.0)
    assert [slowest.failed() for _ in range(9)] == [2, 4, 8, 16, 32, 64, 128, 256, 300]
    slowest.succeeded()
    assert slowest.failed() == 2
    quickest = Backoff(2, 300, lambda: 1.0)
    assert quickest.failed() == 1
    for _ in range(5000):
        assert 0 < quickest.failed() <= 300


def test_a_task_that_hangs_is_left_when_the_agent_stops() -> None:
    hang, stop = threading.Event(), threading.Event()
    task = Task(lambda: hang.wait(60), "hangs")
    stop.set()
    with pytest.raises(Stopped):
        task.result_unless(stop, 0.1)
    hang.set()
    assert task.result() is True


def test_a_task_hands_on_what_went_wrong() -> None:
    def fail() -> None:
        raise StorageFull("no room")

    with pytest.raises(StorageFull, match="no room"):
        Task(fail, "fails").result_unless(threading.Event(), 1)


def test_what_may_pass_is_told_from_what_does_not(tmp_path: Path) -> None:
    disk = OSError(28, "No space left on device")
    for error in (StorageTransient("busy"), StorageFull("full"), disk):
        assert is_passing(error)
    for other in (
        StorageDenied("no"),
        SyncError("damaged"),
        OSError(13, "Permission denied"),
        ValueError("x"),
    ):
        assert not is_passing(other)
    assert "Free some room" in advice(disk, tmp_path)
    assert "new ones" in advice(StorageDenied("The token has expired."), tmp_path)
    assert "fault of this program" in advice(ValueError("x"), tmp_path)
    assert replace(MINIMAL).schema_version == 1
