"""Small files: many in one call."""

from contextlib import suppress
from datetime import UTC, datetime

import pytest

from scipion_cloud.errors import InvalidInput, StorageError
from scipion_cloud.storage import NewFile, Storage
from scipion_cloud.testing.storage.common import keys, noise

WHEN = datetime(2024, 2, 29, 12, 30, 15, tzinfo=UTC)
CONTENTS = {
    "top": b"1",
    "a/b/empty": b"",
    "a/b/long": noise(70_000),
    "a/c": noise(300, seed=1),
    "a/b/d": b"\0\n",
    "e f/g#": b"2",
} | {f"many/{n}": noise(n, seed=n) for n in range(100)}


class Batches:
    """Small files in batches."""

    def test_many_are_put_and_read(self, storage: Storage) -> None:
        storage.write_new([NewFile(key, content, WHEN) for key, content in CONTENTS.items()])
        storage.flush()
        assert keys(storage) == CONTENTS.keys()
        assert {key: storage.read_bytes(key) for key in list(CONTENTS)[:10]} == dict(
            list(CONTENTS.items())[:10]
        )
        found = storage.read_small([(key, len(content) + 1) for key, content in CONTENTS.items()])
        assert dict(zip(CONTENTS, found, strict=True)) == CONTENTS
        if storage.capabilities.mtime:
            assert {storage.stat(key).modified for key in ("top", "a/b/empty", "a/b/long")} == {WHEN}

    def test_what_was_cut_off_is_put_again(self, storage: Storage) -> None:
        storage.write_new([NewFile("a/b", noise(5000)), NewFile("a/c", b"")])
        storage.write_new([NewFile("a/b", b"short"), NewFile("a/c", b"c")])
        assert storage.read_small([("a/b", 10), ("a/c", 10)]) == [b"short", b"c"]

    def test_nothing_to_do(self, storage: Storage) -> None:
        storage.write_new([])
        assert storage.read_small([]) == []
        assert keys(storage) == set()

    def test_beginnings(self, storage: Storage) -> None:
        storage.write("a/b", b"0123456789")
        assert storage.read_small([("a/b", 4), ("a/b", 10), ("a/b", 1)]) == [b"0123", b"0123456789", b"0"]

    def test_what_is_no_file_is_passed_over(self, storage: Storage) -> None:
        storage.write("a/b", b"b")
        storage.write("top", b"t")
        odd = ["missing", "a", "a/missing", "no/folder", "top/below"]
        wanted = [(key, 9) for name in odd for key in (name, "a/b", "top")]
        assert storage.read_small(wanted) == [None, b"b", b"t"] * len(odd)

    def test_links_are_followed_no_more_than_by_read(self, storage: Storage) -> None:
        if not storage.capabilities.symlinks:
            return
        storage.write("a/b", b"b")
        storage.symlink("a/link", b"b")
        expected: bytes | None = None
        with suppress(StorageError):
            expected = storage.read_bytes("a/link")
        assert storage.read_small([("a/link", 9), ("a/b", 9)]) == [expected, b"b"]

    def test_a_file_in_the_way_of_a_folder(self, storage: Storage) -> None:
        if not storage.capabilities.folders:
            return
        storage.write("a", b"a")
        with pytest.raises(StorageError):
            storage.write_new([NewFile("b/c", b"c"), NewFile("a/b", b"b")])
        assert storage.read_bytes("a") == b"a"

    def test_a_wrong_key(self, storage: Storage) -> None:
        with pytest.raises(InvalidInput):
            storage.write_new([NewFile("../a", b"a")])
        with pytest.raises(InvalidInput):
            storage.read_small([("a", 1), ("../a", 1)])
