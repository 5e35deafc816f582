"""The tus protocol over real connections to a real server process."""

import base64
import hashlib
import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from http.client import HTTPResponse
from pathlib import Path

import httpx
import pytest
from tusclient.client import TusClient

from upload_site import Site

BODY = "application/offset+octet-stream"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    site = Site.prepare(tmp_path_factory.mktemp("home"))
    site.start()
    yield site
    site.stop()


def metadata(path: str | bytes, key: str = "filename") -> dict[str, str]:
    raw = path.encode() if isinstance(path, str) else path
    return {"Upload-Metadata": f"{key} {base64.b64encode(raw).decode()}".strip()}


def create(site: Site, path: str | bytes, size: int, person: str = "owner") -> httpx.Response:
    return httpx.post(
        site.tus, headers=site.headers(person) | metadata(path) | {"Upload-Length": str(size)}, timeout=120
    )


def patch(site: Site, location: str, offset: int, body: bytes, **extra: str) -> httpx.Response:
    headers = site.headers() | {"Upload-Offset": str(offset), "Content-Type": BODY} | extra
    return httpx.patch(site.url + location, headers=headers, content=body, timeout=60)


def offset(site: Site, location: str) -> int:
    answer = httpx.head(site.url + location, headers=site.headers())
    assert answer.status_code == 200
    return int(answer.headers["Upload-Offset"])


def open_patch(site: Site, location: str, start: int, length: int) -> socket.socket:
    """A PATCH whose body the caller sends."""
    connection = socket.create_connection(("127.0.0.1", site.port))
    lines = [f"PATCH {location} HTTP/1.1", "Host: 127.0.0.1", f"Content-Length: {length}"]
    lines += [f"{k}: {v}" for k, v in site.headers().items()]
    lines += [f"Upload-Offset: {start}", f"Content-Type: {BODY}", "", ""]
    connection.sendall("\r\n".join(lines).encode())
    return connection


def wait_for(site: Site, name: str, size: int) -> None:
    """Until the part file has at least `size` bytes."""
    for _ in range(100):
        if site.parts().get(name, 0) >= size:
            return
        time.sleep(0.05)
    raise AssertionError(f"only {site.parts().get(name)} bytes arrived")


def answer_of(connection: socket.socket) -> tuple[int, str]:
    """Status and text of the answer."""
    answer = HTTPResponse(connection)
    answer.begin()
    return answer.status, answer.read().decode()


def part_name(location: str) -> str:
    return location.rpartition("/")[2].replace("-", "")


def test_the_server_says_what_it_can_do(site: Site) -> None:
    answer = httpx.options(site.tus)
    assert answer.status_code == 204
    assert answer.headers["Tus-Version"] == "1.0.0"
    assert set(answer.headers["Tus-Extension"].split(",")) >= {
        "creation",
        "creation-with-upload",
        "termination",
    }
    assert int(answer.headers["Tus-Max-Size"]) == 1024 * 2**30
    assert "access-control-allow-origin" not in answer.headers


def test_another_version_is_refused(site: Site) -> None:
    answer = httpx.post(site.tus, headers=site.headers() | {"Tus-Resumable": "0.2.2", "Upload-Length": "1"})
    assert answer.status_code == 412
    assert answer.headers["Tus-Version"] == "1.0.0"


def test_a_file_in_two_pieces(site: Site) -> None:
    content = os.urandom(300_000)
    location = create(site, 'two pieces/движение "1".mrc', len(content)).headers["Location"]
    assert offset(site, location) == 0
    assert patch(site, location, 0, content[:100_001]).headers["Upload-Offset"] == "100001"
    assert not (site.data / "two pieces").exists()
    assert offset(site, location) == 100_001
    assert patch(site, location, 100_001, content[100_001:]).status_code == 204
    assert (site.data / "two pieces" / 'движение "1".mrc').read_bytes() == content
    assert offset(site, location) == len(content)
    assert part_name(location) not in site.parts()


