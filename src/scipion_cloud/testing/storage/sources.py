"""What happens when the content of a write fails, ends early, or is more than it said."""

import io
import os
from typing import Any, BinaryIO, cast

import pytest

from scipion_cloud.errors import StorageError
from scipion_cloud.storage import Storage
from scipion_cloud.testing.storage.common import children, keys, noise

SIZES = [10, 300_000, 20 * 1024 * 1024]  # one request, some chunks, multipart


class Source(io.RawIOBase):
    """A file that says to have `size` bytes, has `there`, and fails after `fails`; a read gives few bytes."""

    def __init__(self, size: int, there: int | None = None, fails: int | None = None) -> None:
        self.size = size
        self.there = size if there is None else there
        self.fails = fails
        self.place = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self.place

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        self.place = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self.place, os.SEEK_END: self.size}[whence]
        return self.place

    def readinto(self, buffer: Any, /) -> int:
        if self.fails is not None and self.place >= self.fails:
            raise OSError(5, "Input/output error")
        view = memoryview(buffer).cast("B")
        end = self.there if self.fails is None else min(self.there, self.fails)
        count = max(0, min(len(view), 100_000, end - self.place))
        view[:count] = b"n" * count
        self.place += count
        return count


def source(size: int, there: int | None = None, fails: int | None = None) -> BinaryIO:
    """Such a file, as `write` takes it."""
    return cast(BinaryIO, Source(size, there, fails))


class Sources:
    """Contents that are not what they seem."""

    @pytest.mark.parametrize("new", [False, True])
    def test_reads_of_few_bytes(self, storage: Storage, new: bool) -> None:
        storage.write("file", source(1_000_000), new=new)
        assert storage.read_bytes("file") == b"n" * 1_000_000

    @pytest.mark.parametrize("size", SIZES)
    @pytest.mark.parametrize("at", [0.0, 0.9])
    def test_a_content_that_fails_leaves_the_old_file(self, storage: Storage, size: int, at: float) -> None:
        old = noise(1000)
        storage.write("a/file", old)
        with pytest.raises((OSError, StorageError)):
            storage.write("a/file", source(size, fails=int(size * at)))
        assert storage.read_bytes("a/file") == old
        with pytest.raises((OSError, StorageError)):
            storage.write("a/other", source(size, fails=int(size * at)))
        assert keys(storage) == {"a/file"}
        assert set(children(storage)) == {"a"}
        assert set(children(storage, "a")) == {"a/file"}
        storage.write("a/file", b"new")
        assert storage.read_bytes("a/file") == b"new"

    @pytest.mark.parametrize("size", SIZES)
    def test_a_content_that_ends_early_leaves_the_old_file(self, storage: Storage, size: int) -> None:
        storage.write("file", b"old")
        with pytest.raises((OSError, StorageError)):
            storage.write("file", source(size, there=size // 2))
        assert storage.read_bytes("file") == b"old"
        assert keys(storage) == {"file"}

    @pytest.mark.parametrize("size", [0, *SIZES])
    def test_a_content_that_has_grown_is_cut_at_its_size(self, storage: Storage, size: int) -> None:
        """A log that somebody appends to: what was there at the time of the call is a whole version of it."""
        storage.write("file", source(size, there=size + 200_000))
        assert storage.stat("file").size == size
        assert storage.read_bytes("file") == b"n" * size
