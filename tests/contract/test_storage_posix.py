"""The contract on a folder, and what only folders can do wrong."""

import errno
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from scipion_cloud.errors import StorageError, StorageFull, StorageMissing, StorageTransient
from scipion_cloud.storage import Kind, NewFile, Storage, open_storage
from scipion_cloud.storage.posix import Posix
from scipion_cloud.testing.storage import StorageContract
from scipion_cloud.testing.storage.sources import source


class TestPosix(StorageContract):
    @pytest.fixture
    def storage(self, tmp_path: Path) -> Iterator[Storage]:
        with Posix(str(tmp_path / "it's a\nstorage")) as storage:
            yield storage


class TestPosixOnAPoorFileSystem(StorageContract):
    """One on which the kernel does not copy, and which has no hard links."""

    @pytest.fixture
    def storage(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Storage]:
        monkeypatch.setattr(os, "copy_file_range", refuse(errno.EXDEV))
        monkeypatch.setattr(os, "link", refuse(errno.EPERM))
        with Posix(str(tmp_path)) as storage:
            yield storage


def refuse(number: int) -> Callable[..., int]:
    """A call of the system that always fails."""

    def call(*_: object, **__: object) -> int:
        raise OSError(number, os.strerror(number))

    return call


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "root"


@pytest.fixture
def storage(root: Path) -> Iterator[Posix]:
    with Posix(str(root)) as storage:
        yield storage


def litter(root: Path) -> list[str]:
    """The names of temporary files."""
    folder = root / ".scipion-cloud" / "tmp"
    return [file.name for file in folder.iterdir()] if folder.exists() else []


def test_nothing_leads_out(storage: Posix, root: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    (outside / "empty").mkdir(parents=True)
    (outside / "secret").write_text("secret")
    storage.write("file", b"inside")
    (root / "out").symlink_to(outside)
    (root / "secret").symlink_to(outside / "secret")
    (root / "new").symlink_to(outside / "made")
    for key in ("out/secret", "out/empty/x"):
        for ask in (storage.stat, storage.read_bytes, storage.readlink):
            with pytest.raises(StorageMissing):
                ask(key)
        for put in (storage.write, storage.create, storage.symlink):
            with pytest.raises(StorageError):
                put(key, b"x")
        with pytest.raises(StorageError):
            storage.write(key, b"x", new=True)
        with pytest.raises(StorageError):
            storage.move("file", key)
        with pytest.raises(StorageMissing):
            storage.move(key, "stolen")
        storage.remove(key)
        storage.remove_folder("out/empty")
        with pytest.raises(StorageError):
            storage.make_folder(f"{key}/made")
    for key in ("secret", "new"):
        with pytest.raises(StorageError, match="symlink"):
            storage.read_bytes(key)
        with pytest.raises(StorageError, match="symlink"):
            storage.write(key, b"x", new=True)
    storage.remove_folder("out")
    assert (list(storage.children("out")), list(storage.walk("out"))) == ([], [])
    assert {stat.key: stat.kind for stat in storage.children()} == {
        "file": Kind.FILE,
        "out": Kind.LINK,
        "secret": Kind.LINK,
        "new": Kind.LINK,
        **({".scipion-cloud": Kind.FOLDER} if (root / ".scipion-cloud").exists() else {}),
    }
    assert {file.name for file in outside.iterdir()} == {"empty", "secret"}
    assert (outside / "secret").read_text() == "secret"


def test_pipes_and_sockets_are_left_alone(storage: Posix, root: Path) -> None:
    storage.write("a/file", b"x")
    os.mkfifo(root / "a" / "pipe")
    assert [stat.key for stat in storage.walk("a")] == ["a/file"]
    for ask in (storage.stat, storage.read_bytes):
        with pytest.raises(StorageError, match="pipe"):
            ask("a/pipe")
    with pytest.raises(StorageError):
        storage.write("a/pipe", b"x", new=True)


def test_the_folder_is_made_where_there_is_a_place_for_it(tmp_path: Path) -> None:
    storage = Posix(str(tmp_path / "new"))
    assert list(storage.walk()) == []
    assert not (tmp_path / "new").exists()
    storage.create("a", b"x")
    assert (tmp_path / "new" / "a").read_bytes() == b"x"
    far = Posix(str(tmp_path / "not mounted" / "new"))
    asked: list[Callable[[], object]] = [
        lambda: far.write("a", b"x"),
        lambda: far.create("a/b", b"x"),
        lambda: list(far.walk()),
    ]
    for ask in asked:
        with pytest.raises(StorageError, match=r"not mounted: make it, or mount"):
            ask()
    assert not (tmp_path / "not mounted").exists()
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match="is a file"):
        Posix(str(tmp_path / "file")).write("a", b"x")


