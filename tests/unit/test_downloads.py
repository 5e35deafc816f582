"""Files of users: hostile names, links, ranges, odd file names."""

import os
import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote_to_bytes

import pytest
from asgiref.sync import async_to_sync
from django.core.signals import request_finished
from django.db import close_old_connections
from django.http import HttpResponseBase
from django.test import AsyncRequestFactory, RequestFactory

from scipion_cloud.errors import NotFound
from scipion_cloud.portal.downloads import content_disposition, file_response, safe_open

CONTENT = bytes(range(256)) * 5000  # more than one piece


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "project"
    (root / "Runs").mkdir(parents=True)
    (root / "Runs" / "mic.mrc").write_bytes(CONTENT)
    (tmp_path / "secret").write_text("secret")
    (tmp_path / "project-2").mkdir()
    (tmp_path / "project-2" / "secret").write_text("secret")
    return root


def read(response: HttpResponseBase) -> bytes:
    body = b"".join(response)  # type: ignore[arg-type]
    response.close()
    return body


@pytest.mark.parametrize(
    "name",
    [
        "",
        ".",
        "/",
        "..",
        "../secret",
        "Runs/../../secret",
        "Runs/../Runs/mic.mrc",
        "../project-2/secret",
        "/etc/passwd",
        "//etc/passwd",
        "Runs",
        "Runs/",
        "Runs/none",
        "Runs/mic.mrc/x",
        "Runs/mic.mrc\0.txt",
        "\0",
        "x" * 5000,
    ],
)
def test_hostile_names_are_missing(root: Path, name: str) -> None:
    with pytest.raises(NotFound):
        safe_open(root, name)


@pytest.mark.parametrize(
    "target", ["../secret", "../project-2/secret", "/etc/passwd", "/proc/self/mem", "/dev/zero", "loop"]
)
def test_links_that_leave_are_missing(root: Path, target: str) -> None:
    (root / "loop").symlink_to(target)
    with pytest.raises(NotFound):
        safe_open(root, "loop")


def test_links_of_folders_that_leave_are_missing(root: Path) -> None:
    (root / "out").symlink_to("..")
    with pytest.raises(NotFound):
        safe_open(root, "out/secret")


def test_a_pipe_is_missing_and_not_waited_for(root: Path) -> None:
    os.mkfifo(root / "pipe")
    with pytest.raises(NotFound):
        safe_open(root, "pipe")


def test_links_inside_and_odd_names_are_served(root: Path) -> None:
    (root / "data").mkdir()
    (root / "data" / "a.mrc").symlink_to("../Runs/mic.mrc")
    (root / "again").symlink_to("data")
    for name in ("data/a.mrc", "again/a.mrc", "Runs//mic.mrc"):
        with safe_open(root, name) as file:
            assert file.read() == CONTENT
    odd = os.fsdecode(b'sp ace "q" \xff\n.mrc')
    (root / odd).write_bytes(b"odd")
    with safe_open(root, odd) as file:
        assert file.read() == b"odd"


