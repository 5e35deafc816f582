"""Single files, links and folders of a generation, put where they belong in a working copy.

Nothing is ever written through a symlink, and nothing that stands somewhere is replaced.
"""

import os
import threading
from collections.abc import Iterable, Mapping

from scipion_cloud.errors import SyncError
from scipion_cloud.storage import Storage, linux
from scipion_cloud.sync import paths
from scipion_cloud.sync.aside import Aside
from scipion_cloud.sync.copy import WorkingCopy
from scipion_cloud.sync.entry import Entry, EntryKind
from scipion_cloud.sync.fetch import Stopped, digest_of, fetch, fetch_small, put
from scipion_cloud.sync.index import UNSURE, identity_of
from scipion_cloud.sync.present import link_text
from scipion_cloud.sync.progress import Problem, Progress

_NEW = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_OLD = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC
FILE_BITS = 0o777  # a manifest gives nobody the rights of another user
FOLDER_BITS = 0o3777

IN_THE_WAY = "a file of yours is where a file of the project was to arrive; yours stays, and the other is {}."


class Placing:
    """Puts entries into a working copy. Safe to use from many threads."""

    def __init__(
        self,
        copy: WorkingCopy,
        storage: Storage,
        base: Mapping[bytes, Entry],
        links: Mapping[bytes, list[Entry]],
        progress: Progress,
        stop: threading.Event | None,
    ) -> None:
        self.problems: list[Problem] = []
        self.damaged: list[SyncError] = []
        self.halt = threading.Event()  # set when something else has failed
        self._copy = copy
        self._storage = storage
        self._base = base  # what the next save compares with
        self._links = links  # hard links to be made, by the path of their file
        self._progress = progress
        self._stop = stop
        self.aside = Aside(copy)

    def files(self, folder: bytes, entries: Iterable[Entry], unread: frozenset[bytes]) -> None:
        """Put files of one folder straight under their names; those in `unread` may be here already."""
        arrived: dict[bytes, bytes] = {}
        with paths_of(self._copy, folder) as fd:
            missing = [e for e in entries if e.path not in unread or not self._adopt(fd, _name(e), e)]
            self.check()
            contents = fetch_small(self._storage, missing)
            try:
                for entry in missing:
                    self.check()
                    try:
                        arrived |= self._fill(fd, entry, contents.pop(entry.path, None))
                    except SyncError as e:
                        self._is_damaged(entry, e)
            finally:
                self._copy.arrived(arrived)

    def file_later(self, entry: Entry, unread: bool, in_use: bool) -> None:
        """Put a file under its name once it is whole, without replacing what the user may have put there."""
        self.check()
        try:
            with self._copy.parent(entry.path) as (folder, name):
                if unread:
                    if self._adopt(folder, name, entry, take=not in_use):
                        return
                    if in_use:
                        self._is_taken(entry)
                        return
                with self._copy.temporary() as (temporary, file):
                    fetch(self._storage, entry, file.fileno(), progress=self._progress, stop=self._stop)
                    _finish(file.fileno(), entry)
                    if in_use:  # else all is brought to the disk at the end
                        os.fsync(file.fileno())
                    tmp = os.open(temporary.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
                    try:
                        if linux.put_new(tmp, temporary.name, folder, os.fsdecode(name)):
                            if in_use:
                                os.fsync(folder)
                            self._copy.arrived(self._arrived(file.fileno(), folder, name, entry))
                            self._progress.add(files=1)
                        else:
                            self.aside.put(tmp, os.fsencode(temporary.name), entry.path)
                            self._is_taken(entry, f"at {self.aside.path}", arrived=True)
                    finally:
                        os.close(tmp)
        except (FileNotFoundError, NotADirectoryError):
            if not in_use:
                raise
            self._is_taken(entry)  # its folder is gone
        except SyncError as e:
            self._is_damaged(entry, e)

    def link(self, entry: Entry, there: bool) -> None:
        """Make a symlink, if it is not there with the right text already."""
        with self._copy.parent(entry.path) as (folder, name):
            if not there:
                os.symlink(link_text(self._copy, entry), name, dir_fd=folder)
                os.utime(name, ns=(entry.mtime_ns,) * 2, dir_fd=folder, follow_symlinks=False)
            found = os.stat(name, dir_fd=folder, follow_symlinks=False)
        self._copy.arrived({entry.path: self._identity(entry, found)})

    def hard_links(self, first: Entry) -> None:
        """Make the hard links to a file that is here already."""
        with self._copy.parent(first.path) as (folder, name):
            fd = os.open(name, _OLD, dir_fd=folder)
            try:
                self._copy.arrived(self._arrived(fd, folder, name, first))
            finally:
                os.close(fd)

    def make_folder(self, entry: Entry) -> None:
        """Make a folder; it gets its mode and time when all is in it."""
        with self._copy.parent(entry.path) as (folder, name):
            os.mkdir(name, 0o700, dir_fd=folder)

    def finish_folder(self, entry: Entry, whole: bool = True) -> None:
        """Give a folder its mode and time; unless it is `whole`, files can still be put into it."""
        try:
            with paths_of(self._copy, entry.path) as fd:
                os.fchmod(fd, (entry.mode if whole else entry.mode | 0o700) & FOLDER_BITS)
                os.utime(fd, ns=(entry.mtime_ns, entry.mtime_ns))
                self._copy.arrived({entry.path: self._identity(entry, os.fstat(fd))})
        except (FileNotFoundError, NotADirectoryError):
            self._copy.unsure(entry)  # somebody was quick to remove it

    def open_up(self, folder: bytes) -> None:
        """Make sure that things can be put into a folder that is here."""
        with paths_of(self._copy, folder) as fd:
            mode = os.fstat(fd).st_mode
            if mode & 0o700 != 0o700:
                os.fchmod(fd, (mode | 0o700) & FOLDER_BITS)

    def check(self) -> None:
        """Raise Stopped if there is no use in going on."""
        if self.halt.is_set() or (self._stop is not None and self._stop.is_set()):
            raise Stopped

    def _fill(self, folder: int, entry: Entry, content: bytes | None) -> dict[bytes, bytes]:
        """Put a file of this content, which is fetched unless it is given; what `_arrived` tells."""
        name = _name(entry)
        fd = os.open(name, _NEW, 0o600, dir_fd=folder)
        try:
            if content is None:
                fetch(self._storage, entry, fd, progress=self._progress, stop=self._stop)
            else:
                put(fd, content, sparse=entry.sparse)
            _finish(fd, entry)
            arrived = self._arrived(fd, folder, name, entry)
            self._progress.add(files=1, size=0 if content is None else entry.size)
            return arrived
        except BaseException:
            os.unlink(name, dir_fd=folder)
            raise
        finally:
            os.close(fd)

    def _adopt(self, folder: int, name: bytes, entry: Entry, take: bool = True) -> bool:
        """Whether a file of the right size is the right one; else it is moved aside if `take`."""
        fd = os.open(name, _OLD, dir_fd=folder)
        try:
            if digest_of(fd, entry.size) == entry.digest:
                _finish(fd, entry)
                self._copy.arrived(self._arrived(fd, folder, name, entry))
                self._progress.add(files=1, size=entry.size)
                return True
        finally:
            os.close(fd)
        if take:
            self.aside.put(folder, name, entry.path)
        return False

    def _arrived(self, fd: int, folder: int, name: bytes, entry: Entry) -> dict[bytes, bytes]:
        """Make the hard links to a file that is here; the identities of all, since links change the ctime."""
        made = [entry]
        for link in self._links.get(entry.path, ()):
            try:
                with self._copy.parent(link.path) as (other, other_name):
                    os.link(name, other_name, src_dir_fd=folder, dst_dir_fd=other, follow_symlinks=False)
                made.append(link)
            except (FileExistsError, FileNotFoundError, NotADirectoryError):
                self._is_taken(link)
        stat = os.fstat(fd)
        if stat.st_mtime_ns != entry.mtime_ns or stat.st_size != entry.size:
            return dict.fromkeys((one.path for one in made), UNSURE)  # somebody was quick to change it
        return {one.path: self._identity(one, stat) for one in made}

    def _identity(self, entry: Entry, stat: os.stat_result) -> bytes:
        """What is to be known of an entry; of another generation than the latest it is a change."""
        return identity_of(stat) if self._base.get(entry.path) == entry else UNSURE

    def _is_taken(self, entry: Entry, where: str = "in the storage", arrived: bool = False) -> None:
        self._copy.unsure(entry)
        self.problems.append(Problem(entry.path, IN_THE_WAY.format(where)))
        if entry.kind is EntryKind.FILE:
            self._progress.add(files=1, size=0 if arrived else entry.size)

    def _is_damaged(self, entry: Entry, error: SyncError) -> None:
        self.damaged.append(error)
        self._progress.add(files=1, size=entry.size)


def _name(entry: Entry) -> bytes:
    return entry.path.rpartition(b"/")[2]


class paths_of:  # noqa: N801 - used like a function
    """A folder of a working copy, open; never through a symlink."""

    def __init__(self, copy: WorkingCopy, folder: bytes) -> None:
        self._root, self._folder = copy.root, folder

    def __enter__(self) -> int:
        self._fd = paths.open_folder(self._root, self._folder)
        return self._fd

    def __exit__(self, *_: object) -> None:
        os.close(self._fd)


def _finish(fd: int, entry: Entry) -> None:
    os.fchmod(fd, entry.mode & FILE_BITS)
    os.utime(fd, ns=(entry.mtime_ns, entry.mtime_ns))