def test_a_link_to_the_folder_itself_is_fine(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "data").symlink_to("disk")
    with Posix(str(tmp_path / "data")) as storage:
        storage.write("a/b", b"x")
        assert [stat.key for stat in storage.walk("a")] == ["a/b"]
    assert (tmp_path / "disk" / "a" / "b").read_bytes() == b"x"


def test_an_url_names_any_folder(tmp_path: Path) -> None:
    folder = tmp_path / os.fsdecode(b"a #?%20 \xff")
    folder.mkdir()
    with Posix(str(folder)) as storage:
        storage.write("file", b"x")
    with open_storage(storage.url) as again:
        assert again.read_bytes("file") == b"x"
        assert again.url == storage.url


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
@pytest.mark.parametrize("new", [False, True])
def test_a_quota(storage: Posix, root: Path, monkeypatch: pytest.MonkeyPatch, number: int, new: bool) -> None:
    storage.write("file", b"old")
    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", refuse(number))
        with pytest.raises(StorageFull, match="space"):
            storage.write("other", b"new", new=new)
        with pytest.raises(StorageFull, match="space"):
            storage.create("c", b"x")
    assert [stat.key for stat in storage.walk()] == ["file"]
    assert litter(root) == []


def test_a_full_disk(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", disk], check=True)
    try:
        with Posix(str(disk / "root")) as storage, (tmp_path / "big").open("w+b") as big:
            big.truncate(5_000_000)
            storage.write("file", b"x" * 3_000_000)
            for new in (False, True):
                with pytest.raises(StorageFull):
                    storage.write("big", big, new=new)
            with pytest.raises(StorageFull):
                storage.write_new([NewFile("big", b"y" * 3_000_000)])
            with pytest.raises(StorageFull):
                storage.write("file", b"y" * 3_000_000)
            assert storage.read_bytes("file") == b"x" * 3_000_000
            assert [stat.key for stat in storage.walk()] == ["file"]
            storage.write("file", b"z")
            storage.write("file", b"y" * 3_000_000)
    finally:
        subprocess.run(["umount", "--lazy", disk], check=True)


@pytest.mark.parametrize("new", [False, True])
def test_an_error_of_the_source_is_not_one_of_the_storage(
    storage: Posix, root: Path, monkeypatch: pytest.MonkeyPatch, new: bool
) -> None:
    """Only the storage's is worth another attempt."""
    with pytest.raises(OSError, match="Input/output error"):
        storage.write("file", source(1_000_000, fails=700_000), new=new)
    monkeypatch.setattr(os, "pwrite", refuse(errno.EIO))
    with pytest.raises(StorageTransient):
        storage.write("file", source(1_000_000), new=new)
    assert list(storage.walk()) == []
    assert litter(root) == []


def test_a_create_whose_answer_was_lost(storage: Posix, monkeypatch: pytest.MonkeyPatch) -> None:
    """NFS asks a second time, and is told that the file is there: it is the one that it made."""
    link = os.link

    def twice(*args: Any, **kwargs: Any) -> None:
        link(*args, **kwargs)
        link(*args, **kwargs)

    monkeypatch.setattr(os, "link", twice)
    storage.create("a", b"mine")
    assert storage.read_bytes("a") == b"mine"
    assert len(list(storage.walk())) == 1


def test_a_folder_that_somebody_removes_again_and_again(
    storage: Posix, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mkdir = os.mkdir

    def removed(name: str, **kwargs: Any) -> None:
        mkdir(name, **kwargs)
        os.rmdir(name, **kwargs)

    storage.write("file", b"x")
    monkeypatch.setattr(os, "mkdir", removed)
    with pytest.raises(StorageTransient):
        storage.write("a/b", b"x")


WRITER = """
import sys
from scipion_cloud.storage.posix import Posix
storage = Posix(sys.argv[1])
n = 0
while True:
    n += 1
    storage.write("file", bytes([n % 256]) * 3_000_000)
    if n == 1:
        print("ready", flush=True)
"""


def test_killed_while_it_writes(storage: Posix, root: Path) -> None:
    for n in range(4):
        writer = subprocess.Popen([sys.executable, "-c", WRITER, root], stdout=subprocess.PIPE)
        assert writer.stdout is not None
        assert writer.stdout.readline() == b"ready\n"
        time.sleep(0.017 * n)  # anywhere in a write
        writer.send_signal(signal.SIGKILL)
        writer.communicate()
        content = storage.read_bytes("file")
        assert content == content[:1] * 3_000_000
    assert {stat.key for stat in storage.walk()} - {
        f".scipion-cloud/tmp/{name}" for name in litter(root)
    } == {"file"}