def test_creation_with_upload_and_relative_path(site: Site) -> None:
    headers = site.headers() | {"Upload-Length": "5", "Content-Type": BODY}
    pairs = (
        metadata("b.tif")["Upload-Metadata"]
        + ","
        + metadata("grid 1/b.tif", "relativePath")["Upload-Metadata"]
    )
    answer = httpx.post(site.tus, headers=headers | {"Upload-Metadata": pairs}, content=b"hello")
    assert answer.status_code == 201
    assert answer.headers["Upload-Offset"] == "5"
    assert (site.data / "grid 1" / "b.tif").read_bytes() == b"hello"


def test_an_empty_file(site: Site) -> None:
    location = create(site, "empty.txt", 0).headers["Location"]
    assert offset(site, location) == 0
    assert (site.data / "empty.txt").read_bytes() == b""


def test_a_wrong_offset_is_refused_with_the_right_one(site: Site) -> None:
    location = create(site, "offset.mrc", 100).headers["Location"]
    patch(site, location, 0, b"x" * 10)
    answer = patch(site, location, 20, b"x" * 10)
    assert answer.status_code == 409
    assert "10 bytes have arrived" in answer.text
    assert offset(site, location) == 10


def test_more_bytes_than_announced_are_refused(site: Site) -> None:
    location = create(site, "more.mrc", 10).headers["Location"]
    assert patch(site, location, 0, b"x" * 11).status_code == 413
    assert offset(site, location) == 0

    def chunks() -> Iterator[bytes]:
        yield b"x" * 11

    headers = site.headers() | {"Upload-Offset": "0", "Content-Type": BODY}
    assert httpx.patch(site.url + location, headers=headers, content=chunks()).status_code == 413
    assert offset(site, location) <= 10


def test_checksums(site: Site) -> None:
    content = os.urandom(5_000_000)
    location = create(site, "sum.mrc", len(content)).headers["Location"]
    right = base64.b64encode(hashlib.sha1(content[:3_000_000]).digest()).decode()  # noqa: S324
    assert (
        patch(site, location, 0, content[:3_000_000], **{"Upload-Checksum": f"sha1 {right}"}).status_code
        == 204
    )
    wrong = patch(site, location, 3_000_000, content[3_000_000:], **{"Upload-Checksum": f"sha1 {right}"})
    assert wrong.status_code == 460
    assert offset(site, location) == 3_000_000
    good = base64.b64encode(hashlib.sha256(content[3_000_000:]).digest()).decode()
    done = patch(site, location, 3_000_000, content[3_000_000:], **{"Upload-Checksum": f"sha256 {good}"})
    assert done.status_code == 204


def test_termination(site: Site) -> None:
    location = create(site, "ended.mrc", 100).headers["Location"]
    patch(site, location, 0, b"x" * 10)
    assert part_name(location) in site.parts()
    assert httpx.delete(site.url + location, headers=site.headers()).status_code == 204
    assert part_name(location) not in site.parts()
    assert httpx.head(site.url + location, headers=site.headers()).status_code == 404


def test_a_finished_file_is_not_ended_but_deleted_elsewhere(site: Site) -> None:
    location = create(site, "whole.mrc", 3).headers["Location"]
    patch(site, location, 0, b"abc")
    assert httpx.delete(site.url + location, headers=site.headers()).status_code == 409
    assert (site.data / "whole.mrc").exists()


def test_nothing_is_overwritten(site: Site) -> None:
    location = create(site, "gain.mrc", 3).headers["Location"]
    patch(site, location, 0, b"abc")
    again = create(site, "gain.mrc", 3)
    assert again.headers["Location"] == location
    assert again.headers["Upload-Offset"] == "3"
    other = create(site, "gain.mrc", 4)
    assert other.status_code == 409
    assert "Nothing is overwritten" in other.text
    assert (site.data / "gain.mrc").read_bytes() == b"abc"


