"""What servers may answer to a WebDAV storage: odd, hostile, slow, cut short."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scipion_cloud.errors import (
    InvalidInput,
    StorageDenied,
    StorageError,
    StorageFull,
    StorageMissing,
    StorageTransient,
)
from scipion_cloud.storage import Storage, http, open_storage
from scipion_cloud.storage.webdav_paths import decoded_path, encoded_path
from scipion_cloud.storage.webdav_xml import EPOCH, LONGEST, Multistatus

OPEN = '<?xml version="1.0"?><D:multistatus xmlns:D="DAV:">'


def response(href: str, props: str, status: str = "HTTP/1.1 200 OK") -> str:
    propstat = f"<D:propstat><D:prop>{props}</D:prop><D:status>{status}</D:status></D:propstat>"
    return f"<D:response><D:href>{href}</D:href>{propstat}</D:response>"


def listing(*responses: str) -> bytes:
    return (OPEN + "".join(responses) + "</D:multistatus>").encode()


def answer(status: str, body: bytes = b"", *headers: str) -> bytes:
    head = "\r\n".join([f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers])
    return f"{head}\r\n\r\n".encode() + body


@contextmanager
def serving(*answers: bytes, stall: bool = False) -> Iterator[Storage]:
    """A storage at a server that gives these bytes, one to each connection, the last one again and again."""
    stop = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            n = 0
            while True:
                connection, _ = listener.accept()
                with connection:
                    if stop.is_set():
                        return
                    data = b""
                    while b"\r\n\r\n" not in data:
                        data += connection.recv(65536)
                    connection.sendall(answers[min(n, len(answers) - 1)])
                    n += 1
                    if stall:
                        stop.wait(60)

        thread = threading.Thread(target=serve)
        thread.start()
        port = listener.getsockname()[1]
        try:
            with open_storage(f"dav://127.0.0.1:{port}/root", {}, retry=False) as storage:
                yield storage
        finally:
            stop.set()
            socket.create_connection(("127.0.0.1", port)).close()
            thread.join()


def read(storage: Storage) -> bytes:
    return storage.read_bytes("file")


@pytest.mark.parametrize(
    ("status", "error"),
    [
        ("401 Unauthorized", StorageDenied),
        ("403 Forbidden", StorageDenied),
        ("404 Not Found", StorageMissing),
        ("408 Request Timeout", StorageTransient),
        ("423 Locked", StorageTransient),
        ("429 Too Many Requests", StorageTransient),
        ("500 Internal Server Error", StorageTransient),
        ("502 Bad Gateway", StorageTransient),
        ("503 Service Unavailable", StorageTransient),
        ("507 Insufficient Storage", StorageFull),
        ("301 Moved Permanently", StorageError),
        ("400 Bad Request", StorageError),
        ("501 Not Implemented", StorageError),
    ],
)
def test_statuses(status: str, error: type[StorageError]) -> None:
    with serving(answer(status, b"<html>no</html>", "Connection: close")) as storage:
        with pytest.raises(StorageError, match=status[:3]) as caught:
            read(storage)
        assert type(caught.value) is error
        with pytest.raises(StorageError) as caught:
            storage.stat("file")
        assert type(caught.value) is error


def test_a_busy_server_makes_us_wait_a_little(monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []
    monkeypatch.setattr("scipion_cloud.storage.http.time.sleep", pauses.append)
    for told in ("2", "100000", "Wed, 21 Oct 2026 07:28:00 GMT", "-1"):
        with (
            serving(answer("503 Busy", b"", f"Retry-After: {told}")) as storage,
            pytest.raises(StorageTransient),
        ):
            storage.stat("file")
    assert pauses == [2.0, http.LONGEST_PAUSE]


@pytest.mark.parametrize(
    "raw",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n01234",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n01234\r\n",
        b"HTTP/1.1 200 OK\r\nContent-",
        b"",
        b"no HTTP at all\r\n\r\n",
    ],
)
def test_an_answer_that_is_cut_short(raw: bytes) -> None:
    with serving(raw) as storage, pytest.raises(StorageTransient):
        read(storage)


def test_an_old_servers_answer_that_is_cut_short() -> None:
    """It promises no length: the end of the connection is the end of the file, or not."""
    size = answer(
        "207 Multi-Status", listing(response("/root/file", "<D:getcontentlength>10</D:getcontentlength>"))
    )
    with serving(b"HTTP/1.0 200 OK\r\n\r\n01234", size) as storage, pytest.raises(StorageTransient):
        read(storage)
    with serving(b"HTTP/1.0 200 OK\r\n\r\n0123456789", size) as storage:
        assert read(storage) == b"0123456789"


def test_a_silent_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "SILENCE", 0.3)
    for raw in (b"", b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n01234"):
        with serving(raw, stall=True) as storage, pytest.raises(StorageTransient, match="silent"):
            read(storage)


def test_nobody_there() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with open_storage(f"dav://127.0.0.1:{port}", retry=False) as storage, pytest.raises(StorageTransient):
        read(storage)


@pytest.mark.parametrize(
    ("start", "length", "expected"),
    [(3, 4, b"3456"), (3, None, b"3456789"), (0, 2, b"01"), (20, 5, b""), (9, 100, b"9")],
)
def test_a_server_that_ignores_ranges(start: int, length: int | None, expected: bytes) -> None:
    with serving(answer("200 OK", b"0123456789")) as storage:
        assert b"".join(storage.read("file", start, length)) == expected


def test_a_server_that_sends_another_range() -> None:
    raw = answer("206 Partial Content", b"0123", "Content-Range: bytes 0-3/10")
    with serving(raw) as storage, pytest.raises(StorageError, match="another part"):
        b"".join(storage.read("file", 3, 4))


def test_what_is_packed_is_refused() -> None:
    with (
        serving(answer("200 OK", b"\x1f\x8b", "Content-Encoding: gzip")) as storage,
        pytest.raises(StorageError, match="packs"),
    ):
        read(storage)


def test_a_redirect_is_not_followed_with_our_password() -> None:
    raw = answer("302 Found", b"", "Location: http://127.0.0.1:1/elsewhere", "Connection: close")
    with serving(raw) as storage:
        for ask in (lambda: read(storage), lambda: storage.stat("file")):
            with pytest.raises(StorageError, match="302"):
                ask()


HREFS = [
    "/root/a%20folder/f%23%C3%A9",
    "/root/a%20folder/f%23é",
    "http://other.example:8080/root/a%20folder/f%23%c3%a9",
    "//root//a%20folder/f%23%C3%A9",
    "f%23%C3%A9",
    "%66%23%C3%A9",
]


@pytest.mark.parametrize("href", HREFS)
def test_hrefs_are_read_however_they_are_written(href: str) -> None:
    props = "<D:getcontentlength>7</D:getcontentlength><D:getlastmodified>Fri, 20 Nov 2026 14:30:51 GMT"
    body = listing(
        response("/root/a%20folder/", "<D:resourcetype><D:collection/></D:resourcetype>"),
        response(href, f"{props}</D:getlastmodified>"),
    )
    with serving(answer("207 Multi-Status", body)) as storage:
        (stat,) = storage.children("a folder")
    assert (stat.key, stat.size) == ("a folder/f#é", 7)
    assert stat.modified == datetime(2026, 11, 20, 14, 30, 51, tzinfo=UTC)


def test_a_list_of_another_folder_is_no_empty_folder() -> None:
    with (
        serving(answer("207 Multi-Status", listing(response("/elsewhere/file", "")))) as storage,
        pytest.raises(StorageError, match="other folders"),
    ):
        list(storage.children("folder"))


def test_properties_that_are_refused_do_not_count() -> None:
    found = response("/a", "<D:getcontentlength>5</D:getcontentlength>", "HTTP/1.1 404 Not Found")
    (entry,) = Multistatus().read([listing(found)])
    assert (entry.size, entry.modified, entry.folder) == (0, EPOCH, False)
    gone = "<D:response><D:href>/b</D:href><D:status>HTTP/1.1 404 Not Found</D:status></D:response>"
    assert Multistatus().read([listing(gone)]) == []


@pytest.mark.parametrize(
    "hostile",
    [
        b'<!DOCTYPE x [<!ENTITY e SYSTEM "file:///etc/passwd">]><x>&e;</x>',
        b'<!DOCTYPE x [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;&a;">]><x>&b;</x>',
        b'<!DOCTYPE x SYSTEM "http://127.0.0.1:1/x.dtd"><x/>',
        b"<x>" * 1000,
        b"<x>" + b"a" * (LONGEST + 1),
    ],
)
def test_hostile_lists_are_refused(hostile: bytes) -> None:
    with pytest.raises(StorageError) as caught:
        Multistatus().read([hostile])
    assert type(caught.value) is StorageError


def test_a_list_without_end_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("scipion_cloud.storage.webdav_server.LIST_LIMIT", 10_000)
    body = listing(*[response(f"/root/{n}", "") for n in range(1000)])
    with (
        serving(answer("207 Multi-Status", body)) as storage,
        pytest.raises(StorageError, match="more than 10000 bytes"),
    ):
        list(storage.children())


@pytest.mark.parametrize("torn", [b"", b"<x>", b"<x></y>", b"{}", listing(response("/a", ""))[:-5]])
def test_torn_lists_are_asked_for_again(torn: bytes) -> None:
    with pytest.raises(StorageTransient):
        Multistatus().read([torn])


@given(st.lists(st.binary(min_size=1, max_size=20), min_size=1, max_size=4))
def test_paths_come_back(parts: list[bytes]) -> None:
    path = "/".join(part.replace(b"/", b"_").decode("utf-8", "surrogateescape") for part in parts)
    url = encoded_path(path)
    assert url.isascii()
    assert url.isprintable()
    assert decoded_path(f"/{url}", "x") == path
    assert decoded_path(f"http://a.example:1/{url}/", "x") == path


@given(st.integers(1, 40))
def test_lists_are_read_in_any_pieces(size: int) -> None:
    body = listing(
        *[response(f"/é{n}&amp;", f"<D:getcontentlength>{n}</D:getcontentlength>") for n in range(3)]
    )
    entries = Multistatus().read(body[i : i + size] for i in range(0, len(body), size))
    assert [(entry.href, entry.size) for entry in entries] == [("/é0&", 0), ("/é1&", 1), ("/é2&", 2)]


@pytest.mark.parametrize(
    "credentials",
    [{"password": "x"}, {"token": "t", "user": "u", "password": "x"}, {"secret": "x"}],
)
def test_credentials_that_cannot_be_right(credentials: dict[str, str]) -> None:
    with pytest.raises(InvalidInput):
        open_storage("davs://server.example/x", credentials)


@pytest.mark.parametrize("url", ["davs:///x", "davs://u:p@server.example/x", "davs://server.example/x?y"])
def test_urls_that_cannot_be_right(url: str) -> None:
    with pytest.raises(InvalidInput):
        open_storage(url)
