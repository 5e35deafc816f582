"""What the kernel can do with files and Python does not wrap, and what its errors mean for a storage."""

import ctypes
import errno
import os
import stat as modes
from datetime import UTC, datetime, timedelta
from pathlib import Path

from scipion_cloud.errors import (
    InvalidInput,
    ScipionCloudError,
    StorageDenied,
    StorageError,
    StorageExists,
    StorageFull,
    StorageMissing,
    StorageTransient,
)
from scipion_cloud.storage.base import Kind, Stat

_LIBC = ctypes.CDLL(None, use_errno=True)
_RENAME_NOREPLACE = 1
_OPENAT2 = 437  # the number of the system call, on every kind of processor; Linux has it since 5.6
_NO_SYMLINKS, _BENEATH = 0x04, 0x08
_AT_FDCWD = -100
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_LATEST = datetime(9999, 12, 31, tzinfo=UTC)
# types of file systems; subvolumes of btrfs have devices that no mount tells
_LOCAL = frozenset(("", "ext2", "ext3", "ext4", "xfs", "btrfs", "zfs", "f2fs", "tmpfs", "overlay"))
_PART = 8 * 1024 * 1024  # bytes that the kernel is asked to copy at a time

_Meaning = tuple[type[ScipionCloudError], str]
_GONE = (StorageMissing, "is not there")
_THERE = (StorageExists, "is there already")
_FULL = (StorageFull, "did not fit, the storage is full: free some space, or ask for more")
_DENIED = (StorageDenied, "is not open to the account that this service runs as")
_BUSY = (StorageTransient, "could not be reached just now")
_NO_NAME = (InvalidInput, "is no name that this file system holds")
_MEANINGS: dict[int, _Meaning] = {
    errno.ENOENT: _GONE,
    errno.ENOTDIR: _GONE,
    errno.EEXIST: _THERE,
    errno.ENOTEMPTY: _THERE,
    errno.ENOSPC: _FULL,
    errno.EDQUOT: _FULL,
    errno.EACCES: _DENIED,
    errno.EPERM: _DENIED,
    errno.EROFS: _DENIED,
    errno.EIO: _BUSY,
    errno.ESTALE: _BUSY,
    errno.EAGAIN: _BUSY,
    errno.EBUSY: _BUSY,
    errno.ETIMEDOUT: _BUSY,
    errno.EHOSTDOWN: _BUSY,
    errno.ENOTCONN: _BUSY,
    errno.ECONNABORTED: _BUSY,
    errno.ENFILE: _BUSY,
    errno.EMFILE: _BUSY,
    errno.ENOMEM: _BUSY,
    errno.ENAMETOOLONG: _NO_NAME,
    errno.EILSEQ: _NO_NAME,
    errno.EISDIR: (StorageError, "is a folder"),
    errno.ELOOP: (StorageError, "is a symlink, which is not followed"),
    errno.EXDEV: (StorageError, "is on another file system than the rest of the storage: use one for all"),
    errno.EFBIG: (StorageError, "is larger than the file system takes"),
}


class Explained:
    """Inside of it, errors of the system about a key become errors of the storage.

    With `making`, what is missing is a folder that was made a moment ago, and removed by somebody else.
    """

    __slots__ = ("key", "making")

    def __init__(self, key: str, making: bool = False) -> None:
        self.key = key
        self.making = making

    def __enter__(self) -> None:
        pass

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        if isinstance(error, OSError):
            if self.making and error.errno == errno.ENOENT:
                raise StorageTransient(f"The folder of {self.key!r} was removed meanwhile.") from error
            raise explained(error, self.key) from error


def explained(error: OSError, key: str) -> ScipionCloudError:
    """The error of the storage that an error of the system is."""
    kind, text = _MEANINGS.get(error.errno or 0, (StorageError, "could not be used"))
    return kind(f"{key!r} {text} ({error.strerror}).")


def stat_of(key: str, found: os.stat_result) -> Stat | None:
    """What stands under a key; None for what no storage holds: named pipes, sockets, devices."""
    if modes.S_ISREG(found.st_mode):
        return Stat(key, Kind.FILE, found.st_size, _time(found.st_mtime_ns))
    if modes.S_ISDIR(found.st_mode):
        return Stat(key, Kind.FOLDER, 0, _time(found.st_mtime_ns))
    if modes.S_ISLNK(found.st_mode):
        return Stat(key, Kind.LINK, 0, _time(found.st_mtime_ns))
    return None


