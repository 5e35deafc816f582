"""Files: written, read whole and in part, replaced, moved, removed."""

import io
import os
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import pytest

from scipion_cloud.errors import InvalidInput, StorageError, StorageExists, StorageMissing
from scipion_cloud.storage import Kind, Storage
from scipion_cloud.testing.storage.common import at_once, children, keys, noise

BIG = noise(20 * 1024 * 1024 + 1)  # more than one part of any multipart upload
SMALL = b"0123456789"

# start, length -> what is read of SMALL
RANGES = [
    (0, None, SMALL),
    (0, 4, b"0123"),
    (3, 4, b"3456"),
    (3, None, b"3456789"),
    (9, 1, b"9"),
    (8, 100, b"89"),
    (0, 0, b""),
    (5, 0, b""),
    (10, None, b""),
    (10, 5, b""),
    (11, None, b""),
    (1000, 5, b""),
]


class Files:
    """Files."""

    secrets: tuple[str, ...]

    @pytest.fixture
    def local(self, tmp_path_factory: pytest.TempPathFactory) -> Path:
        """A folder that is not the one that the storage may be in."""
        return tmp_path_factory.mktemp("local")

    @pytest.mark.parametrize("new", [False, True])
    @pytest.mark.parametrize("content", [b"", b"x", noise(300_000)], ids=["empty", "one", "chunks"])
    def test_what_is_written_is_read(self, storage: Storage, content: bytes, new: bool) -> None:
        storage.write("a/b/file", content, new=new)
        storage.flush()
        assert storage.read_bytes("a/b/file") == content
        assert b"".join(storage.read("a/b/file")) == content
        assert storage.stat("a/b/file").size == len(content)
        assert keys(storage) == {"a/b/file"}

    @pytest.mark.parametrize(("start", "length", "expected"), RANGES)
    def test_ranges(self, storage: Storage, start: int, length: int | None, expected: bytes) -> None:
        storage.write("file", SMALL)
        assert b"".join(storage.read("file", start, length)) == expected

    @pytest.mark.parametrize(("start", "length"), [(0, None), (0, 0), (1, None), (0, 5)])
    def test_ranges_of_nothing(self, storage: Storage, start: int, length: int | None) -> None:
        storage.write("file", b"")
        assert b"".join(storage.read("file", start, length)) == b""

    def test_a_big_file(self, storage: Storage, local: Path) -> None:
        (local / "big").write_bytes(BIG)
        storage.write("big", b"old")
        with (local / "big").open("rb") as content:
            content.seek(1000)  # it is written from its beginning all the same
            storage.write("big", content)
        assert storage.stat("big").size == len(BIG)
        chunks = list(storage.read("big"))
        assert b"".join(chunks) == BIG
        assert max(map(len, chunks)) <= 16 * 1024 * 1024, "a file does not have to fit into memory"
        assert b"".join(storage.read("big", 10_000_000, 1_000_000)) == BIG[10_000_000:11_000_000]
        assert storage.download("big", self._target(local)) == len(BIG)
        assert (local / "target").read_bytes() == BIG
        for _ in range(20):  # a read that is given up gives back its connection
            chunk = iter(storage.read("big"))
            next(chunk)
            del chunk
        storage.write("big", BIG[::-1])
        assert b"".join(storage.read("big")) == BIG[::-1]

    def _target(self, folder: Path) -> int:
        return os.open(folder / "target", os.O_RDWR | os.O_CREAT | os.O_TRUNC)

    def test_parts_are_downloaded_to_their_places(self, storage: Storage, local: Path) -> None:
        content = noise(1_000_001)
        storage.write("file", content)
        fd = self._target(local)
        parts = [(n * 250_000, 250_000) for n in range(5)]
        done = at_once([partial(storage.download, "file", fd, *part) for part in parts])
        assert done == [250_000] * 4 + [1]
        assert (local / "target").read_bytes() == content
        os.ftruncate(fd, 0)
        assert storage.download("file", fd, 999_999) == 2
        assert os.pread(fd, 10, 999_999) == content[-2:]
        assert storage.download("file", fd, 2_000_000) == 0
        os.close(fd)

    def test_a_download_that_the_disk_refuses(self, storage: Storage, local: Path) -> None:
        storage.write("file", SMALL)
        (local / "target").touch()
        fd = os.open(local / "target", os.O_RDONLY)
        with pytest.raises(OSError):  # noqa: PT011 - any: the disk's, not the storage's
            storage.download("file", fd)
        os.close(fd)

    def test_replaced_by_longer_and_shorter(self, storage: Storage) -> None:
        for content in (b"one", b"twotwo", b"3", b"", b"five", io.BytesIO(b"six six"), io.BytesIO(b"")):
            storage.write("a/file", content)
            expected = content if isinstance(content, bytes) else content.getvalue()
            assert storage.read_bytes("a/file") == expected
            assert storage.stat("a/file").size == len(expected)
        assert keys(storage) == {"a/file"}

    def test_stat(self, storage: Storage) -> None:
        storage.write("a/file", SMALL)
        stat = storage.stat("a/file")
        assert (stat.key, stat.kind, stat.size) == ("a/file", Kind.FILE, 10)
        (listed,) = storage.children("a")
        assert (listed.key, listed.kind, listed.size) == ("a/file", Kind.FILE, 10)
        assert abs(listed.modified - stat.modified) < timedelta(seconds=1)
        (walked,) = storage.walk("a")
        assert walked == listed

    def test_modified_is_the_servers_time(self, storage: Storage) -> None:
        """The lease on a project is judged by it."""
        storage.write("file", b"0")
        first = storage.stat("file").modified
        assert first.utcoffset() == timedelta(0)
        assert abs(first - datetime.now(UTC)) < timedelta(minutes=10)  # the server is of this machine
        deadline = time.monotonic() + 60
        last = first
        while last == first:  # to the second only, maybe
            assert time.monotonic() < deadline, "writing does not show in the time"
            time.sleep(0.05)
            storage.write("file", b"1")
            last = storage.stat("file").modified
        assert first < last < first + timedelta(minutes=10)

    def test_the_time_that_is_given(self, storage: Storage) -> None:
        given = datetime(2001, 2, 3, 4, 5, 6, 700_000, UTC)
        storage.write("file", SMALL, mtime=given)
        storage.write("new", io.BytesIO(SMALL), mtime=given, new=True)
        for key in ("file", "new"):
            assert storage.read_bytes(key) == SMALL
            kept = abs(storage.stat(key).modified - given) < timedelta(seconds=1)
            assert kept or not storage.capabilities.mtime
        storage.write("file", SMALL)
        assert storage.stat("file").modified > given + timedelta(days=1000)

    def test_create(self, storage: Storage) -> None:
        storage.create("locks/1", b"mine")
        for content in (b"yours", b"mine", b""):
            with pytest.raises(StorageExists):
                storage.create("locks/1", content)
        assert storage.read_bytes("locks/1") == b"mine"
        storage.create("locks/2", b"")
        assert storage.read_bytes("locks/2") == b""
        content = noise(1_000_000)
        storage.create("generations/1", content)
        assert storage.read_bytes("generations/1") == content
        storage.remove("locks/1")
        storage.create("locks/1", b"yours")
        storage.write("locks/1", b"renewed")
        with pytest.raises(StorageExists):
            storage.create("locks/1", b"mine")
        assert storage.read_bytes("locks/1") == b"renewed"
        assert keys(storage) == {"locks/1", "locks/2", "generations/1"}

    def test_move(self, storage: Storage) -> None:
        storage.write("a/one", b"1")
        storage.move("a/one", "b/c/two")  # to folders that are not there
        assert keys(storage) == {"b/c/two"}
        assert storage.read_bytes("b/c/two") == b"1"
        storage.write("three", b"333")
        storage.move("b/c/two", "three")
        assert storage.read_bytes("three") == b"1"
        assert keys(storage) == {"three"}
        storage.move("three", "three")
        assert storage.read_bytes("three") == b"1"

    def test_move_of_what_is_missing(self, storage: Storage) -> None:
        storage.write("target", SMALL)
        for source in ("nothing", "no/thing", "target/x"):
            with pytest.raises(StorageMissing):
                storage.move(source, "target")
        with pytest.raises(StorageMissing):
            storage.move("nothing", "new/place")
        assert storage.read_bytes("target") == SMALL
        assert keys(storage) == {"target"}

    def test_move_of_a_big_file(self, storage: Storage) -> None:
        storage.write("big", BIG, new=True)
        storage.move("big", "kept/big")
        assert storage.read_bytes("kept/big") == BIG
        assert keys(storage) == {"kept/big"}

    def test_remove(self, storage: Storage) -> None:
        for key in ("a/file", "a/other"):
            storage.write(key, SMALL)
        storage.remove("a/file")
        storage.remove("a/file")
        storage.remove("no/such/thing")
        storage.remove("a/other/below")  # a file is no folder
        assert keys(storage) == {"a/other"}
        with pytest.raises(StorageMissing):
            storage.stat("a/file")

    @pytest.mark.parametrize("key", ["nothing", "no/thing", "file/below"])
    def test_missing(self, storage: Storage, key: str, local: Path) -> None:
        storage.write("file", SMALL)
        fd = self._target(local)
        asked: list[Callable[[], object]] = [
            lambda: storage.stat(key),
            lambda: list(storage.read(key)),
            lambda: list(storage.read(key, 3, 4)),
            lambda: storage.read_bytes(key),
            lambda: storage.download(key, fd),
        ]
        for ask in asked:
            with pytest.raises(StorageMissing):
                ask()
        os.close(fd)

    def test_no_secret_is_shown(self, storage: Storage) -> None:
        shown = [storage.url, repr(storage), str(storage)]
        failing: list[Callable[[], object]] = [
            lambda: storage.stat("missing"),
            lambda: storage.read_bytes("missing"),
            lambda: storage.move("missing", "a"),
            lambda: storage.create("taken", b""),
            lambda: storage.stat("../a"),
        ]
        storage.create("taken", b"")
        for fail in failing:
            with pytest.raises((StorageError, InvalidInput)) as caught:
                fail()
            shown.append("".join(traceback.format_exception(caught.value)))
        children(storage)
        assert not [secret for secret in self.secrets for text in shown if secret in text]

    def test_closed_twice(self, storage: Storage) -> None:
        with storage as same:
            assert same is storage
            storage.write("file", SMALL)
        with suppress(StorageError):
            storage.close()
