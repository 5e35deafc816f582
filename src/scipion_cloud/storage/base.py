"""The contract that every storage fulfils; `scipion_cloud.testing.storage` tests it.

A key is a path below the storage's root: text, '/' between its parts, none of them empty, '.' or '..'. Where
a storage can hold any POSIX name (`Capabilities.byte_names`), bytes that are not UTF-8 are lone surrogates in
the key, as `os.fsdecode` makes them.
"""

import os
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from io import BytesIO
from typing import BinaryIO, Self
from unicodedata import category, is_normalized

from scipion_cloud.errors import InvalidInput, StorageError, StorageTransient

CHUNK = 256 * 1024  # bytes; larger buffers are slower, since they fall out of the processor's cache


class Kind(StrEnum):
    """What stands under a key."""

    FILE = "file"
    FOLDER = "folder"
    LINK = "link"


@dataclass(frozen=True, slots=True)
class Stat:
    """One file, folder or symlink of a storage."""

    key: str
    kind: Kind
    size: int  # bytes; 0 unless it is a file
    modified: datetime  # UTC, by the storage's own clock


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What a storage can do. Each backend tells what it promises; `selftest` finds out what holds."""

    exclusive_create: bool  # of many that create one key at the same time, one succeeds
    rename: bool  # `move` is one step of the server, whatever the size; else it copies and deletes
    symlinks: bool
    folders: bool  # empty folders exist
    ranges: bool  # a part of a file can be read without its beginning
    mtime: bool  # `write` keeps the time it is given
    byte_names: bool  # any POSIX name; else names are text in NFC without control characters
    max_key: int = 4096  # bytes of UTF-8
    max_name: int = 255  # bytes of one part
    parallel: int = 8  # threads that are best used for small files
    batch: int = 1  # small files that are best given to `write_new` and `read_small` at once


@dataclass(frozen=True, slots=True)
class NewFile:
    """A small file for a key at which nothing stands."""

    key: str
    content: bytes
    mtime: datetime | None = None


class Storage(ABC):
    """A place of files.

    Safe to use from many threads. Every method may raise StorageDenied, StorageTransient (nobody knows
    whether it was carried out; the same call again is right), StorageFull or StorageError, and InvalidInput
    for a key that cannot be one. Storages do not try again by themselves: `Retrying` does.
    """

    @property
    @abstractmethod
    def url(self) -> str:
        """Where it is, without any secret; `open_storage` takes it."""

    @property
    @abstractmethod
    def capabilities(self) -> Capabilities:
        """What it promises to be able to do."""

    @abstractmethod
    def children(self, folder: str = "") -> Iterator[Stat]:
        """What stands directly in a folder ("" is the root), in any order. A folder that is missing is empty.

        Symlinks are told as such and never followed.
        """

    @abstractmethod
    def walk(self, folder: str = "") -> Iterator[Stat]:
        """All files and symlinks below a folder, without the folders, in any order; not through symlinks."""

    @abstractmethod
    def stat(self, key: str) -> Stat:
        """What stands under a key. Raises StorageMissing."""

    @abstractmethod
    def read(self, key: str, start: int = 0, length: int | None = None) -> Iterator[bytes]:
        """The bytes of a file in chunks, from `start`, `length` of them at most; fewer at its end.

        Raises StorageMissing, at the latest with the first chunk; StorageTransient if the connection ends
        before the last byte that was promised.
        """

    @abstractmethod
    def write(
        self, key: str, content: BinaryIO | bytes, *, mtime: datetime | None = None, new: bool = False
    ) -> None:
        """Put all of `content` (bytes, or a file from its beginning) under a key; folders are made as needed.

        The size is the one at the time of the call: what is appended later is left out, and a content that
        ends early raises StorageError. What reading the content raises comes through.

        Readers see the old file or the whole new one, never anything between, also if this is cut off at any
        byte. With `new` the caller says that nothing stands there and nobody will read it before `flush`:
        the storage may then write in place.
        Durable after `flush`.
        """

    def write_new(self, files: Sequence[NewFile]) -> None:
        """Put all of these, each as `write` does with `new`. Any of them may be there if this is cut off."""
        for file in files:
            self.write(file.key, file.content, mtime=file.mtime, new=True)

    @abstractmethod
    def create(self, key: str, content: bytes) -> None:
        """Put a small file under a key at which nothing stands, whole at once. Raises StorageExists.

        After StorageTransient it may be there; the caller compares what is there with what it wrote.
        """

    @abstractmethod
    def move(self, source: str, target: str) -> None:
        """Give a file or symlink another key, replacing what stands there. Raises StorageMissing."""

    @abstractmethod
    def remove(self, key: str) -> None:
        """Remove a file or symlink; one that is missing is fine."""

    def make_folder(self, key: str) -> None:
        """Make a folder and those above it; one that is there is fine. Nothing where there are no folders."""

    def remove_folder(self, key: str) -> None:
        """Remove a folder if it is there and empty, else nothing."""

    def symlink(self, key: str, target: bytes) -> None:
        """Put a symlink under a key, replacing a file or symlink. Only where `capabilities.symlinks`."""
        raise NotImplementedError

    def readlink(self, key: str) -> bytes:
        """What a symlink says. Only where `capabilities.symlinks`. Raises StorageMissing."""
        raise NotImplementedError

    def download(self, key: str, fd: int, start: int = 0, length: int | None = None) -> int:
        """Write the bytes of a file to an open local file, each at its own place; how many these were.

        Raises what `read` raises, and OSError if the local file cannot take them.
        """
        done = 0
        for chunk in self.read(key, start, length):
            view = memoryview(chunk)
            while view:
                written = os.pwrite(fd, view, start + done)
                done += written
                view = view[written:]
        return done

    def read_small(self, wanted: Sequence[tuple[str, int]]) -> list[bytes | None]:
        """The beginnings of files: of each key so many bytes, or fewer.

        For who knows what to expect: None, or too few, is no error, since `read` tells more of that file.
        """
        found: list[bytes | None] = []
        for key, length in wanted:
            try:
                found.append(b"".join(self.read(key, 0, length)))
            except StorageTransient:
                raise
            except StorageError:
                found.append(None)
        return found

    def read_bytes(self, key: str) -> bytes:
        """All of a small file."""
        return b"".join(self.read(key))

    def flush(self) -> None:
        """On return all that was written before survives a power cut, where the server can promise it."""

    def close(self) -> None:
        """Give back connections. A storage that is closed is not used again."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def check_key(key: str, able: Capabilities | None = None) -> str:
    """The key itself. Raises InvalidInput unless it can be one, in a storage that is able of this."""
    parts = key.split("/")
    if "\0" in key or "" in parts or "." in parts or ".." in parts:
        raise InvalidInput(f"{key!r} cannot be a key in a storage: use a relative path without '.' and '..'.")
    if able is not None:
        _check_able(key, able)
    return key