def test_a_file_made_meanwhile_is_not_overwritten(site: Site) -> None:
    location = create(site, "race.mrc", 6).headers["Location"]
    patch(site, location, 0, b"abc")
    with open_patch(site, location, 3, 3) as connection:
        connection.sendall(b"d")
        wait_for(site, part_name(location), 4)
        (site.data / "race.mrc").write_bytes(b"theirs")
        connection.sendall(b"ef")
        assert answer_of(connection)[0] == 409
    assert (site.data / "race.mrc").read_bytes() == b"theirs"
    assert site.parts()[part_name(location)] == 6
    (site.data / "race.mrc").unlink()
    assert offset(site, location) == 6
    assert (site.data / "race.mrc").read_bytes() == b"abcdef"


@pytest.mark.parametrize(
    ("name", "says"),
    [
        (b"../escape.mrc", "inside the data folder"),
        (b"a/../../escape.mrc", "inside the data folder"),
        (b"/etc/passwd", "absolute"),
        (b"a//b.mrc", "inside the data folder"),
        (b"./b.mrc", "inside the data folder"),
        (b".parts/x.mrc", "kept for files that have not arrived"),
        (b"new\nline.mrc", "line break"),
        (b"null\0.mrc", "control character"),
        (b"bell\x07.mrc", "control character"),
        ("separator\u2028.mrc".encode(), "line break"),
        (b"latin-1 \xe9.mrc", "not UTF-8"),
        (b"x" * 256 + b".mrc", "too long"),
        (b"/".join([b"d"] * 40), "too long"),
        (b"", "no name"),
    ],
)
def test_hostile_names(site: Site, name: bytes, says: str) -> None:
    answer = create(site, name, 1)
    assert answer.status_code == 400
    assert says in answer.text
    assert not list(site.home.rglob("escape.mrc"))


@pytest.mark.parametrize(
    "name", ["it's.mrc", 'a "quoted" name.mrc', "$(touch x).mrc", "$HOME `x`.mrc", "-rf", "a\\b.mrc"]
)
def test_unusual_names_are_kept(site: Site, name: str) -> None:
    location = create(site, name, 1).headers["Location"]
    assert patch(site, location, 0, b"x").status_code == 204
    assert (site.data / name).read_bytes() == b"x"


def test_no_escape_through_links(site: Site, tmp_path: Path) -> None:
    site.data.mkdir(exist_ok=True, parents=True)
    (site.data / "out").symlink_to(tmp_path)
    (site.data / "file.mrc").symlink_to(tmp_path / "target.mrc")
    assert create(site, "out/evil.mrc", 1).status_code == 409
    assert create(site, "file.mrc", 1).status_code == 409
    location = create(site, "later/evil.mrc", 1).headers["Location"]  # the link comes after the announcement
    (site.data / "later").symlink_to(tmp_path)
    assert patch(site, location, 0, b"x").status_code == 409
    location = create(site, "linked.mrc", 2).headers["Location"]
    (site.data / ".parts").mkdir(exist_ok=True)
    (site.data / ".parts" / part_name(location)).symlink_to(tmp_path / "part")
    assert patch(site, location, 0, b"x").status_code in (409, 500)
    assert list(tmp_path.iterdir()) == []


def test_strangers_and_viewers(site: Site) -> None:
    location = create(site, "rights.mrc", 10).headers["Location"]
    assert create(site, "x.mrc", 1, "stranger").status_code == 404
    assert create(site, "x.mrc", 1, "viewer").status_code == 403
    for person, status in (("stranger", 404), ("viewer", 403)):
        headers = site.headers(person)
        assert httpx.head(site.url + location, headers=headers).status_code == status
        assert httpx.delete(site.url + location, headers=headers).status_code == status
        more = headers | {"Upload-Offset": "0", "Content-Type": BODY}
        assert httpx.patch(site.url + location, headers=more, content=b"x").status_code == status
    assert httpx.head(site.url + location, headers={"Tus-Resumable": "1.0.0"}).status_code == 404
    assert offset(site, location) == 0


