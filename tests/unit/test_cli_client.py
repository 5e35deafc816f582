"""The command line's side of the API: which server, how things are named, sending files through trouble."""

import os
import stat
import threading
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
from click.testing import CliRunner

from scipion_cloud.cli import tus
from scipion_cloud.cli.client import Client, ServerError, pick
from scipion_cloud.cli.credentials import (
    Credential,
    choose_server,
    clean_server,
    credentials_file,
    is_exposed,
    read_credentials,
    store_credential,
)
from scipion_cloud.cli.main import main
from scipion_cloud.cli.run import _fetch, _safe
from scipion_cloud.errors import ConfigError, InvalidInput, NotFound


@pytest.fixture(autouse=True)
def own_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.delenv("SCIPION_CLOUD_SERVER", raising=False)


# Credentials


def test_credentials_are_readable_by_their_owner_only() -> None:
    old = os.umask(0)
    try:
        store_credential("https://a.org", Credential(email="a@b.org", token="secret"))
    finally:
        os.umask(old)
    assert stat.S_IMODE(credentials_file().stat().st_mode) == 0o600
    assert stat.S_IMODE(credentials_file().parent.stat().st_mode) & 0o077 == 0
    assert [f.name for f in credentials_file().parent.iterdir()] == ["credentials.json"]


def test_the_server_is_the_given_one_the_variable_or_the_only_one(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="not signed in"):
        choose_server(None)
    store_credential("https://a.org", Credential(email="a@b.org", token="1"))
    assert choose_server(None)[0] == "https://a.org"
    store_credential("http://127.0.0.1:8080", Credential(email="a@b.org", token="2"))
    with pytest.raises(ConfigError, match="--server"):
        choose_server(None)
    assert choose_server("127.0.0.1:8080")[1].token == "2"
    monkeypatch.setenv("SCIPION_CLOUD_SERVER", "a.org")
    assert choose_server(None)[1].token == "1"
    with pytest.raises(ConfigError, match=r"not signed in at https://c\.org"):
        choose_server("c.org")
    store_credential("https://a.org", None)
    assert list(read_credentials()) == ["http://127.0.0.1:8080"]


def test_a_damaged_file_is_told(tmp_path: Path) -> None:
    store_credential("https://a.org", Credential(email="a@b.org", token="1"))
    credentials_file().write_text("{")
    with pytest.raises(ConfigError, match="damaged"):
        read_credentials()


@pytest.mark.parametrize(
    ("typed", "address"),
    [
        ("scipion.example.org", "https://scipion.example.org"),
        (" https://s.org/projects/ ", "https://s.org"),
        ("localhost:8080", "http://localhost:8080"),
        ("[::1]:80", "http://[::1]:80"),
        ("http://10.0.0.1", "http://10.0.0.1"),
        ("https://user:password@s.org", "https://s.org"),
    ],
)
def test_addresses(typed: str, address: str) -> None:
    assert clean_server(typed) == address


@pytest.mark.parametrize("typed", ["", "ftp://s.org", "https://", "http://s.org:port", "http://[::1"])
def test_no_addresses(typed: str) -> None:
    with pytest.raises(ConfigError):
        clean_server(typed)


def test_only_http_to_others_is_exposed() -> None:
    assert [is_exposed(a) for a in ("https://s.org", "http://127.0.0.1:8080", "http://s.org")] == [
        False,
        False,
        True,
    ]


# Names and answers

ROWS = [
    {"id": "aaaa1111", "name": "one"},
    {"id": "aaaa2222", "name": "two"},
    {"id": "bbbb3333", "name": "two"},
    {"id": "cccc4444", "name": "bbbb"},
]


@pytest.mark.parametrize(
    ("wanted", "found"),
    [("one", "aaaa1111"), ("AAAA2222", "aaaa2222"), ("aaaa2", "aaaa2222"), ("bbbb", "cccc4444")],
)
def test_things_are_found_by_id_name_or_start(wanted: str, found: str) -> None:
    assert pick(ROWS, wanted, "project", "name")["id"] == found


