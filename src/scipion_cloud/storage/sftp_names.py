"""What SFTP does with names: renames, folders, links; with what servers lack made up for.

Every function may raise SftpStatus; the connection is as good as before.
"""

import stat
import struct
from collections.abc import Callable, Iterable
from contextlib import suppress

from scipion_cloud.errors import StorageError
from scipion_cloud.storage.sftp_protocol import READ, Ask, Code, Protocol, SftpStatus, open_file, string

FSYNC = b"fsync@openssh.com"
HARDLINK = b"hardlink@openssh.com"
POSIX_RENAME = b"posix-rename@openssh.com"
STATVFS = b"statvfs@openssh.com"
OPENSSH = {FSYNC, HARDLINK, POSIX_RENAME}  # others than OpenSSH claim to make hard links, and do not
OPEN_AT_ONCE = 100  # folders; servers have a limit


def parent(path: bytes) -> bytes:
    """The folder of a path; of '/' and '.' themselves."""
    folder, slash, _ = path.rpartition(b"/")
    return folder or (slash or b".")


def there(sftp: Protocol, path: bytes) -> bool:
    """Whether anything stands at a path."""
    try:
        sftp.ask(Ask.LSTAT, string(path))
    except SftpStatus as e:
        if e.code != Code.NO_SUCH_FILE:
            raise
        return False
    return True


def make_folder(sftp: Protocol, path: bytes) -> list[bytes]:
    """Make a folder and those above it; which were made. Raises StorageError where a file is in the way."""
    try:
        sftp.ask(Ask.MKDIR, string(path), bytes(4))
    except SftpStatus as e:
        if e.code == Code.NO_SUCH_FILE and parent(path) != path:
            return make_folder(sftp, parent(path)) + make_folder(sftp, path)
        try:
            mode = sftp.attributes(sftp.send(Ask.STAT, string(path))).mode
        except SftpStatus:
            raise e from None
        if mode is not None and not stat.S_ISDIR(mode):
            raise StorageError(f"{path.decode(errors='replace')!r} is no folder on the SFTP server.") from e
        return []
    return [path]


def in_folder(sftp: Protocol, path: bytes, act: Callable[[], object]) -> list[bytes]:
    """Do what puts something at `path`, with its folder made if that is what it lacks; which were made."""
    try:
        act()
    except SftpStatus as e:
        if e.code != Code.NO_SUCH_FILE:
            raise
        made = make_folder(sftp, parent(path))
        act()
        return made
    return []


def rename(sftp: Protocol, old: bytes, new: bytes) -> list[bytes]:
    """Replace what stands at `new`, in one step where the server can; which folders were made for it."""
    names = string(old), string(new)

    def act() -> None:
        if POSIX_RENAME in sftp.extensions:
            sftp.extended(POSIX_RENAME, *names)
            return
        try:
            sftp.ask(Ask.RENAME, *names)
        except SftpStatus as e:
            if e.code == Code.NO_SUCH_FILE:
                raise
            sftp.ask(Ask.REMOVE, string(new))  # refused where it is a folder
            sftp.ask(Ask.RENAME, *names)

    try:
        act()
    except SftpStatus as e:
        if e.code != Code.NO_SUCH_FILE or not there(sftp, old):
            raise
        made = make_folder(sftp, parent(new))
        act()
        return made
    return []


def link(sftp: Protocol, old: bytes, new: bytes) -> bool:
    """Give the file `old` the name `new` if nothing has it, by a hard link; False where there are none."""
    try:
        sftp.extended(HARDLINK, string(old), string(new))
    except SftpStatus as e:
        if e.code == Code.NO_SUCH_FILE or there(sftp, new):
            raise
        return False
    sftp.ask(Ask.REMOVE, string(old))
    return True


def rename_unless_there(sftp: Protocol, old: bytes, new: bytes) -> None:
    """The same by the protocol's own rename, which should refuse to replace; some servers do replace."""
    if there(sftp, new):
        raise SftpStatus(Code.FAILURE, "it exists")
    sftp.ask(Ask.RENAME, string(old), string(new))


def is_full(sftp: Protocol, path: bytes, size: int) -> bool:
    """Whether the disk has no room for `size` bytes: SFTP itself has no word for it."""
    if STATVFS not in sftp.extensions:
        return False
    with suppress(SftpStatus, struct.error):
        numbers = struct.unpack_from(">11Q", sftp.extended(STATVFS, string(path)))
        block, free, files, free_files = numbers[1], numbers[4], numbers[5], numbers[7]
        return bool(block * free < size + block or (files and not free_files))
    return False


def sync_folders(sftp: Protocol, paths: Iterable[bytes]) -> None:
    """Put the names in folders onto the server's disk; folders that are gone are fine."""
    waiting = list(paths) if FSYNC in sftp.extensions else []
    while waiting:
        now, waiting = waiting[:OPEN_AT_ONCE], waiting[OPEN_AT_ONCE:]
        opened = [sftp.send(Ask.OPEN, *open_file(path, READ)) for path in now]
        asked = []
        for number in opened:
            with suppress(SftpStatus):  # gone, or a server that opens no folders
                handle = sftp.handle(number)
                asked.append(sftp.send(Ask.EXTENDED, string(FSYNC), handle))
                sftp.forget(sftp.send(Ask.CLOSE, handle))
        refusals = []
        for number in asked:
            try:
                sftp.reply(number)
            except SftpStatus as e:
                refusals.append(e)
        for refusal in refusals:
            if refusal.code not in (Code.BAD_MESSAGE, Code.OP_UNSUPPORTED):  # a file system that has it not
                raise refusal