def _time(ns: int) -> datetime:
    """A file's time, in the range that Python has: files may claim to be of the year 30000."""
    try:
        return _EPOCH + timedelta(microseconds=ns // 1000)
    except OverflowError:
        return _EPOCH if ns < 0 else _LATEST


def nanoseconds(time: datetime) -> int:
    """Since 1970."""
    return (time - _EPOCH) // timedelta(microseconds=1) * 1000


def copy_range(source: int, target: int, start: int, length: int) -> int:
    """Let the kernel copy a part of an open file to the same place of another; how many bytes it did.

    Fewer than asked for where it cannot, or not between these two, or where there is an error: the caller
    copies the rest by itself and learns whose error it is.
    """
    done = 0
    try:
        while done < length:
            place = start + done
            count = os.copy_file_range(source, target, min(_PART, length - done), place, place)
            if not count:
                break
            done += count
    except OSError:
        pass
    return done


def put(fd: int, data: bytes, place: int) -> None:
    """Write all of it to a place of an open file."""
    written = os.pwrite(fd, data, place)
    while written < len(data):
        written += os.pwrite(fd, memoryview(data)[written:], place + written)


def put_new(source_folder: int, source: str, folder: int | None, name: str) -> bool:
    """Give a file a name if that is free, in one step; whether it was free."""
    try:
        os.link(source, name, src_dir_fd=source_folder, dst_dir_fd=folder, follow_symlinks=False)
    except FileExistsError:
        # NFS may have done it, lost the answer, and asked again
        linked = os.stat(source, dir_fd=source_folder).st_nlink > 1
        if not linked:
            return False
    except OSError as e:
        if e.errno not in (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK):
            raise
        return rename_new(source_folder, source, folder, name)  # no hard links here: FAT, some of FUSE
    os.unlink(source, dir_fd=source_folder)
    return True


class _How(ctypes.Structure):
    _fields_ = (("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64))


def open_below(folder: int, path: bytes, flags: int) -> int | None:
    """Open what is there at a path below an open folder, with no symlink on the way or at its end.

    It is one step for the kernel. None: it did not work, and only the way part by part tells why.
    """
    how = _How(flags | os.O_CLOEXEC, 0, _NO_SYMLINKS | _BENEATH)
    fd: int = _LIBC.syscall(_OPENAT2, folder, path, ctypes.byref(how), ctypes.sizeof(how))
    return fd if fd >= 0 else None


def rename_new(source_folder: int, source: str, folder: int | None, name: str) -> bool:
    """Rename a file unless something has the new name; whether nothing had."""
    target_folder = _AT_FDCWD if folder is None else folder
    done = _LIBC.renameat2(
        source_folder, os.fsencode(source), target_folder, os.fsencode(name), _RENAME_NOREPLACE
    )
    if done and ctypes.get_errno() != errno.EEXIST:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return not done


def sync_file_system(fd: int, name: str) -> None:
    """Bring to the disk all that was written to the file system of an open folder.

    Raises StorageError for what the disk did not take since the folder was opened.
    """
    if _LIBC.syncfs(fd):
        number = ctypes.get_errno()
        if number in (errno.ENOSPC, errno.EDQUOT):
            raise explained(OSError(number, os.strerror(number)), name)
        # not to be tried again: the kernel has dropped what the disk refused, and would report success
        raise StorageError(
            f"{name} did not take all that was written to it ({os.strerror(number)}): check the disk, "
            "then save again."
        )


def syncs_as_a_whole(path: str) -> bool:
    """Whether `sync_file_system` does anything there; on file systems outside of the kernel it may not."""
    return not _type_at(path).startswith(("fuse", "9p"))


def is_local(path: str) -> bool:
    """Whether a path is on a disk of this machine, or in its memory, and not on a network. Raises OSError."""
    return _type_at(path) in _LOCAL


def _type_at(path: str) -> str:
    mounts = Path("/proc/self/mountinfo").read_text(errors="replace")
    return type_of_mount(Path(path).stat().st_dev, mounts)


def type_of_mount(device: int, mounts: str) -> str:
    """The type of the file system of a device, by the text of mountinfo; "" if that does not tell."""
    number = f"{os.major(device)}:{os.minor(device)}"
    for line in mounts.splitlines():
        fields = line.split(" ")
        if fields[2] == number:
            return fields[fields.index("-") + 1]
    return ""