def test_what_is_open_or_missing_is_told() -> None:
    with pytest.raises(InvalidInput, match="2 projects like 'two'"):
        pick(ROWS, "two", "project", "name")
    with pytest.raises(InvalidInput, match="aaaa1111, aaaa2222"):
        pick(ROWS, "aaaa", "project", "name")
    for wanted in ("aaa", "none", ""):
        with pytest.raises(NotFound):
            pick(ROWS, wanted, "project", "name")


Handler = Callable[[httpx.Request], httpx.Response]


def client_of(handler: Handler) -> Client:
    return Client("http://s", "token", httpx.MockTransport(handler))


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (httpx.Response(409, json={"detail": "A run goes on.", "errors": {}}), "A run goes on."),
        (httpx.Response(422, json={"detail": "x", "errors": {"a": "1", "b": "2"}}), "a: 1\nb: 2"),
        (
            httpx.Response(401, json={"detail": "x"}),
            "Your sign-in at http://s has ended. Run `scipion-cloud login http://s`.",
        ),
        (httpx.Response(502, text="<html>"), "http://s answered 502 Bad Gateway."),
        (httpx.Response(500, json=[1]), "http://s answered 500 Internal Server Error."),
    ],
)
def test_refusals_are_one_clear_message(answer: httpx.Response, message: str) -> None:
    with client_of(lambda _: answer) as client, pytest.raises(ServerError) as caught:
        client.get("/me")
    assert (str(caught.value), caught.value.status) == (message, answer.status_code)


def test_commands_end_with_one_line_and_exit_codes() -> None:
    for command in (
        ["project", "list"],
        ["run", "list", "x"],
        ["desktop", "list"],
        ["upload", "x", __file__],
    ):
        result = CliRunner().invoke(main, command)
        assert (result.exit_code, result.stdout) == (1, "")
        assert result.stderr == "Error: You are not signed in. Run `scipion-cloud login ADDRESS` first.\n"
    store_credential("http://127.0.0.1:9", Credential(email="a@b.org", token="1"))
    result = CliRunner().invoke(main, ["project", "list", "--json"])
    assert (result.exit_code, result.stdout) == (1, "")
    assert "http://127.0.0.1:9 cannot be reached" in result.stderr
    for command in (
        ["run", "start", "p", "movie-alignment", "voltage"],
        ["project", "none"],
        ["upload", "x", "/no/such"],
    ):
        assert CliRunner().invoke(main, command).exit_code == 2


@pytest.mark.parametrize("name", ["../a", "/etc/passwd", "a/../../b", "", "a\0b"])
def test_a_server_cannot_write_outside_of_the_folder(name: str) -> None:
    with pytest.raises(InvalidInput):
        _safe(name)


# Fetching files


def serve(request: httpx.Request) -> httpx.Response:
    """A file of ten bytes, ranges too."""
    start = int(request.headers.get("Range", "bytes=0-").removeprefix("bytes=").rstrip("-"))
    return httpx.Response(206 if start else 200, content=b"0123456789"[start:])


def fetch(target: Path, size: int | None, handler: Handler = serve) -> list[str]:
    """Fetch the file; the ranges that were asked for."""
    ranges: list[str] = []

    def note(request: httpx.Request) -> httpx.Response:
        ranges.append(request.headers.get("Range", "all"))
        return handler(request)

    with client_of(note) as client:
        _fetch(client, {"name": target.name, "size": size, "url": "/file"}, target)
    return ranges


def test_a_file_is_fetched_resumed_and_not_fetched_twice(tmp_path: Path) -> None:
    target = tmp_path / "new" / "a.mrc"
    assert fetch(target, 10) == ["all"]
    assert target.read_bytes() == b"0123456789"
    assert fetch(target, 10) == []
    assert fetch(target, None) == ["all"]
    target.unlink()
    target.with_name(".a.mrc.part").write_bytes(b"0123")
    assert fetch(target, 10) == ["bytes=4-"]
    assert target.read_bytes() == b"0123456789"
    assert [f.name for f in target.parent.iterdir()] == ["a.mrc"]


def test_a_refused_or_broken_fetch_leaves_no_file(tmp_path: Path) -> None:
    def cut(request: httpx.Request) -> httpx.Response:
        raise httpx.ReadError("connection lost", request=request)

    for handler in (cut, lambda _: httpx.Response(404, json={"detail": "gone"})):
        with pytest.raises(ServerError):
            fetch(tmp_path / "a.mrc", 10, handler)
    assert not (tmp_path / "a.mrc").exists()


