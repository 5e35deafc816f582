"""The agent's socket: what is served, what is refused, and who can reach it."""

import json
import socket
import stat
import threading
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest

from scipion_cloud.deployments.client import AgentClient
from scipion_cloud.deployments.orders import Ask, Order
from scipion_cloud.deployments.server import HEADER, serving
from scipion_cloud.deployments.sockets import SOCKET, address
from scipion_cloud.deployments.states import Phase
from scipion_cloud.deployments.status import STATUS_FILE, AgentStatus
from scipion_cloud.deployments.window import window
from scipion_cloud.errors import Conflict, InvalidInput

NOON = datetime(2026, 11, 20, 12, tzinfo=UTC)
STATUS = AgentStatus(
    phase=Phase.READY,
    message="The project is here.",
    storage="file:///data/apoferritin",
    work="/data/apoferritin",
    deployment="d1",
    pid=1,
    host="node1",
    started=NOON,
    updated=NOON,
)


class Recorder:
    """An agent that only remembers what it is told."""

    def __init__(self) -> None:
        self.told: list[object] = []
        self.order = Order(Ask.SAVE)

    def status(self) -> AgentStatus:
        return replace(STATUS, generation=len(self.told))

    def save(self) -> Order:
        self.told.append("save")
        return self.order

    def revert(self, generation: int) -> Order:
        self.told.append(("revert", generation))
        return self.order

    def confirm(self) -> None:
        raise Conflict("Nothing waits for a confirmation.")

    def close(self) -> None:
        self.told.append("close")

    def set_deadline(self, at: datetime | None) -> None:
        self.told.append(at)


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """Deeper than the path of a socket can be long."""
    folder = tmp_path / ("a folder with a long name " * 4) / ("and another one " * 4)
    folder.mkdir(parents=True)
    assert len(str(folder)) > 108
    return folder


@pytest.fixture
def agent(state: Path) -> Iterator[Recorder]:
    recorder = Recorder()
    with serving(recorder, state):
        yield recorder


def test_the_status_comes_back_as_it_was(agent: Recorder, state: Path) -> None:
    assert AgentClient(state).status() == replace(STATUS, generation=0)


def test_the_socket_is_for_this_user_alone(agent: Recorder, state: Path) -> None:
    assert stat.S_IMODE((state / SOCKET).lstat().st_mode) == 0o600


def test_a_socket_left_behind_is_replaced(state: Path) -> None:
    with socket.socket(socket.AF_UNIX) as dead, address(state) as path:
        dead.bind(path)
    assert AgentClient(state).status() is None
    with serving(Recorder(), state):
        assert AgentClient(state).status() is not None


def test_orders_arrive(agent: Recorder, state: Path) -> None:
    client = AgentClient(state)
    client.save()
    client.close()
    client.revert(7)
    client.set_deadline(NOON)
    client.set_deadline(None)
    assert agent.told == ["save", "close", ("revert", 7), NOON, None]


def test_one_who_waits_hears_how_it_went(agent: Recorder, state: Path) -> None:
    done = {"saved": True, "generation": 4}
    threading.Timer(0.2, agent.order.finish, [done]).start()
    assert AgentClient(state).save(wait=True) == done


def test_one_who_waits_hears_why_it_failed(agent: Recorder, state: Path) -> None:
    agent.order.fail("The storage is full.")
    with pytest.raises(Conflict, match="The storage is full"):
        AgentClient(state).save(wait=True)


def test_a_refusal_has_its_own_words(agent: Recorder, state: Path) -> None:
    with pytest.raises(Conflict, match="Nothing waits"):
        AgentClient(state).confirm()


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("/revert", "generations"),
        ("/revert?generation=-1", "generations"),
        ("/revert?generation=१", "generations"),
        ("/deadline?at=soon", "looks like"),
        ("/deadline?at=2026-11-20T18:00:00", "time zone"),
    ],
)
def test_values_that_cannot_be_right_are_refused(agent: Recorder, state: Path, path: str, said: str) -> None:
    answer = AgentClient(state).post(path, {}) if "?" not in path else _raw(state, path)
    assert answer.status_code == 422
    assert said in answer.json()["detail"]
    assert agent.told == []


