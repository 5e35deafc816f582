"""What errors, times and mounts of the system mean."""

import errno
import os
from datetime import UTC, datetime

import pytest

from scipion_cloud.errors import (
    InvalidInput,
    StorageDenied,
    StorageError,
    StorageFull,
    StorageMissing,
    StorageTransient,
)
from scipion_cloud.storage.base import Kind
from scipion_cloud.storage.linux import (
    Explained,
    is_local,
    nanoseconds,
    stat_of,
    sync_file_system,
    syncs_as_a_whole,
    type_of_mount,
)

MOUNTS = """22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw,discard
37 22 0:33 / /mnt/my\\040data rw,nosuid - fuse.sshfs user@host:/ rw,user_id=0
38 22 0:34 / /host rw shared:2 master:1 - 9p host rw,trans=virtio
"""


@pytest.mark.parametrize(
    ("number", "kind"),
    [
        (errno.ENOENT, StorageMissing),
        (errno.EACCES, StorageDenied),
        (errno.EROFS, StorageDenied),
        (errno.ENOSPC, StorageFull),
        (errno.EDQUOT, StorageFull),
        (errno.EIO, StorageTransient),
        (errno.ESTALE, StorageTransient),
        (errno.ENAMETOOLONG, InvalidInput),
        (errno.EXDEV, StorageError),
        (errno.EINVAL, StorageError),
    ],
)
def test_errors(number: int, kind: type[Exception]) -> None:
    with pytest.raises(kind, match=r"'a/b' .*\.") as caught, Explained("a/b"):
        raise OSError(number, os.strerror(number))
    assert caught.type is kind
    assert os.strerror(number) in str(caught.value)


def test_other_errors_come_through() -> None:
    with pytest.raises(KeyError), Explained("a"):
        raise KeyError


def test_a_disk_that_refuses_is_told_once_and_not_asked_again() -> None:
    with pytest.raises(StorageError, match="check the disk") as caught:
        sync_file_system(-1, "/data")
    assert caught.type is StorageError  # not transient: a second time the kernel would report success


@pytest.mark.parametrize(
    ("ns", "expected"),
    [
        (0, datetime(1970, 1, 1, tzinfo=UTC)),
        (1_500_000_123_456_789, datetime(1970, 1, 18, 8, 40, 0, 123_456, UTC)),
        (-1, datetime(1969, 12, 31, 23, 59, 59, 999_999, UTC)),
        (10**12 * 10**9, datetime(9999, 12, 31, tzinfo=UTC)),
        (-(10**12) * 10**9, datetime(1970, 1, 1, tzinfo=UTC)),
    ],
)
def test_times(ns: int, expected: datetime) -> None:

    system = os.stat_result([0o100644, 0, 0, 1, 0, 0, 3, 0, 0, 0], {"st_mtime_ns": ns})
    found = stat_of("a", system)
    assert found is not None
    assert (found.kind, found.size, found.modified) == (Kind.FILE, 3, expected)


def test_times_and_back() -> None:
    time = datetime(2026, 5, 4, 3, 2, 1, 123_456, UTC)
    assert nanoseconds(time) == int(time.timestamp()) * 10**9 + 123_456_000


@pytest.mark.parametrize(
    ("device", "kind"), [((254, 0), "ext4"), ((0, 33), "fuse.sshfs"), ((0, 34), "9p"), ((0, 99), "")]
)
def test_types_of_mounts(device: tuple[int, int], kind: str) -> None:
    assert type_of_mount(os.makedev(*device), MOUNTS) == kind


def test_this_machines_shared_memory_is_in_the_kernel() -> None:
    assert syncs_as_a_whole("/dev/shm")
    assert is_local("/dev/shm")
    assert not is_local("/proc")