def test_sessions_work_from_our_own_pages_only(site: Site) -> None:
    cookie = {"Cookie": f"sessionid={site.sessions['owner']}", "Tus-Resumable": "1.0.0", "Upload-Length": "1"}
    cookie |= metadata("session.mrc")

    def post(**extra: str) -> int:
        return httpx.post(
            site.tus, headers=cookie | {k.replace("_", "-"): v for k, v in extra.items()}
        ).status_code

    assert post() == 403
    assert post(Origin="https://evil.example") == 403
    assert post(Origin="null") == 403
    assert post(Sec_Fetch_Site="cross-site") == 403
    assert post(Sec_Fetch_Site="same-origin") == 201
    assert post(Origin=site.url) == 201
    assert post(Origin="http://rebound.example", Host="rebound.example") == 403


def test_one_writer_at_a_time(site: Site) -> None:
    location = create(site, "two writers.mrc", 1000).headers["Location"]
    with open_patch(site, location, 0, 1000) as first:
        first.sendall(b"a" * 100)
        wait_for(site, part_name(location), 100)
        assert patch(site, location, 0, b"b" * 1000).status_code == 423
        assert httpx.delete(site.url + location, headers=site.headers()).status_code == 423
        first.sendall(b"a" * 900)
        assert answer_of(first)[0] == 204
    assert (site.data / "two writers.mrc").read_bytes() == b"a" * 1000


def test_a_silent_writer_makes_way(site: Site) -> None:
    location = create(site, "silent.mrc", 1000).headers["Location"]
    with open_patch(site, location, 0, 1000) as dead:
        dead.sendall(b"a" * 100)
        time.sleep(5.5)  # longer than stream.STALE_S
        assert patch(site, location, 0, b"b" * 1000).status_code == 409  # its bytes were saved first
        assert offset(site, location) == 100
        assert patch(site, location, 100, b"b" * 900).status_code == 204
    assert (site.data / "silent.mrc").read_bytes() == b"a" * 100 + b"b" * 900


def test_what_came_before_a_broken_connection_is_kept(site: Site) -> None:
    content = os.urandom(3_000_000)
    location = create(site, "broken.mrc", len(content)).headers["Location"]
    with open_patch(site, location, 0, len(content)) as connection:
        connection.sendall(content[:2_500_000])
        wait_for(site, part_name(location), 2_000_000)
    time.sleep(0.5)
    arrived = offset(site, location)
    assert 2_000_000 <= arrived <= 2_500_000
    assert patch(site, location, arrived, content[arrived:]).status_code == 204
    assert (site.data / "broken.mrc").read_bytes() == content


def test_kill_in_the_middle_and_go_on(site: Site) -> None:
    content = os.urandom(64 * 2**20)
    location = create(site, "killed/movie.mrc", len(content)).headers["Location"]
    with open_patch(site, location, 0, len(content)) as connection:
        sender = threading.Thread(target=_send_quietly, args=(connection, content))
        sender.start()
        wait_for(site, part_name(location), 4 * 2**20)
        site.stop(signal.SIGKILL)
        sender.join()
    on_disk = site.parts()[part_name(location)]
    assert on_disk < len(content), "the kill came too late to prove anything"
    site.start()
    assert offset(site, location) == on_disk
    assert patch(site, location, on_disk, content[on_disk:]).status_code == 204
    found = hashlib.sha256((site.data / "killed" / "movie.mrc").read_bytes()).hexdigest()
    assert found == hashlib.sha256(content).hexdigest()


def _send_quietly(connection: socket.socket, content: bytes) -> None:
    try:
        for start in range(0, len(content), 2**20):
            connection.sendall(content[start : start + 2**20])
            time.sleep(0.02)
    except OSError:
        pass  # the server was killed, as intended


def test_killed_between_the_last_byte_and_the_name(site: Site) -> None:
    location = create(site, "unnamed.mrc", 3).headers["Location"]
    patch(site, location, 0, b"ab")
    with (site.data / ".parts" / part_name(location)).open("ab") as part:
        part.write(b"c")  # as it was left by a kill after the last write
    assert offset(site, location) == 3
    assert (site.data / "unnamed.mrc").read_bytes() == b"abc"