def _raw(state: Path, path: str, headers: dict[str, str] | None = None) -> httpx.Response:
    with address(state) as short, httpx.Client(transport=httpx.HTTPTransport(uds=short)) as http:
        return http.post(f"http://agent{path}", headers=headers if headers is not None else {HEADER: "1"})


def test_a_form_of_a_foreign_page_can_order_nothing(agent: Recorder, state: Path) -> None:
    assert _raw(state, "/close", headers={}).status_code == 403
    assert agent.told == []


@pytest.mark.parametrize("path", ["/nothing", "/page/page.css", "/%2e%2e/agent.py", "/page"])
def test_there_is_nothing_else(agent: Recorder, state: Path, path: str) -> None:
    assert AgentClient(state).fetch(path).status_code == 404
    assert _raw(state, "/nothing").status_code == 404


def test_the_page_allows_only_its_own_files_and_names_them_relatively(agent: Recorder, state: Path) -> None:
    page = AgentClient(state).fetch("/")
    policy = page.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    for name in ("page.css", "page.js"):
        assert f'"{name}"' in page.text
        assert AgentClient(state).fetch(f"/{name}").status_code == 200
    assert "http://" not in page.text
    assert "style=" not in page.text


def test_nobody_there(tmp_path: Path) -> None:
    client = AgentClient(tmp_path / "state")
    assert client.status() is None
    assert client.last_status() is None
    with pytest.raises(Conflict, match="No agent answers"):
        client.save()
    with pytest.raises(Conflict, match="agent run"):
        client.close()


def test_the_last_word_of_an_agent_that_has_ended(state: Path) -> None:
    (state / STATUS_FILE).write_bytes(STATUS.to_json())
    assert AgentClient(state).status() is None
    assert AgentClient(state).last_status() == STATUS


def test_a_file_that_says_nothing_sensible_is_no_status(state: Path) -> None:
    (state / STATUS_FILE).write_text('{"phase": "lost"}')
    assert AgentClient(state).last_status() is None


def test_the_window_shows_the_page_to_those_who_know_its_address(agent: Recorder, state: Path) -> None:
    with window(state) as url:
        assert httpx.get(f"{url}status").json()["deployment"] == "d1"
        assert "page.js" in httpx.get(url).text
        assert httpx.post(f"{url}close", headers={HEADER: "1"}).status_code == 202
        assert httpx.post(f"{url}close").status_code == 403
        assert httpx.post(f"{url}revert?generation=3", headers={HEADER: "1"}).status_code == 202
        stranger = httpx.URL(url).join("/")
        for path in ("status", "x/status", url.split("/")[-2][:-1] + "/status"):
            assert httpx.get(stranger.join(path)).status_code == 404
    assert agent.told == ["close", ("revert", 3)]


def test_the_window_says_when_the_agent_is_gone(state: Path) -> None:
    with window(state) as url:
        answer = httpx.get(f"{url}status")
        (state / STATUS_FILE).write_bytes(STATUS.to_json())
        last = httpx.get(f"{url}status")
    assert answer.status_code == 502
    assert "No agent answers" in answer.text
    assert AgentStatus.from_json(last.content) == STATUS


def test_many_ask_at_once(agent: Recorder, state: Path) -> None:
    seen: list[AgentStatus | None] = []
    threads = [threading.Thread(target=lambda: seen.append(AgentClient(state).status())) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [s.deployment for s in seen if s] == ["d1"] * 16


def test_a_client_that_says_nothing_holds_up_nobody(agent: Recorder, state: Path) -> None:
    with socket.socket(socket.AF_UNIX) as idle, address(state) as path:
        idle.connect(path)
        assert AgentClient(state).status() is not None


def _descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_no_descriptors_are_left_open(agent: Recorder, state: Path) -> None:
    client = AgentClient(state)
    client.status()
    before = _descriptors()
    for _ in range(20):
        client.status()
    assert _descriptors() <= before + 2


def test_what_is_wrong_in_a_client_call_is_invalid_input(agent: Recorder, state: Path) -> None:
    with pytest.raises(InvalidInput):
        AgentClient(state).set_deadline(datetime(2026, 11, 20, 12))  # noqa: DTZ001 - that is the fault
    assert json.loads(AgentClient(state).fetch("/status").text)["phase"] == "ready"
