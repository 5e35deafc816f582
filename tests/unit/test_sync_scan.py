"""The scan of a working copy: names of any kind, loops, what vanishes, what cannot be read."""

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from scipion_cloud.sync.progress import Problem
from scipion_cloud.sync.scan import scan


class Seen:
    """A whole scan."""

    def __init__(self, folder: Path) -> None:
        self.problems: list[Problem] = []
        self.unknown: set[bytes] = set()
        root = os.open(folder, os.O_RDONLY)
        try:
            self.found = {f.path: f.stat for f in scan(root, self.problems, self.unknown)}
        finally:
            os.close(root)


@pytest.fixture
def root_fd(tmp_path: Path) -> Iterator[int]:
    fd = os.open(tmp_path, os.O_RDONLY)
    yield fd
    os.close(fd)


def test_what_is_on_its_way_from_another_site_is_no_part_of_the_project(tmp_path: Path) -> None:
    (tmp_path / "Runs" / ".scipion-cloud-arriving-7" / "extra").mkdir(parents=True)
    (tmp_path / "Runs" / ".scipion-cloud-arrives").mkdir()
    assert set(Seen(tmp_path).found) == {b"Runs", b"Runs/.scipion-cloud-arrives"}


def test_names_of_any_bytes(tmp_path: Path) -> None:
    names = [b"a\nb", b"\"q'", b"\xff\xfe", "é".encode(), b"e\xcc\x81", b"n" * 255, b" ", b"-rf", b"*"]
    for name in names:
        (tmp_path / os.fsdecode(name)).write_bytes(name)
    seen = Seen(tmp_path)
    assert set(seen.found) == set(names)
    assert all(stat.st_size == len(name) for name, stat in seen.found.items())
    assert not seen.problems
    assert not seen.unknown


def test_paths_longer_than_the_system_takes(tmp_path: Path, root_fd: int) -> None:
    fd, parts = os.dup(root_fd), []
    try:
        for n in range(40):
            name = b"%03d" % n + b"d" * 200
            os.mkdir(name, dir_fd=fd)
            below = os.open(name, os.O_RDONLY, dir_fd=fd)
            os.close(fd)
            fd = below
            parts.append(name)
        os.close(os.open(b"file", os.O_CREAT | os.O_WRONLY, dir_fd=fd))
    finally:
        os.close(fd)
    seen = Seen(tmp_path)
    deepest = b"/".join([*parts, b"file"])
    assert len(deepest) > 8000
    assert deepest in seen.found
    assert len(seen.found) == 41
    assert not seen.problems


def test_loops_of_links_are_not_followed(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a/up").symlink_to("..")
    (tmp_path / "self").symlink_to("self")
    (tmp_path / "root").symlink_to("/")
    assert set(Seen(tmp_path).found) == {b"a", b"a/up", b"self", b"root"}


def test_a_folder_comes_before_what_is_in_it(tmp_path: Path, root_fd: int) -> None:
    for path in ("x/y/z", "a/b/c"):
        (tmp_path / path).mkdir(parents=True)
    seen: set[bytes] = {b""}
    for found in scan(root_fd, [], set()):
        assert found.path.rpartition(b"/")[0] in seen
        seen.add(found.path)


def test_a_folder_that_vanishes_meanwhile_does_not_end_the_scan(tmp_path: Path, root_fd: int) -> None:
    for name in ("gone", "here", "there"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "f").touch()
    problems: list[Problem] = []
    unknown: set[bytes] = set()
    found = set()
    for item in scan(root_fd, problems, unknown):
        found.add(item.path)
        if item.path == b"gone":  # listed, and not entered yet
            (tmp_path / "gone/f").unlink()
            (tmp_path / "gone").rmdir()
    assert {b"here/f", b"there/f"} <= found
    assert unknown == {b"gone"}
    assert [p.path for p in problems] == [b"gone"]
    assert "kept" in problems[0].text


def test_a_folder_replaced_by_a_link_is_not_followed(tmp_path: Path, root_fd: int) -> None:
    outside = tmp_path.parent / f"{tmp_path.name}-outside"
    outside.mkdir()
    (outside / "secret").touch()
    (tmp_path / "d").mkdir()
    unknown: set[bytes] = set()
    found = set()
    for item in scan(root_fd, [], unknown):
        found.add(item.path)
        (tmp_path / "d").rmdir()
        (tmp_path / "d").symlink_to(outside)
    assert found == {b"d"}
    assert unknown == {b"d"}


def test_what_cannot_be_read_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "closed").mkdir()
    (tmp_path / "open").mkdir()
    (tmp_path / "open/f").touch()
    real = os.open

    def refuse(path: object, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
        if path == b"closed":  # as for an account without the right; tests may run as root
            raise PermissionError(13, "Permission denied")
        return real(path, flags, mode, dir_fd=dir_fd)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "open", refuse)
    seen = Seen(tmp_path)
    assert b"open/f" in seen.found
    assert seen.unknown == {b"closed"}
    assert "Permission denied" in seen.problems[0].text


def test_sockets_and_pipes_are_told_and_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.mkfifo(tmp_path / "pipe")
    monkeypatch.chdir(tmp_path)
    with socket.socket(socket.AF_UNIX) as s:
        s.bind("socket")
        seen = Seen(tmp_path)
    assert not seen.found
    assert not seen.unknown
    assert {p.path for p in seen.problems} == {b"pipe", b"socket"}


def test_our_own_folder_is_left_out_at_the_top_only(tmp_path: Path) -> None:
    for path in (".scipion-cloud/x", "a/.scipion-cloud/y"):
        (tmp_path / path).mkdir(parents=True)
    assert set(Seen(tmp_path).found) == {b"a", b"a/.scipion-cloud", b"a/.scipion-cloud/y"}
