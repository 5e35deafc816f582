"""A copy of a project in which people may be working: whole files, and databases as SQLite copies them."""

import os
import stat as modes
import threading
from collections import defaultdict
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from scipion_cloud.copies.contents import copy_content
from scipion_cloud.copies.report import Report
from scipion_cloud.copies.room import Room
from scipion_cloud.errors import SyncError
from scipion_cloud.sync import paths
from scipion_cloud.sync.crew import Task, run_all
from scipion_cloud.sync.databases import COMPANIONS, Busy, back_up, looks_like_database
from scipion_cloud.sync.entry import EntryKind, parent_of
from scipion_cloud.sync.index import identity_of
from scipion_cloud.sync.placing import FILE_BITS, FOLDER_BITS
from scipion_cloud.sync.progress import Problem
from scipion_cloud.sync.scan import Found, scan
from scipion_cloud.sync.symlinks import Symlinks

_LARGE = 8 * 1024 * 1024  # bytes; each such file is a task of its own
_TRIES = 3
_PATIENCE = 20.0  # seconds to wait for a locked database
_THREADS = 4
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_NEW = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


def copy_tree(
    source: Path,
    target: Path,
    report: Report,
    *,
    dataset: Path | None = None,
    new_dataset: Path | None = None,
) -> None:
    """Copy the project in folder `source` into the new folder `target`.

    Links into the project become relative; those into its read-only `dataset` lead into `new_dataset`, where
    the new project has it. What cannot be read, or is being written all the time, is told in the report.
    Raises NoRoom, and SyncError if the project is taken away meanwhile.
    """
    try:
        root = os.open(source, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError as e:
        raise _gone() from e
    try:
        target.mkdir(mode=0o700)
        new_root = os.open(target, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            with Room(target) as room:
                _Copying(source, root, new_root, target, report, room, dataset, new_dataset).run()
        finally:
            os.close(new_root)
        if not _is_there(source, root):
            raise _gone()
    finally:
        os.close(root)


class _Copying:
    def __init__(
        self,
        source: Path,
        root: int,
        new_root: int,
        target: Path,
        report: Report,
        room: Room,
        dataset: Path | None,
        new_dataset: Path | None,
    ) -> None:
        self._source, self._root = source, root
        self._target, self._new_root = target, new_root
        self._report, self._room = report, room
        self._symlinks = Symlinks(source, dataset)
        self._new_dataset = new_dataset
        self._lock = threading.Lock()
        self._number = 0  # of temporary files

    def run(self) -> None:
        problems: list[Problem] = []
        unknown: set[bytes] = set()
        found = list(scan(self._root, problems, unknown))
        for problem in problems:
            what = "could not be read; it is not in the copy." if problem.path in unknown else problem.text
            self._report.problem(problem.path, what.replace("not saved", "not copied"))
        if b"" in unknown:
            raise _gone()
        folders = [each for each in found if modes.S_ISDIR(each.stat.st_mode)]
        files, again = _by_inode(each for each in found if modes.S_ISREG(each.stat.st_mode))
        self._report.progress.expect(len(files) + len(again), sum(f.stat.st_size for f in files))
        self._room.require(sum(f.stat.st_blocks * 512 for f in files))
        for folder in folders:
            with paths.parent(self._new_root, folder.path) as (fd, name):
                os.mkdir(name, 0o700, dir_fd=fd)
        # what tells of the other files comes before them: a file too many does no harm
        top = [each for each in files if b"/" not in each.path]
        self._some(top)
        large = [each for each in files if each.stat.st_size > _LARGE and b"/" in each.path]
        small: defaultdict[bytes, list[Found]] = defaultdict(list)
        for each in files:
            if each.stat.st_size <= _LARGE and b"/" in each.path:
                small[parent_of(each.path)].append(each)
        tasks: list[Task] = [partial(self._some, some) for some in small.values()]
        run_all(tasks, [partial(self._some, [each]) for each in large], _THREADS)
        for each, first in again:
            self._hard_link(each, first)
        for each in found:
            if modes.S_ISLNK(each.stat.st_mode):
                self._link(each)
        for folder in reversed(folders):
            self._finish_folder(folder)

    def _some(self, files: list[Found]) -> None:
        """Copy files of one folder."""
        if not files:
            return
        folder = parent_of(files[0].path)
        try:
            old = paths.open_folder(self._root, folder)
        except OSError as e:
            for each in files:
                self._lost(each.path, e)
            return
        try:
            new = paths.open_folder(self._new_root, folder)
            try:
                for each in files:
                    try:
                        self._file(old, new, each.path)
                    except (FileNotFoundError, PermissionError) as e:
                        self._lost(each.path, e)
                    self._report.progress.add(files=1)
            finally:
                os.close(new)
        finally:
            os.close(old)

    def _file(self, old: int, new: int, path: bytes) -> None:
        name = path.rpartition(b"/")[2]
        if name.endswith(COMPANIONS) and _is_database(old, name.rpartition(b"-")[0]):
            return  # comes with its database
        fd = os.open(name, _READ, dir_fd=old)
        try:
            before = os.fstat(fd)
            if not modes.S_ISREG(before.st_mode):
                raise FileNotFoundError
            self._room.take(0, files=1)
            if looks_like_database(fd):
                if self._database(new, path, before):
                    return
                for suffix in COMPANIONS:
                    self._plain_if_there(old, new, path + suffix)
            self._plain(fd, new, path)
        finally:
            os.close(fd)

    def _database(self, new: int, path: bytes, before: os.stat_result) -> bool:
        """Copy what is committed in a database; False if it is none."""
        with self._lock:
            self._number += 1
            temporary = self._target / f".database-{self._number}"  # SQLite takes no long paths
        fd = os.open(temporary, _NEW, 0o600)
        try:
            self._room.take(before.st_size)
            try:
                if not back_up(os.fsencode(self._source.absolute()) + b"/" + path, temporary, _PATIENCE):
                    return False
            except Busy as e:
                shown = path.decode(errors="backslashreplace")
                raise SyncError(
                    f"Another program has had the database {shown} locked for {_PATIENCE:.0f} s. Nothing was "
                    "kept; try again when the work in the project has calmed down."
                ) from e
            _finish(fd, before)
            os.rename(temporary, path.rpartition(b"/")[2], dst_dir_fd=new)
            self._report.progress.add(size=before.st_size)
            return True
        finally:
            os.close(fd)
            temporary.unlink(missing_ok=True)

    def _plain_if_there(self, old: int, new: int, path: bytes) -> None:
        try:
            fd = os.open(path.rpartition(b"/")[2], _READ, dir_fd=old)
        except FileNotFoundError:
            return
        try:
            self._plain(fd, new, path)
        finally:
            os.close(fd)

    def _plain(self, fd: int, new: int, path: bytes) -> None:
        out = os.open(path.rpartition(b"/")[2], _NEW, 0o600, dir_fd=new)
        try:
            for _ in range(_TRIES):
                before = os.fstat(fd)
                os.ftruncate(out, 0)
                copy_content(fd, out, before.st_size, self._room, self._report.progress)
                after = os.fstat(fd)
                if identity_of(after) == identity_of(before):
                    break
                self._report.progress.add(size=-before.st_size)
            else:
                self._report.progress.add(size=after.st_size)
                self._report.problem(path, "was being written while it was copied: look at it before use.")
            _finish(out, before)
        finally:
            os.close(out)

    def _hard_link(self, each: Found, first: bytes) -> None:
        try:
            with (
                paths.parent(self._new_root, first) as (folder, name),
                paths.parent(self._new_root, each.path) as (other, other_name),
            ):
                os.link(name, other_name, src_dir_fd=folder, dst_dir_fd=other, follow_symlinks=False)
        except FileNotFoundError as e:  # the first one vanished while it was to be copied
            self._lost(each.path, e)
        self._report.progress.add(files=1)

    def _link(self, each: Found) -> None:
        try:
            with paths.parent(self._root, each.path) as (folder, name):
                text = os.readlink(name, dir_fd=folder)
        except OSError as e:
            self._lost(each.path, e)
            return
        entry, inside = self._symlinks.entry(each.path, text, each.stat.st_mtime_ns)
        if entry.kind is EntryKind.LINK:
            text = entry.target
        elif self._new_dataset is not None:
            text = os.fsencode(self._new_dataset) + (b"/" + entry.target if entry.target else b"")
        else:
            inside = False
        if not inside:
            self._report.problem(
                each.path, "leads out of the project: the link is copied, its target is not."
            )
        with paths.parent(self._new_root, each.path) as (folder, name):
            os.symlink(text, name, dir_fd=folder)
            os.utime(name, ns=(entry.mtime_ns,) * 2, dir_fd=folder, follow_symlinks=False)

    def _finish_folder(self, folder: Found) -> None:
        fd = paths.open_folder(self._new_root, folder.path)
        try:
            os.fchmod(fd, folder.stat.st_mode & FOLDER_BITS)
            os.utime(fd, ns=(folder.stat.st_mtime_ns,) * 2)
        finally:
            os.close(fd)

    def _lost(self, path: bytes, error: OSError) -> None:
        if isinstance(error, FileNotFoundError):
            self._report.problem(path, "was removed while the project was copied.")
        else:
            self._report.problem(path, f"could not be read ({error.strerror}); it is not in the copy.")


def _by_inode(found: Iterator[Found]) -> tuple[list[Found], list[tuple[Found, bytes]]]:
    """The files, and apart from them the further names of the same ones, each with the first name."""
    first: dict[tuple[int, int], bytes] = {}
    files, again = [], []
    for each in found:
        key = (each.stat.st_dev, each.stat.st_ino)
        if each.stat.st_nlink > 1 and key in first:
            again.append((each, first[key]))
        else:
            first[key] = each.path
            files.append(each)
    return files, again


def _is_database(folder: int, name: bytes) -> bool:
    try:
        fd = os.open(name, _READ, dir_fd=folder)
    except OSError:
        return False
    try:
        return modes.S_ISREG(os.fstat(fd).st_mode) and looks_like_database(fd)
    finally:
        os.close(fd)


def _finish(fd: int, stat: os.stat_result) -> None:
    os.fchmod(fd, stat.st_mode & FILE_BITS)
    os.utime(fd, ns=(stat.st_mtime_ns, stat.st_mtime_ns))


def _is_there(folder: Path, fd: int) -> bool:
    try:
        return os.path.samestat(folder.stat(), os.fstat(fd))
    except FileNotFoundError:
        return False


def _gone() -> SyncError:
    return SyncError("The project was closed or deleted while it was copied. Nothing was kept; try again.")
