"""A project's data folder on disk, entered step by step so that no planted link leads out of it."""

import errno
import os
import stat
import uuid
from contextlib import suppress
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

from scipion_cloud.config import get_config
from scipion_cloud.errors import Conflict, InvalidInput, NotFound, ScipionCloudError
from scipion_cloud.portal.uploads.names import PARTS, human, show
from scipion_cloud.records.models import Project

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_DEEPEST = 64  # folders within folders that are looked into
_PART = os.O_RDWR | os.O_APPEND | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class NoSpace(ScipionCloudError):
    """The disk is full or too small; the message says how much is missing."""


@dataclass(frozen=True)
class Stat:
    """A regular file: bytes, and when it was changed (seconds since 1970)."""

    size: int
    modified: float


@dataclass
class Scan:
    """What a data folder holds. Names are relative, with surrogates for bytes that are not UTF-8."""

    files: dict[str, Stat] = field(default_factory=dict)
    folders: set[str] = field(default_factory=set)
    others: set[str] = field(default_factory=set)  # links and special files: shown to nobody, never followed

    def obstacle(self, path: str) -> str | None:
        """Why no new file can be made at `path`, a file of that very name left aside; None if it can."""
        if path in self.folders:
            return f"“{path}” is a folder here already; rename the file."
        if path in self.others:
            return f"“{path}” is a link here; links are not written through. Remove it or rename the file."
        while "/" in path:
            path = path.rpartition("/")[0]
            if path in self.files or path in self.others:
                return f"“{path}” is a file or a link here and cannot hold files; rename the folder."
        return None


class DataFolder:
    """Opens `project.data` without following links; use it in a `with` block."""

    def __init__(self, project: Project) -> None:
        projects = get_config().projects
        projects.mkdir(parents=True, exist_ok=True)
        top = os.open(projects, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            whole = _enter(top, [project.folder])
        except FileNotFoundError as e:
            if not project.is_prepared:
                raise Conflict("The files of this project are not here yet; wait until they are.") from e
            if project.has_storage:
                raise Conflict("This project is closed; open it on its page first.") from e
            # it is not made again: the project may have been deleted meanwhile
            raise NotFound(
                "The folder of this project is not on the server's disk any more; tell your operator."
            ) from e
        finally:
            os.close(top)
        try:
            self._fd = _enter(whole, ["data"], create=True)
        finally:
            os.close(whole)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, t: TracebackType | None
    ) -> None:
        os.close(self._fd)

    def free(self) -> int:
        """Bytes that may still be written here."""
        disk = os.fstatvfs(self._fd)
        return disk.f_bavail * disk.f_frsize

    def require(self, size: int, what: str) -> None:
        """Raises NoSpace unless `size` more bytes fit; `what` begins the message."""
        free = self.free()
        if size > free:
            raise NoSpace(
                f"{what} {human(size)}, but {human(free)} are free on the server's disk: "
                f"{human(size - free)} are missing. Delete data that is no longer needed or ask for more "
                "space, then go on."
            )

    def look(self, path: str) -> Scan:
        """What stands at `path` and on the way to it, without looking at the rest."""
        found = Scan()
        fd = os.dup(self._fd)
        try:
            names = path.split("/")
            for depth in range(1, len(names) + 1):
                here = "/".join(names[:depth])
                status = os.stat(names[depth - 1], dir_fd=fd, follow_symlinks=False)
                if stat.S_ISREG(status.st_mode):
                    found.files[here] = Stat(status.st_size, status.st_mtime)
                elif not stat.S_ISDIR(status.st_mode):
                    found.others.add(here)
                else:
                    found.folders.add(here)
                    inner = os.open(names[depth - 1], _DIRECTORY, dir_fd=fd)
                    os.close(fd)
                    fd = inner
        except (FileNotFoundError, NotADirectoryError):
            pass
        finally:
            os.close(fd)
        return found

    def open_part(self, upload: uuid.UUID) -> int:
        """A descriptor that appends to the part file of an upload, made if missing. The caller closes it."""
        parts = _enter(self._fd, [PARTS], create=True)
        try:
            fd = os.open(upload.hex, _PART | os.O_CREAT, 0o644, dir_fd=parts)
        finally:
            os.close(parts)
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            os.close(fd)
            raise Conflict("Something else is in the place of this upload's part file; forget the upload.")
        return fd

    def part_sizes(self) -> dict[uuid.UUID, int]:
        """How many bytes of each unfinished upload have arrived."""
        try:
            parts = _enter(self._fd, [PARTS])
        except FileNotFoundError:
            return {}
        sizes = {}
        try:
            with os.scandir(parts) as entries:
                for entry in entries:
                    with suppress(ValueError, FileNotFoundError):
                        sizes[uuid.UUID(entry.name)] = entry.stat(follow_symlinks=False).st_size
        finally:
            os.close(parts)
        return sizes

    def part_size(self, upload: uuid.UUID) -> int | None:
        """How many bytes of an upload have arrived; None if it has no part file."""
        try:
            parts = _enter(self._fd, [PARTS])
        except FileNotFoundError:
            return None
        try:
            return os.stat(upload.hex, dir_fd=parts, follow_symlinks=False).st_size
        except FileNotFoundError:
            return None
        finally:
            os.close(parts)

    def drop_part(self, upload: uuid.UUID) -> None:
        """Forget what has arrived of an upload."""
        with suppress(FileNotFoundError):
            parts = _enter(self._fd, [PARTS])
            try:
                os.unlink(upload.hex, dir_fd=parts)
            finally:
                os.close(parts)

    def place(self, upload: uuid.UUID, path: str) -> None:
        """Give a whole, synced part file its name. Atomic, and safe to do again after a crash anywhere in it.

        Raises Conflict if another file has the name by now; the part is kept.
        """
        *folders, name = path.split("/")
        parts = _enter(self._fd, [PARTS])
        try:
            parent = _enter(self._fd, folders, create=True)
            try:
                _link(upload.hex, parts, name, parent, path)
                os.fsync(parent)
                os.unlink(upload.hex, dir_fd=parts)
            finally:
                os.close(parent)
        finally:
            os.close(parts)

    def delete(self, path: str) -> None:
        """Delete a file, or a link itself. Raises NotFound, or Conflict if it is a folder."""
        if "\0" in path:
            raise NotFound(f"“{show(path)}” cannot be the name of a file.")
        *folders, name = path.split("/")
        try:
            parent = _enter(self._fd, folders)
            try:
                os.unlink(name, dir_fd=parent)
            finally:
                os.close(parent)
        except FileNotFoundError as e:
            raise NotFound(f"“{show(path)}” is not there any more.") from e
        except IsADirectoryError as e:
            raise Conflict(f"“{show(path)}” is a folder; only files are deleted here.") from e
        except OSError as e:
            raise Conflict(f"“{show(path[:200])}” cannot be deleted: {e.strerror}.") from e

    def scan(self) -> Scan:
        """Everything in the folder, except parts."""
        found = Scan()
        _scan(self._fd, "", found)
        return found


