"""Folders of this machine, or of a file system that is mounted on it: file:///data/projects/apoferritin.

Nothing in a storage can lead out of it: each folder on the way to a file is opened from the one above it, and
a symlink is no folder.
"""

import errno
import os
import stat
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import datetime
from itertools import count, groupby
from pathlib import Path
from threading import Lock
from typing import BinaryIO
from urllib.parse import SplitResult, quote, unquote

from scipion_cloud.errors import InvalidInput, StorageError, StorageExists, StorageMissing
from scipion_cloud.storage import linux
from scipion_cloud.storage.base import (
    CHUNK,
    Capabilities,
    Kind,
    NewFile,
    Stat,
    Storage,
    check_key,
    chunks_of,
    size_of,
)
from scipion_cloud.storage.linux import Explained

TEMPORARY = (".scipion-cloud", "tmp")

_ON_THE_WAY = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW
_LISTED = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK  # a named pipe must not hold us up
_IN_PLACE = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_NONBLOCK
_FRESH = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW

_ABLE = Capabilities(
    exclusive_create=True,
    rename=True,
    symlinks=True,
    folders=True,
    ranges=True,
    mtime=True,
    byte_names=True,
    parallel=1,  # a file takes so few microseconds that threads would mostly wait for the interpreter
    batch=64,
)


def connect(url: SplitResult, credentials: Mapping[str, str]) -> "Posix":  # noqa: ARG001 - it needs none
    """The folder of a file:// URL. Raises InvalidInput."""
    if url.netloc not in ("", "localhost"):
        raise InvalidInput(
            errors={"url": f"A folder of this machine has three slashes: file:///{url.netloc}..."}
        )
    path = unquote(url.path, errors="surrogateescape")
    parts = [part for part in path.split("/") if part not in ("", ".")]
    if not path.startswith("/") or not parts or ".." in parts or "\0" in path:
        raise InvalidInput(
            errors={"url": f"{url.geturl()!r} names no folder. It looks like file:///data/projects."}
        )
    return Posix("/" + "/".join(parts))


