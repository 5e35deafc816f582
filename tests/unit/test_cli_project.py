"""`scipion-cloud project create` with what a project can begin with."""

import json
from typing import Any

import httpx
import pytest
from click.testing import CliRunner, Result

from scipion_cloud.cli import client as clients
from scipion_cloud.cli import project as commands

OLD = {"id": "0" * 32, "name": "Old"}
STATUS = {"bytes_done": 5 * 10**8, "bytes_total": 10**9}


class Server:
    """A portal that brings the files in three looks."""

    def __init__(self, last: str) -> None:
        self.wishes: list[Any] = []
        self._answers = [("copying", {}), ("copying", STATUS), ("copying", STATUS), (last, STATUS)]

    def __call__(self, request: httpx.Request) -> httpx.Response:
        if request.url.path == "/api/v1/projects" and request.method == "GET":
            return httpx.Response(200, json=[OLD])
        if request.method == "POST":
            self.wishes.append(json.loads(request.content))
        state, status = self._answers.pop(0)
        told = {"state": state, "message": "The archive is damaged.", "status": status}
        return httpx.Response(201, json={"id": "1" * 32, "name": "New", "preparation": told})


@pytest.fixture
def create(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(commands, "_LOOK_EVERY", 0)

    def run(server: Server, *arguments: str) -> Result:
        client = clients.Client("http://s", "token", httpx.MockTransport(server))
        monkeypatch.setattr(clients, "choose_server", lambda _: ("http://s", type("C", (), {"token": ""})))
        monkeypatch.setattr(clients, "Client", lambda *_: client)
        return CliRunner().invoke(commands.create, ["New", *arguments])

    return run


def test_a_copy_is_waited_for(create: Any) -> None:
    server = Server("done")
    result = create(server, "--clone-of", "Old", "--generation", "3")
    assert result.exit_code == 0, result.stderr
    (wish,) = server.wishes
    assert (wish["clone_of"], wish["generation"]) == (OLD["id"], 3)
    assert result.stderr.splitlines() == ["Waiting", "Copying: 500.0 MB of 1.0 GB"]
    assert "Made project 'New'" in result.stdout


def test_an_archive_that_is_damaged_is_told(create: Any) -> None:
    server = Server("failed")
    result = create(server, "--archive", "Old:day 1/a:b.zip", "--json")
    assert isinstance(result.exception, clients.ServerError)
    assert "The archive is damaged." in str(result.exception)
    assert server.wishes[0]["archive"] == {"project": OLD["id"], "path": "day 1/a:b.zip"}
