"""A read-only dataset, such as the microscope's movies, brought beside the working copy."""

import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, as_completed
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from urllib.parse import unquote, urlsplit

from scipion_cloud.errors import StorageTransient, SyncError
from scipion_cloud.storage import Kind, Stat, Storage
from scipion_cloud.sync.entry import parent_of
from scipion_cloud.sync.fetch import Stopped, bring
from scipion_cloud.sync.layout import ARRIVING, SERVICE
from scipion_cloud.sync.paths import folder_for, open_folder
from scipion_cloud.sync.progress import Problem, Progress
from scipion_cloud.sync.restore import MARGIN, free_space

THREADS = 16
PARTS = ARRIVING  # what has not arrived as a whole
LEADS_OUT = "is a symlink that leads out of the dataset; it was left out."
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_NEW = os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC


def stage_source(
    storage: Storage,
    target: Path,
    *,
    progress: Progress | None = None,
    stop: threading.Event | None = None,
    threads: int = THREADS,
) -> tuple[Problem, ...]:
    """Make a dataset appear at `target`. One that is a folder of this machine is linked, others are copied.

    A file is taken for whole if it has the size and the time that the storage tells of it; so the same call
    goes on where one was cut off. Files that the dataset has no more stay. Returns early once `stop` is set.
    Raises SyncError if there is no room, or something else is at `target`; StorageError.
    """
    if (folder := _local_folder(storage)) is not None:
        _link(folder, target)
        return ()
    try:
        return _Stage(storage, target, progress or Progress(), stop).run(threads)
    except Stopped:
        return ()
    except OSError as e:
        raise SyncError(
            f"{target} does not take the dataset ({e}). What has arrived stays; free some space or name "
            "another place, and the same again goes on from there."
        ) from e


def _local_folder(storage: Storage) -> Path | None:
    parts = urlsplit(storage.url)
    return Path(unquote(parts.path, errors="surrogateescape")) if parts.scheme == "file" else None


def _link(folder: Path, target: Path) -> None:
    """Make `target` a symlink to a folder."""
    if not folder.is_dir():
        raise SyncError(f"There is no folder {folder}: check the address of the dataset, or mount its disk.")
    if target.is_symlink():
        if target.readlink() == folder:
            return
        target.unlink()
    elif target.is_dir() and not any(target.iterdir()):
        target.rmdir()
    try:
        target.symlink_to(folder)
    except FileExistsError:
        raise SyncError(f"{target} is in the way of the dataset: move it, or name another place.") from None


class _Stage:
    """One run of `stage_source`."""

    def __init__(
        self, storage: Storage, target: Path, progress: Progress, stop: threading.Event | None
    ) -> None:
        self._storage = storage
        self._target = target
        self._progress = progress
        self._stop = stop
        self._halt = threading.Event()
        self._problems: list[Problem] = []

    def run(self, threads: int) -> tuple[Problem, ...]:
        if self._target.is_symlink():  # to another dataset
            self._target.unlink()
        self._target.mkdir(parents=True, exist_ok=True)
        self._root = os.open(self._target, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            self._parts, _ = folder_for(self._root, f"{PARTS}/_".encode())
            try:
                self._bring_all(threads)
            finally:
                os.close(self._parts)
            os.rmdir(PARTS, dir_fd=self._root)
        finally:
            os.close(self._root)
        return tuple(self._problems)

    def _bring_all(self, threads: int) -> None:
        for left in (self._target / PARTS).iterdir():  # of a process that was killed
            left.unlink()
        todo: list[Callable[[], None]] = []
        need = 0
        for stat in self._storage.walk():
            self._check()
            if stat.key.split("/", 1)[0] == SERVICE:
                continue
            if stat.kind is Kind.LINK:
                todo.append(partial(self._symlink, stat.key))
                continue
            self._progress.expect(1, stat.size)
            if self._is_here(stat):
                self._progress.add(1, stat.size)
            else:
                need += stat.size
                todo.append(partial(self._file, stat, str(len(todo))))
        free = free_space(self._target)
        if need and need + MARGIN > free:
            raise SyncError(
                f"There is not enough room for the dataset in {self._target}: {need / 1e9:.2f} GB are still "
                f"to come, {free / 1e9:.2f} GB are free. Free some; what has arrived is not copied again."
            )
        with ThreadPoolExecutor(threads) as pool:
            futures = [pool.submit(call) for call in todo]
            try:
                for future in as_completed(futures):
                    future.result()
            except BaseException:
                self._halt.set()
                pool.shutdown(cancel_futures=True)
                raise

    def _check(self) -> None:
        if self._halt.is_set() or (self._stop is not None and self._stop.is_set()):
            raise Stopped

    def _is_here(self, stat: Stat) -> bool:
        above, _, name = os.fsencode(stat.key).rpartition(b"/")
        try:
            folder = open_folder(self._root, above)
        except OSError:
            return False
        try:
            here = os.stat(name, dir_fd=folder, follow_symlinks=False)
        except OSError:
            return False
        finally:
            os.close(folder)
        return here.st_size == stat.size and here.st_mtime_ns == _nanoseconds(stat)

    def _file(self, stat: Stat, temporary: str) -> None:
        self._check()
        fd = os.open(temporary, _NEW, 0o600, dir_fd=self._parts)
        done = 0
        try:
            for part in bring(self._storage, stat.key, stat.size, fd):
                done += part
                self._progress.add(size=part)
                self._check()
            if done != stat.size:
                raise StorageTransient(f"{stat.key!r} changed in the dataset while it was copied.")
            os.fchmod(fd, 0o444)
            os.fsync(fd)
            os.utime(fd, ns=(_nanoseconds(stat),) * 2)
            folder, name = folder_for(self._root, os.fsencode(stat.key))
            try:
                os.rename(temporary, name, src_dir_fd=self._parts, dst_dir_fd=folder)
            finally:
                os.close(folder)
            self._progress.add(files=1)
        except BaseException:
            self._progress.add(size=-done)
            os.unlink(temporary, dir_fd=self._parts)
            raise
        finally:
            os.close(fd)

    def _symlink(self, key: str) -> None:
        self._check()
        path, text = os.fsencode(key), self._storage.readlink(key)
        place = os.path.normpath(b"./" + parent_of(path) + b"/" + text)
        if text.startswith(b"/") or place == b".." or place.startswith(b"../"):
            self._problems.append(Problem(path, LEADS_OUT))
            return
        folder, name = folder_for(self._root, path)
        try:
            os.symlink(text, name, dir_fd=folder)
        except FileExistsError:
            pass  # from the time before
        finally:
            os.close(folder)


def _nanoseconds(stat: Stat) -> int:
    return (stat.modified - _EPOCH) // timedelta(microseconds=1) * 1000