def _check_able(key: str, able: Capabilities) -> None:
    """Raises InvalidInput for a key that is too long, or of characters that this storage cannot hold."""
    try:
        raw = key.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError as e:
        raise InvalidInput(f"{key!r} cannot be a key in a storage: it is no text.") from e
    if len(raw) > able.max_key:
        raise InvalidInput(f"{key[:40]!r}... has {len(raw)} bytes; this storage takes {able.max_key}.")
    if (longest := max(map(len, raw.split(b"/")))) > able.max_name:
        raise InvalidInput(
            f"A name in {key[:300]!r} has {longest} bytes; this storage takes {able.max_name}."
        )
    if not able.byte_names and not (key.isascii() and key.isprintable()) and not is_plain(key):
        raise InvalidInput(
            f"This storage holds no names with control characters or not in Unicode's NFC: {key!r}."
        )


def is_plain(key: str) -> bool:
    """Whether every storage can hold these characters: text in NFC without control characters."""
    return is_normalized("NFC", key) and not any(
        category(c) in ("Cc", "Cs") or c in "\ufffe\uffff" for c in key
    )


def size_of(content: BinaryIO | bytes) -> int:
    """How many bytes `write` is to put."""
    if isinstance(content, bytes):
        return len(content)
    try:
        return os.fstat(content.fileno()).st_size
    except OSError:  # not a file of the system (io.UnsupportedOperation is an OSError)
        place = content.tell()
        size = content.seek(0, os.SEEK_END)
        content.seek(place)
        return size


def chunks_of(content: BinaryIO | bytes, size: int, chunk: int = CHUNK) -> Iterator[bytes]:
    """The first `size` bytes (`size_of(content)`), from the beginning of `content`.

    Raises StorageError if there are fewer, and what reading the content raises.
    """
    if isinstance(content, bytes):
        if size <= chunk:
            yield content
            return
        content = BytesIO(content)
    content.seek(0)
    left = size
    while left:
        data = content.read(min(chunk, left))
        if not data:
            raise StorageError(f"A file became {left} bytes shorter while it was stored. Store it again.")
        left -= len(data)
        yield data
