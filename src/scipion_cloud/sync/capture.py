"""Files taken as they are at one moment, although people go on working on them."""

import contextlib
import errno
import os
import stat as modes
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import BinaryIO

from blake3 import blake3

from scipion_cloud.storage import linux
from scipion_cloud.sync import paths
from scipion_cloud.sync.copy import WorkingCopy
from scipion_cloud.sync.databases import HEADER, back_up, looks_like_database
from scipion_cloud.sync.entry import Entry, EntryKind
from scipion_cloud.sync.index import UNSURE, identity_of, is_settled

SMALL = 1 << 20  # bytes; files up to here are read once, into memory
CHUNK = 256 * 1024  # bytes
TRIES = 3
RESTING = 10_000_000_000  # nanoseconds without a change after which nobody is expected to be writing
PATIENCE = 10.0  # seconds to wait for a locked database

_READ = os.O_RDONLY | os.O_NONBLOCK


class Unstable(OSError):
    """A file changed each time it was taken."""


@dataclass(frozen=True)
class Captured:
    """One file as it was at one moment. `content` has exactly `entry.size` bytes and stands at the first."""

    entry: Entry
    content: BinaryIO | bytes
    identity: bytes  # for the index: of the local file at that moment; with UNSURE if a change might not show
    still_same: Callable[[], bool]  # False: `content` changed while it was read; take the file again
    database: bool = False  # it is SQLite's copy of a database


@contextlib.contextmanager
def capture(
    copy: WorkingCopy, path: bytes, *, frozen: bool = False, patience: float = PATIENCE
) -> Iterator[Captured]:
    """Take the file at `path`: a live database as SQLite copies it, a log as far as it has been written.

    The bytes of a large file that nobody seems to write are read where they are; `frozen` asks for a copy on
    the same file system instead, which nobody can change. Raises OSError (Unstable, Busy, or that it cannot
    be read).
    """
    with contextlib.ExitStack() as stack:
        fd = paths.open_file(copy.root, path, _READ)
        stack.callback(os.close, fd)
        start, before = time.time_ns(), os.fstat(fd)
        if not modes.S_ISREG(before.st_mode):
            raise OSError(errno.EINVAL, "it is no file any more")
        if before.st_size <= SMALL:
            told = _small(path, fd, before, start)
            if told is not None:
                yield told
                return
        if before.st_size >= len(_EMPTY_DATABASE) and looks_like_database(fd):
            told = _database(copy, path, fd, patience, stack)
            if told is not None:
                yield told
                return
        active = before.st_mtime_ns > time.time_ns() - RESTING
        if before.st_size > SMALL and not (frozen or active):
            told = _in_place(path, fd, stack)
            if told is not None:
                yield told
                return
        yield _at_rest(copy, path, fd, stack)


_EMPTY_DATABASE = bytes(512)  # the smallest page


def digest_of(fd: int, size: int) -> bytes | None:
    """BLAKE3 of the first `size` bytes of an open file; None if it has fewer."""
    digest, place = blake3(), 0
    while place < size:
        chunk = os.pread(fd, min(CHUNK, size - place), place)
        if not chunk:
            return None
        digest.update(chunk)
        place += len(chunk)
    return digest.digest()


def _small(path: bytes, fd: int, before: os.stat_result, start: int) -> Captured | None:
    """A small file, read at once; None if somebody is writing it, or it may be a database."""
    content = _read(fd, before.st_size)
    identity = identity_of(before)
    if content.startswith(HEADER) or identity_of(os.fstat(fd)) != identity:
        return None
    entry = _entry(path, before, len(content), blake3(content).digest(), _is_sparse(before))
    return Captured(entry, content, _identity(before, start), _always)


def _always() -> bool:
    return True