# Sending files


class Receiver:
    """A tus server in memory that meets each PATCH with the next trouble of a list."""

    def __init__(self, *troubles: object) -> None:
        self.data = b""
        self.troubles = list(troubles)
        self.requests: list[str] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request.method)
        if request.method == "HEAD":
            return httpx.Response(200, headers={"Upload-Offset": str(len(self.data))})
        assert int(request.headers["Content-Length"]) == SIZE - int(request.headers["Upload-Offset"])
        trouble = self.troubles.pop(0) if self.troubles else None
        if isinstance(trouble, int) and trouble >= 400:
            return httpx.Response(trouble, json={"detail": f"trouble {trouble}"})
        if int(request.headers["Upload-Offset"]) != len(self.data):
            return httpx.Response(409)
        for chunk in request.stream:  # type: ignore[union-attr]
            self.data += chunk
            if trouble == "cut":
                raise httpx.ReadError("connection lost", request=request)
        return httpx.Response(204, headers={"Upload-Offset": str(len(self.data))})


SIZE = 3 * 2**20 + 17


@pytest.fixture
def job(tmp_path: Path) -> tus.Job:
    file = tmp_path / "movie.tiff"
    file.write_bytes(os.urandom(SIZE))
    return tus.Job(file, "movie.tiff", SIZE, "/projects/p/tus/u", 0)


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tus, "_FIRST_WAIT", 0.001)
    monkeypatch.setattr(tus, "_LONGEST_WAIT", 0.002)


def send(receiver: Handler, job: tus.Job, stop: threading.Event | None = None) -> list[int]:
    told: list[int] = []
    with client_of(receiver) as client:
        tus.Sender(client, stop or threading.Event()).send(job, told.append)
    return told


def test_a_file_is_sent_in_one_request(job: tus.Job) -> None:
    receiver = Receiver()
    told = send(receiver, job)
    assert receiver.requests == ["PATCH"]
    assert receiver.data == job.file.read_bytes()
    assert (told[-1], told) == (SIZE, sorted(told))


def test_it_goes_on_after_every_kind_of_trouble(job: tus.Job) -> None:
    receiver = Receiver("cut", 423, 500, "cut", 409, 503)
    told = send(receiver, job)
    assert receiver.data == job.file.read_bytes()
    assert told[-1] == SIZE
    assert receiver.requests.count("PATCH") == 7


def test_it_asks_first_when_the_server_has_less_than_was_planned(job: tus.Job) -> None:
    receiver = Receiver()
    send(receiver, tus.Job(job.file, job.path, SIZE, job.address, offset=100))
    assert receiver.data == job.file.read_bytes()


def test_it_gives_up_when_the_server_stays_away(job: tus.Job) -> None:
    def away(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("refused", request=request)

    with pytest.raises(ServerError, match="cannot be reached"):
        send(away, job)


@pytest.mark.parametrize("status", [400, 403, 404, 413, 507])
def test_a_refusal_is_final(job: tus.Job, status: int) -> None:
    receiver = Receiver(status)
    with pytest.raises(ServerError, match=f"trouble {status}"):
        send(receiver, job)
    assert receiver.requests == ["PATCH"]


def test_it_stops_when_told(job: tus.Job) -> None:
    stop = threading.Event()

    def slow(request: httpx.Request) -> httpx.Response:
        for _ in request.stream:  # type: ignore[union-attr]
            stop.set()
        return httpx.Response(204)

    with pytest.raises(tus.Stopped):
        send(slow, job, stop)


@pytest.mark.parametrize(
    "change", [lambda f: f.write_bytes(b"short"), lambda f: f.unlink(), lambda f: os.utime(f, (1, 1))]
)
def test_a_file_that_changes_meanwhile_is_told(job: tus.Job, change: Callable[[Path], object]) -> None:
    def receive(request: httpx.Request) -> httpx.Response:
        request.read()
        change(job.file)
        return httpx.Response(204, headers={"Upload-Offset": str(SIZE)})

    with pytest.raises(InvalidInput, match=r"movie\.tiff"):
        send(receive, job)