def _enter(start: int, folders: list[str], *, create: bool = False) -> int:
    """A descriptor of a folder below `start`. Raises FileNotFoundError; Conflict at a link or a file."""
    fd = os.dup(start)
    try:
        for name in folders:
            if name in ("", ".", "..") or "\0" in name:
                raise InvalidInput(f"“{show(name)}” is not the name of a folder inside the data folder.")
            if create:
                with suppress(FileExistsError):
                    os.mkdir(name, dir_fd=fd)
                    os.fsync(fd)
            inner = os.open(name, _DIRECTORY, dir_fd=fd)
            os.close(fd)
            fd = inner
    except BaseException as e:
        os.close(fd)
        if isinstance(e, OSError) and e.errno in (errno.ELOOP, errno.ENOTDIR):
            raise Conflict(
                f"“{show(name)}” is a file or a link here, and links are not followed. Rename the folder."
            ) from e
        raise
    return fd


def _link(part: str, parts: int, name: str, parent: int, path: str) -> None:
    try:
        os.link(part, name, src_dir_fd=parts, dst_dir_fd=parent, follow_symlinks=False)
    except FileExistsError as e:
        ours = os.stat(part, dir_fd=parts, follow_symlinks=False)
        theirs = os.stat(name, dir_fd=parent, follow_symlinks=False)
        if not os.path.samestat(ours, theirs):  # else a crash came between link and unlink
            raise Conflict(
                f"“{show(path)}” was made here by something else meanwhile; nothing is overwritten. "
                "Delete or rename that file, then go on: what you sent is kept."
            ) from e


def _scan(folder: int, prefix: str, found: Scan) -> None:
    inner = []
    with os.scandir(folder) as entries:
        for entry in entries:
            path = prefix + entry.name
            with suppress(FileNotFoundError):  # deleted while we look
                if entry.is_dir(follow_symlinks=False):
                    if path != PARTS:
                        inner.append(entry.name)
                elif entry.is_file(follow_symlinks=False):
                    status = entry.stat(follow_symlinks=False)
                    found.files[path] = Stat(status.st_size, status.st_mtime)
                else:
                    found.others.add(path)
    for name in inner:
        if prefix.count("/") > _DEEPEST:
            found.others.add(prefix + name)
            continue
        try:
            fd = os.open(name, _DIRECTORY, dir_fd=folder)
        except OSError:  # replaced meanwhile, or not ours to read
            found.others.add(prefix + name)
            continue
        found.folders.add(prefix + name)
        try:
            _scan(fd, prefix + name + "/", found)
        finally:
            os.close(fd)