class Posix(Storage):
    """The folder at an absolute path; made with the first write if the one above it is there."""

    def __init__(self, root: str) -> None:
        self.root = root
        self._mark = os.urandom(6).hex()
        self._numbers = count()
        self._lock = Lock()
        self._root_fd = (
            -1
        )  # from the first write on, since only it learns of all that fails to reach the disk
        self._fsync = False
        self._able: Capabilities | None = None

    def __repr__(self) -> str:
        return f"Posix({self.root!r})"

    @property
    def url(self) -> str:
        return f"file://{quote(os.fsencode(self.root))}"

    @property
    def capabilities(self) -> Capabilities:
        """What file systems promise. Those that wait for a network gain by threads."""
        if self._able is None:
            local = True
            with suppress(OSError):  # neither there nor made yet: whoever uses it is told so
                near = Path(self.root)
                local = linux.is_local(str(near if near.exists() else near.parent))
            self._able = _ABLE if local else replace(_ABLE, parallel=8)
        return self._able

    def children(self, folder: str = "") -> Iterator[Stat]:
        prefix = f"{check_key(folder, _ABLE)}/" if folder else ""
        with Explained(folder), self._listing(folder) as entries:
            for entry in entries:
                if told := _told(entry, prefix):
                    yield told

    def walk(self, folder: str = "") -> Iterator[Stat]:
        todo = [folder]
        while todo:
            for told in self.children(todo.pop()):
                if told.kind is Kind.FOLDER:
                    todo.append(told.key)
                else:
                    yield told

    def stat(self, key: str) -> Stat:
        check_key(key, _ABLE)
        with Explained(key), self._place(key) as (folder, name):
            found = linux.stat_of(key, os.stat(name, dir_fd=folder, follow_symlinks=False))
        if found is None:
            raise StorageError(f"{key!r} is neither a file nor a folder nor a symlink.")
        return found

    def read(self, key: str, start: int = 0, length: int | None = None) -> Iterator[bytes]:
        with self._open(key) as fd, Explained(key):
            end = None if length is None else start + length
            while chunk := os.pread(fd, CHUNK if end is None else min(CHUNK, end - start), start):
                yield chunk
                start += len(chunk)

    def read_small(self, wanted: Sequence[tuple[str, int]]) -> list[bytes | None]:
        for key, _ in wanted:
            check_key(key, _ABLE)
        found: list[bytes | None] = []
        for _, together in groupby(wanted, key=lambda one: _parent(one[0])):
            some = list(together)
            try:
                with self._place(some[0][0]) as (folder, _):
                    found += [self._beginning(folder, key, length) for key, length in some]
            except StorageMissing:
                found += [None] * len(some)
        return found

    def _beginning(self, folder: int | None, key: str, length: int) -> bytes | None:
        """The first bytes of a file in an open folder; None if there is no file that can be read."""
        try:
            fd = os.open(self._name(folder, key), _READ, dir_fd=folder)
        except OSError:
            return None
        try:
            return os.pread(fd, length, 0) if stat.S_ISREG(os.fstat(fd).st_mode) else None
        except OSError:
            return None
        finally:
            os.close(fd)

    def download(self, key: str, fd: int, start: int = 0, length: int | None = None) -> int:
        with self._open(key) as source:
            with Explained(key):
                there = max(0, os.fstat(source).st_size - start)
            wanted = there if length is None else min(there, length)
            done = linux.copy_range(source, fd, start, wanted)
            while done < wanted:  # where the kernel does not copy by itself
                with Explained(key):
                    chunk = os.pread(source, min(CHUNK, wanted - done), start + done)
                if not chunk:
                    break
                linux.put(fd, chunk, start + done)
                done += len(chunk)
        return done

    def write(
        self, key: str, content: BinaryIO | bytes, *, mtime: datetime | None = None, new: bool = False
    ) -> None:
        check_key(key, _ABLE)
        size = size_of(content)
        with self._place(key, make=True) as (folder, name):
            if new:
                self._fill(key, folder, name, _IN_PLACE, content, size, mtime)
                return
            with self._temporary() as (tmp, temporary):
                self._fill(key, tmp, temporary, _FRESH, content, size, mtime)
                with Explained(key, making=True):
                    os.rename(temporary, name, src_dir_fd=tmp, dst_dir_fd=folder)

    def write_new(self, files: Sequence[NewFile]) -> None:
        for file in files:
            check_key(file.key, _ABLE)
        for _, together in groupby(files, key=lambda file: _parent(file.key)):
            some = list(together)
            with self._place(some[0].key, make=True) as (folder, _):
                for file in some:
                    name, size = self._name(folder, file.key), len(file.content)
                    self._fill(file.key, folder, name, _IN_PLACE, file.content, size, file.mtime)

    def create(self, key: str, content: bytes) -> None:
        check_key(key, _ABLE)
        with self._place(key, make=True) as (folder, name), self._temporary() as (tmp, temporary):
            # to the disk first: after a power cut there must be no empty file that nobody may replace
            self._fill(key, tmp, temporary, _FRESH, content, len(content), None, sync=True)
            with Explained(key, making=True):
                fresh = linux.put_new(tmp, temporary, folder, name)
            if not fresh:
                raise StorageExists(f"{key!r} is there already.")

    def move(self, source: str, target: str) -> None:
        check_key(source, _ABLE)
        check_key(target, _ABLE)
        try:
            self._rename(source, target, make=False)
        except StorageMissing:
            self.stat(source)  # else it is the target's folder that is missing
            self._rename(source, target, make=True)

    def _rename(self, source: str, target: str, make: bool) -> None:
        with (
            Explained(source),
            self._place(source) as (from_folder, from_name),
            self._place(target, make=make) as (to_folder, to_name),
        ):
            os.rename(from_name, to_name, src_dir_fd=from_folder, dst_dir_fd=to_folder)

    def remove(self, key: str) -> None:
        check_key(key, _ABLE)
        with suppress(StorageMissing), Explained(key), self._place(key) as (folder, name):
            os.unlink(name, dir_fd=folder)

    def make_folder(self, key: str) -> None:
        check_key(key, _ABLE)
        os.close(self._folder(key.split("/"), make=True))

    def remove_folder(self, key: str) -> None:
        check_key(key, _ABLE)
        with suppress(StorageMissing, StorageExists), Explained(key), self._place(key) as (folder, name):
            os.rmdir(name, dir_fd=folder)

    def symlink(self, key: str, target: bytes) -> None:
        check_key(key, _ABLE)
        with self._place(key, make=True) as (folder, name), Explained(key):
            try:
                os.symlink(target, name, dir_fd=folder)
            except FileExistsError:
                with self._temporary() as (tmp, temporary):
                    os.symlink(target, temporary, dir_fd=tmp)
                    os.rename(temporary, name, src_dir_fd=tmp, dst_dir_fd=folder)

    def readlink(self, key: str) -> bytes:
        check_key(key, _ABLE)
        with Explained(key), self._place(key) as (folder, name):
            return os.fsencode(os.readlink(name, dir_fd=folder))

    def flush(self) -> None:
        if self._root_fd >= 0:
            linux.sync_file_system(self._root_fd, self.root)

    def close(self) -> None:
        with self._lock:
            fd, self._root_fd = self._root_fd, -1
        if fd >= 0:
            os.close(fd)

    @contextmanager
    def _listing(self, folder: str) -> Iterator[Iterator[os.DirEntry[str]]]:
        """What stands in a folder."""
        try:
            fd = self._folder(folder.split("/") if folder else (), flags=_LISTED)
        except StorageMissing:
            if not folder and not Path(self.root).parent.is_dir():
                raise self._no_place() from None  # more likely not mounted than empty
            yield iter(())
            return
        try:
            with os.scandir(fd) as entries:
                yield entries
        finally:
            os.close(fd)

    @contextmanager
    def _open(self, key: str) -> Iterator[int]:
        """A file, to be read."""
        check_key(key, _ABLE)
        fd = self._straight(key, _READ)
        if fd is None:
            with Explained(key), self._place(key) as (folder, name):
                fd = os.open(name, _READ, dir_fd=folder)
        try:
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                raise StorageError(f"{key!r} is no file.")
            yield fd
        finally:
            os.close(fd)

    @contextmanager
    def _place(self, key: str, make: bool = False) -> Iterator[tuple[int | None, str]]:
        """The folder that a key is in, and its name there, as the functions of `os` take them."""
        *folders, name = key.split("/")
        if not folders:
            if make:
                self._make_root()
            yield None, f"{self.root}/{name}"
            return
        fd = self._folder(folders, make)
        try:
            yield fd, name
        finally:
            os.close(fd)

    def _name(self, folder: int | None, key: str) -> str:
        """A key's name in its folder, as `_place` tells it."""
        return f"{self.root}/{key}" if folder is None else key.rpartition("/")[2]

    def _folder(self, parts: Sequence[str], make: bool = False, flags: int = _ON_THE_WAY) -> int:
        """Open a folder; the caller closes it. Raises StorageMissing."""
        if make:
            self._make_root()
        fd: int | None = None
        name = self.root
        if len(parts) > 1 and (found := self._straight("/".join(parts), flags)) is not None:
            return found
        try:
            if not parts:
                return os.open(self.root, flags & ~os.O_NOFOLLOW)
            for number, part in enumerate(parts, 1):
                name = part if fd is not None else f"{self.root}/{part}"
                inner = _enter(fd, name, flags if number == len(parts) else _ON_THE_WAY, make)
                if fd is not None:
                    os.close(fd)
                fd = inner
        except OSError as e:
            if fd is not None:
                os.close(fd)
            key = "/".join(parts)
            if make and isinstance(e, NotADirectoryError):
                raise StorageError(
                    f"{key!r} cannot be a folder: there is a file or symlink of this name."
                ) from e
            raise linux.explained(e, key) from e
        assert fd is not None  # noqa: S101 - there are parts
        return fd

    def _straight(self, key: str, flags: int) -> int | None:
        """Open what is there under a key in one step; None if that did not work."""
        with suppress(OSError):
            root = os.open(self.root, os.O_PATH | os.O_DIRECTORY)
            try:
                return linux.open_below(root, os.fsencode(key), flags)
            finally:
                os.close(root)
        return None

    def _make_root(self) -> None:
        """Make the storage's folder, and have it open."""
        if self._root_fd >= 0:
            return
        with self._lock, Explained(self.root):
            if self._root_fd >= 0:
                return
            try:
                Path(self.root).mkdir(exist_ok=True)
            except FileNotFoundError:
                raise self._no_place() from None
            except FileExistsError:
                raise StorageError(f"{self.root} is a file. Name a folder.") from None
            fd = os.open(self.root, os.O_RDONLY | os.O_DIRECTORY)
            self._fsync = not linux.syncs_as_a_whole(self.root)
            self._root_fd = fd

    def _no_place(self) -> StorageError:
        parent = Path(self.root).parent
        return StorageError(f"There is no folder {parent}: make it, or mount the file system that it is on.")

    @contextmanager
    def _temporary(self) -> Iterator[tuple[int, str]]:
        """The folder of temporary files, and a name there; what has it is removed if this fails."""
        folder = self._folder(TEMPORARY, make=True)
        name = f"{self._mark}-{next(self._numbers)}"  # not like the file's own, which may be 255 bytes long
        try:
            yield folder, name
        except BaseException:
            with suppress(OSError):
                os.unlink(name, dir_fd=folder)
            raise
        finally:
            os.close(folder)

    def _fill(
        self,
        key: str,
        folder: int | None,
        name: str,
        flags: int,
        content: BinaryIO | bytes,
        size: int,
        mtime: datetime | None,
        sync: bool = False,
    ) -> None:
        """Write the content of a key to the file of this name in a folder; it is removed if this fails."""
        with Explained(key, making=True):
            fd = os.open(name, flags, 0o666, dir_fd=folder)
        try:
            _copy(content, fd, size, key)
            with Explained(key):
                if mtime is not None:
                    ns = linux.nanoseconds(mtime)
                    os.utime(fd, ns=(ns, ns))
                if sync or self._fsync:
                    os.fsync(fd)
        except BaseException:
            with suppress(OSError):
                os.close(fd)
            with suppress(OSError):
                os.unlink(name, dir_fd=folder)
            raise
        with Explained(key):
            os.close(fd)  # a server of files may tell only now that it is full


def _parent(key: str) -> str:
    return key.rpartition("/")[0]


def _enter(folder: int | None, name: str, flags: int, make: bool) -> int:
    """Open a folder in an open one."""
    for _ in range(100):
        try:
            return os.open(name, flags, dir_fd=folder)
        except FileNotFoundError:
            if not make:
                raise
        with suppress(FileExistsError):  # another thread was quicker
            os.mkdir(name, dir_fd=folder)
    raise OSError(errno.EBUSY, "Somebody removes it again and again")


def _told(entry: os.DirEntry[str], prefix: str) -> Stat | None:
    """A part of a listing; None if it has gone since."""
    try:
        return linux.stat_of(prefix + entry.name, entry.stat(follow_symlinks=False))
    except FileNotFoundError:
        return None


def _copy(content: BinaryIO | bytes, fd: int, size: int, key: str) -> None:
    """Write a content of this size to an open, empty file."""
    if size > CHUNK and not isinstance(content, bytes):
        with suppress(OSError):  # not a file of the system
            if linux.copy_range(content.fileno(), fd, 0, size) == size:
                return
    done = 0
    for chunk in chunks_of(content, size):
        with Explained(key):
            linux.put(fd, chunk, done)
        done += len(chunk)