def test_the_project_itself_may_be_behind_a_link(root: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(root)
    with safe_open(tmp_path / "link", "Runs/mic.mrc") as file:
        assert file.read(3) == CONTENT[:3]


def test_a_link_swapped_while_it_is_opened_gains_nothing(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder becomes a link that leaves after the path was checked and before the file is opened."""
    real_open = os.open

    def swap(path: str, flags: int) -> int:
        (root / "Runs").rename(root / "Gone")
        (root / "Runs").symlink_to("../project-2")
        (root.parent / "project-2" / "mic.mrc").write_text("secret")
        return real_open(path, flags)

    monkeypatch.setattr("scipion_cloud.portal.downloads.os.open", swap)
    with pytest.raises(NotFound):
        safe_open(root, "Runs/mic.mrc")


SIZE = len(CONTENT)


@pytest.mark.parametrize(
    ("wanted", "status", "start", "stop"),
    [
        (None, 200, 0, SIZE),
        ("bytes=0-", 200, 0, SIZE),
        ("bytes=0-0", 206, 0, 1),
        ("bytes=10-19", 206, 10, 20),
        ("bytes=1000000-", 206, 1_000_000, SIZE),
        ("bytes=5-99999999999", 206, 5, SIZE),
        ("bytes=-7", 206, SIZE - 7, SIZE),
        ("bytes=-99999999999", 200, 0, SIZE),
        ("bytes=-", 200, 0, SIZE),
        ("bytes=1-2,4-5", 200, 0, SIZE),
        ("pages=1-2", 200, 0, SIZE),
        ("bytes=٣-٤", 200, 0, SIZE),
    ],
)
def test_ranges(root: Path, wanted: str | None, status: int, start: int, stop: int) -> None:
    headers = {"range": wanted} if wanted else {}
    response = file_response(RequestFactory().get("/", headers=headers), root, "Runs/mic.mrc")
    assert response.status_code == status
    assert response["Content-Length"] == str(stop - start)
    assert response.get("Content-Range") == (f"bytes {start}-{stop - 1}/{SIZE}" if status == 206 else None)
    assert read(response) == CONTENT[start:stop]


@pytest.mark.parametrize("wanted", [f"bytes={SIZE}-", "bytes=-0", "bytes=9-3"])
def test_impossible_ranges(root: Path, wanted: str) -> None:
    response = file_response(RequestFactory().get("/", headers={"range": wanted}), root, "Runs/mic.mrc")
    assert (response.status_code, response["Content-Range"]) == (416, f"bytes */{SIZE}")


def test_a_changed_file_is_sent_whole_and_a_known_one_not_again(root: Path) -> None:
    etag = file_response(RequestFactory().head("/"), root, "Runs/mic.mrc")
    etag.close()
    known = RequestFactory().get("/", headers={"if-none-match": etag["ETag"]})
    assert file_response(known, root, "Runs/mic.mrc").status_code == 304
    (root / "Runs" / "mic.mrc").write_bytes(b"another")
    stale = RequestFactory().get("/", headers={"range": "bytes=2-3", "if-range": etag["ETag"]})
    assert read(file_response(stale, root, "Runs/mic.mrc")) == b"another"


def test_an_asynchronous_server_streams(root: Path) -> None:
    response = file_response(
        AsyncRequestFactory().get("/", headers={"range": "bytes=3-"}), root, "Runs/mic.mrc"
    )

    async def body() -> list[bytes]:
        return [piece async for piece in response]  # type: ignore[attr-defined]

    pieces = async_to_sync(body)()
    response.close()
    assert len(pieces) == 2
    assert b"".join(pieces) == CONTENT[3:]


@pytest.mark.parametrize(
    ("name", "asked_inline", "kind", "inline"),
    [
        ("a.png", True, "image/png", True),
        ("a.png", False, "image/png", False),
        ("a.txt", True, "text/plain; charset=utf-8", True),
        ("a.html", True, "application/octet-stream", False),
        ("a.svg", True, "application/octet-stream", False),
        ("a.js", True, "application/octet-stream", False),
        ("a.mrc", True, "application/octet-stream", False),
    ],
)
def test_nothing_of_a_user_runs_as_our_page(
    root: Path, name: str, asked_inline: bool, kind: str, inline: bool
) -> None:
    (root / name).write_text("<script>alert(1)</script>")
    response = file_response(RequestFactory().get("/"), root, name, attachment=not asked_inline)
    response.close()
    assert response["Content-Type"] == kind
    assert response["Content-Disposition"].startswith("inline" if inline else "attachment")
    assert response["X-Content-Type-Options"] == "nosniff"
    assert response["Content-Security-Policy"] == "default-src 'none'; sandbox"


@pytest.mark.parametrize(
    "raw",
    [b"plain.mrc", b'q"uo\\te.mrc', b"new\r\nSet-Cookie: a=b", "Ä µ.mrc".encode(), b"bad \xff.mrc", b"a;b=c"],
)
def test_names_survive_the_header(raw: bytes) -> None:
    header = content_disposition(os.fsdecode(raw), attachment=True)
    match = re.fullmatch(
        r"""attachment; filename="([^"\\]*)"(?:; filename\*=UTF-8''([\w%.~-]*))?""", header, re.ASCII
    )
    assert match is not None
    assert unquote_to_bytes(match[2] if match[2] is not None else match[1]) == raw
    assert header.isprintable()


@pytest.fixture(autouse=True)
def no_database() -> Iterator[None]:
    """A response that closes has Django look after its database connections, of which there are none here."""
    request_finished.disconnect(close_old_connections)
    yield
    request_finished.connect(close_old_connections)


@pytest.fixture(autouse=True)
def no_descriptor_leaks() -> Iterator[None]:
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
    yield
    assert len(os.listdir("/proc/self/fd")) <= before  # noqa: PTH208
