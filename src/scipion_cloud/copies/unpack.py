"""An archive into a folder, as if a stranger had made it: nothing in it can reach outside that folder."""

import contextlib
import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from scipion_cloud.copies.formats import members
from scipion_cloud.copies.links import LEADS_OUT, place_links
from scipion_cloud.copies.members import BadArchive, Member
from scipion_cloud.copies.report import Report
from scipion_cloud.copies.room import Room
from scipion_cloud.sync import paths
from scipion_cloud.sync.databases import looks_like_database
from scipion_cloud.sync.entry import EntryKind
from scipion_cloud.sync.layout import SERVICE
from scipion_cloud.sync.placing import FILE_BITS, FOLDER_BITS

DATABASE = b"project.sqlite"
DEEPEST_PROJECT = 3  # folders above a project's own files
_DEEPEST = 128  # folders within folders
_BLOCK = 64 * 1024  # bytes; such runs of zeros become holes
_ZEROS = bytes(_BLOCK)
_NAMES = (errno.ENAMETOOLONG, errno.EILSEQ, errno.EINVAL, errno.ELOOP)
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


def unpack(archive: BinaryIO, into: Path, report: Report) -> Path:
    """Unpack the one Scipion project that is in an archive into the new folder `into`; where it is in there.

    Symlinks come last and lead nowhere out of the project; what cannot be had safely is left out and told in
    the report. Raises BadArchive, NoRoom.
    """
    into.mkdir(mode=0o700)
    root = os.open(into, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with Room(into) as room:
            unpacking = _Unpacking(root, report, room)
            report.progress.expect(size=os.fstat(archive.fileno()).st_size)
            for member in members(archive):
                unpacking.take(member)
                report.progress.add(size=archive.tell() - report.progress.bytes_done)
        below = unpacking.project()
        project = into / os.fsdecode(below) if below else into
        place_links(root, below, unpacking.links, report)
        unpacking.finish_folders()
        return project
    finally:
        os.close(root)


class _Unpacking:
    """Puts members where they belong, below an open folder in which there is no symlink."""

    def __init__(self, root: int, report: Report, room: Room) -> None:
        self._root, self._report, self._room = root, report, room
        self._folders: dict[bytes, tuple[int, int]] = {}  # path -> mode and time
        self._projects: list[bytes] = []
        self._size = 0
        self.links: dict[bytes, tuple[bytes, int]] = {}  # path -> what it says, and its time

    def take(self, member: Member) -> None:
        """Put one member there, or tell why not."""
        path = _clean(member.path)
        if path is None:
            self._report.problem(member.path, "would be outside of the project; it was left out.")
        elif not path or SERVICE.encode() in path.split(b"/"):
            return
        elif path.count(b"/") >= _DEEPEST:
            self._report.problem(path, "is too deep within folders; it was left out.")
        elif member.kind is None:
            self._report.problem(path, "is a device, a pipe or the like; it was left out.")
        else:
            self._room.take(0, files=1)
            self._put(_PUTTING[member.kind], path, member)

    def _put(self, put: "Callable[[_Unpacking, bytes, Member], None]", path: bytes, member: Member) -> None:
        try:
            put(self, path, member)
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError, FileExistsError, PermissionError):
            self._report.problem(path, "does not fit to what else is in the archive; it was left out.")
        except OSError as e:
            if e.errno not in _NAMES:
                raise
            self._report.problem(path, f"cannot be here ({e.strerror}); it was left out.")

    def folder(self, path: bytes, member: Member) -> None:
        """Make a folder, as far as it is not there."""
        fd, _ = paths.folder_for(self._root, path + b"/.")
        os.close(fd)
        self._folders[path] = (member.mode, member.mtime_ns)

    def file(self, path: bytes, member: Member) -> None:
        """Write a file; what the archive had under this name before is replaced, as tar does it."""
        self._size += member.size
        if member.size < 0 or self._size > self._room.size:
            raise BadArchive("The archive would be larger than this machine's disk when unpacked.")
        folder, name = paths.folder_for(self._root, path)
        try:
            self._free(folder, name, path)
            fd = os.open(name, _NEW, 0o600, dir_fd=folder)
        finally:
            os.close(folder)
        try:
            self._fill(fd, member)
            os.fchmod(fd, member.mode & FILE_BITS)
            os.utime(fd, ns=(member.mtime_ns, member.mtime_ns))
        finally:
            os.close(fd)
        if path.rpartition(b"/")[2] == DATABASE and path.count(b"/") <= DEEPEST_PROJECT:
            self._projects.append(path)
        self._report.progress.add(files=1)

    def hard_link(self, path: bytes, member: Member) -> None:
        """Give a file that came before another name."""
        first = _clean(member.target)
        if not first:
            self._report.problem(path, LEADS_OUT)
        elif first in self.links:
            self.links[path] = self.links[first]
        elif first != path:
            with paths.parent(self._root, first) as (old, old_name):
                folder, name = paths.folder_for(self._root, path)
                try:
                    self._free(folder, name, path)
                    os.link(old_name, name, src_dir_fd=old, dst_dir_fd=folder, follow_symlinks=False)
                finally:
                    os.close(folder)

    def link(self, path: bytes, member: Member) -> None:
        """Remember a symlink."""
        self.links[path] = (member.target, member.mtime_ns)

    def project(self) -> bytes:
        """The folder of the project, b"" for the top. Raises BadArchive unless there is just one."""
        found = sorted(set(self._projects), key=lambda path: path.count(b"/"))
        found = [path for path in found if path.count(b"/") == found[0].count(b"/")]
        if not found:
            raise BadArchive(
                "There is no Scipion project in this archive: no file 'project.sqlite' at its top or up to "
                f"{DEEPEST_PROJECT} folders below. Pack the folder that Scipion shows as the project."
            )
        if len(found) > 1:
            some = ", ".join(path.rpartition(b"/")[0].decode(errors="replace") for path in found[:5])
            raise BadArchive(f"There are {len(found)} projects in this archive ({some}); pack one of them.")
        with paths.parent(self._root, found[0]) as (folder, name):
            fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW, dir_fd=folder)
        try:
            if not looks_like_database(fd):
                raise BadArchive("The file 'project.sqlite' in this archive is not a database of Scipion.")
        finally:
            os.close(fd)
        return found[0].rpartition(b"/")[0]

    def finish_folders(self) -> None:
        """Give all folders their modes and times; we can always work in them."""
        for path in sorted(self._folders, reverse=True):
            mode, mtime = self._folders[path]
            try:
                fd = paths.open_folder(self._root, path)
            except OSError:  # a file of the same name came later
                continue
            try:
                os.fchmod(fd, (mode | 0o700) & FOLDER_BITS)
                os.utime(fd, ns=(mtime, mtime))
            finally:
                os.close(fd)

    def _free(self, folder: int, name: bytes, path: bytes) -> None:
        """Let what has a name already give way; a folder does not."""
        self.links.pop(path, None)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name, dir_fd=folder)

    def _fill(self, fd: int, member: Member) -> None:
        assert member.content is not None  # noqa: S101 - it is a file
        place = 0
        while chunk := member.content.read(_BLOCK):
            if chunk != _ZEROS:
                self._room.take(len(chunk))
                view = memoryview(chunk)
                while view:
                    view = view[os.pwrite(fd, view, place + len(chunk) - len(view)) :]
            place += len(chunk)
            if place > member.size:
                raise BadArchive("The archive is damaged: a file in it is larger than it says.")
        if place != member.size:
            raise BadArchive("The archive is damaged or cut off: a file in it is not whole.")
        os.ftruncate(fd, place)


_PUTTING = {
    EntryKind.FOLDER: _Unpacking.folder,
    EntryKind.FILE: _Unpacking.file,
    EntryKind.HARD_LINK: _Unpacking.hard_link,
    EntryKind.LINK: _Unpacking.link,
}


def _clean(path: bytes) -> bytes | None:
    """A path inside; None for one that is absolute or climbs."""
    parts = [part for part in path.split(b"/") if part not in (b"", b".")]
    if path.startswith(b"/") or b".." in parts or b"\0" in path:
        return None
    return b"/".join(parts)