def _database(
    copy: WorkingCopy, path: bytes, fd: int, patience: float, stack: contextlib.ExitStack
) -> Captured | None:
    """What is committed in a database; None if it is none."""
    start, before = time.time_ns(), os.fstat(fd)
    target, file = stack.enter_context(copy.temporary())
    if not back_up(os.fsencode(copy.path.absolute()) + b"/" + path, target, patience):
        return None
    size = os.fstat(file.fileno()).st_size
    digest = digest_of(file.fileno(), size)
    assert digest is not None  # noqa: S101 - nobody else has this file
    entry = _entry(path, before, size, digest, sparse=False)
    return Captured(entry, file, _identity(before, start), _always, database=True)


def _in_place(path: bytes, fd: int, stack: contextlib.ExitStack) -> Captured | None:
    """A large file, to be read where it is; None if somebody is writing it."""
    start, before = time.time_ns(), os.fstat(fd)
    digest = digest_of(fd, before.st_size)
    identity = identity_of(before)

    def still_same() -> bool:
        return identity_of(os.fstat(fd)) == identity

    if digest is None or not still_same():
        return None
    file = stack.enter_context(os.fdopen(os.dup(fd), "rb", buffering=0))
    entry = _entry(path, before, before.st_size, digest, _is_sparse(before))
    return Captured(entry, file, _identity(before, start), still_same)


def _at_rest(copy: WorkingCopy, path: bytes, fd: int, stack: contextlib.ExitStack) -> Captured:
    """A copy of a file, in memory or on the disk, that is what the file was at one moment."""
    for _ in range(TRIES):
        start, before = time.time_ns(), os.fstat(fd)
        size = before.st_size
        content: BinaryIO | bytes
        digest: bytes | None
        if size <= SMALL:
            content = _read(fd, size)
            digest = blake3(content).digest() if len(content) == size else None
        else:
            content = _duplicate(copy, fd, size, stack)
            digest = digest_of(content.fileno(), size)
        if digest is not None and _was_at_rest(fd, before, digest):
            entry = _entry(path, before, size, digest, _is_sparse(before))
            return Captured(entry, content, _identity(before, start), _always)
    raise Unstable(errno.EBUSY, "it is being written all the time")


def _was_at_rest(fd: int, before: os.stat_result, digest: bytes) -> bool:
    """Whether what was taken is what the file was at `before`: nobody wrote, or only behind that."""
    after = os.fstat(fd)
    if identity_of(after) == identity_of(before):
        return True
    return after.st_size > before.st_size and digest_of(fd, before.st_size) == digest


def _read(fd: int, size: int) -> bytes:
    """The first bytes of an open file; fewer if it has been cut."""
    content = os.pread(fd, size, 0)
    while len(content) < size and (more := os.pread(fd, size - len(content), len(content))):
        content += more
    return content


def _duplicate(copy: WorkingCopy, fd: int, size: int, stack: contextlib.ExitStack) -> BinaryIO:
    """A copy of the first bytes of a file; where the file system can share them, it takes no time."""
    _, file = stack.enter_context(copy.temporary())
    done = linux.copy_range(fd, file.fileno(), 0, size)
    while done < size and (chunk := os.pread(fd, min(CHUNK, size - done), done)):
        linux.put(file.fileno(), chunk, done)
        done += len(chunk)
    return file


def _entry(path: bytes, stat: os.stat_result, size: int, digest: bytes, sparse: bool) -> Entry:
    mode = modes.S_IMODE(stat.st_mode)
    return Entry(path, EntryKind.FILE, mode, stat.st_mtime_ns, size, digest, sparse=sparse)


def _is_sparse(stat: os.stat_result) -> bool:
    """Whether there is a hole; file systems that keep small files elsewhere show no blocks of them either."""
    return stat.st_blocks * 512 + 4096 <= stat.st_size


def _identity(stat: os.stat_result, start: int) -> bytes:
    """The identity of a file whose reading started at `start`, ns since the epoch."""
    identity = identity_of(stat)
    return identity if is_settled(identity, start) else UNSURE + identity