def test_killed_between_the_link_and_the_unlink(site: Site) -> None:
    location = create(site, "linked twice.mrc", 3).headers["Location"]
    patch(site, location, 0, b"ab")
    part = site.data / ".parts" / part_name(location)
    with part.open("ab") as file:
        file.write(b"c")
    os.link(part, site.data / "linked twice.mrc")
    assert offset(site, location) == 3
    assert (site.data / "linked twice.mrc").read_bytes() == b"abc"


def test_the_independent_client(site: Site, tmp_path: Path) -> None:
    source = tmp_path / "movie.tiff"
    source.write_bytes(os.urandom(5_000_000))
    headers = {"Authorization": f"Bearer {site.tokens['owner']}"}
    client = TusClient(site.tus, headers=headers)
    meta = {"filename": "tuspy/movie.tiff"}
    with source.open("rb") as file:  # given a path, the client would leave the file open
        uploader = client.uploader(
            file_stream=file, chunk_size=1_000_000, metadata=meta, upload_checksum=True
        )
        uploader.upload_chunk()
        uploader.upload_chunk()
        assert uploader.offset == 2_000_000
    with source.open("rb") as file:
        again = client.uploader(file_stream=file, chunk_size=1_000_000, url=uploader.url)
        assert again.offset == 2_000_000
        again.upload()
    assert (site.data / "tuspy" / "movie.tiff").read_bytes() == source.read_bytes()


def test_a_file_too_large_for_the_disk_is_refused_at_once(site: Site) -> None:
    size = 1000 * 2**30  # below the largest upload, above what any test machine has free
    answer = create(site, "huge.mrc", size)
    assert answer.status_code == 507
    assert "are missing" in answer.text
    assert create(site, "huger.mrc", 2000 * 2**30).status_code == 413


def test_a_file_size_limit_in_the_middle_is_told(site: Site) -> None:
    site.stop()
    site.start(largest_file=8 * 2**20)  # the database stays below; the upload does not
    try:
        content = os.urandom(12 * 2**20)
        location = create(site, "limit.mrc", len(content)).headers["Location"]
        answer = patch(site, location, 0, content)
        assert answer.status_code == 507
        assert "8.4 MB of 12.6 MB have arrived and are kept" in answer.text
        assert offset(site, location) == 8 * 2**20
    finally:
        site.stop()
        site.start()
    assert patch(site, location, 8 * 2**20, content[8 * 2**20 :]).status_code == 204
    assert (site.data / "limit.mrc").read_bytes() == content


if os.geteuid() == 0:  # only root may mount; for others the file size limit above takes the same road

    def test_a_full_disk_in_the_middle_is_told(site: Site) -> None:
        site.data.mkdir(parents=True, exist_ok=True)
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", site.data], check=True)
        try:
            content = os.urandom(3 * 2**20)
            location = create(site, "full.mrc", len(content)).headers["Location"]
            (site.data / "ballast").write_bytes(b"x" * 2 * 2**20)
            with open_patch(site, location, 0, len(content)) as connection:
                status, text = answer_of(connection)
            assert status == 507
            assert "are missing" in text
            (site.data / "ballast").unlink()
            with open_patch(site, location, 0, len(content)) as connection:
                connection.sendall(content[: 2**20])
                wait_for(site, part_name(location), 2**20)
                (site.data / "ballast").write_bytes(b"x" * (5 * 2**19))
                connection.sendall(content[2**20 :])
                status, text = answer_of(connection)
            assert status == 507
            assert "have arrived and are kept" in text
            (site.data / "ballast").unlink()
            arrived = offset(site, location)
            assert 0 < arrived < len(content)
            assert patch(site, location, arrived, content[arrived:]).status_code == 204
            assert (site.data / "full.mrc").read_bytes() == content
        finally:
            subprocess.run(["umount", site.data], check=True)
