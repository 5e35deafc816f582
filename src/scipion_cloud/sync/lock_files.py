"""The lock files in a storage, and what time it is there."""

import re
import uuid
from contextlib import suppress
from datetime import datetime, timedelta

from scipion_cloud.errors import StorageError, StorageMissing
from scipion_cloud.storage import Kind, Stat, Storage
from scipion_cloud.sync.layout import CLOCK, LOCKS, lock_key
from scipion_cloud.sync.lock_info import LockInfo

_NAME = re.compile(r"(\d{10})\.json")


def storage_time(storage: Storage) -> datetime:
    """What time it is now by the storage's own clock: the time of a file that is written for it."""
    key = f"{CLOCK}/{uuid.uuid4().hex}"
    storage.write(key, b"What time is it?\n")
    try:
        return storage.stat(key).modified
    finally:
        with suppress(StorageError):  # litter harms nobody
            storage.remove(key)


def epochs(storage: Storage) -> dict[int, Stat]:
    """The lock files by epoch."""
    names = ((stat, _NAME.fullmatch(stat.key.rpartition("/")[2])) for stat in storage.children(LOCKS))
    return {int(name[1]): stat for stat, name in names if name and stat.kind is Kind.FILE}


def read_lock(storage: Storage, stat: Stat, now: datetime) -> LockInfo | None:
    """What a lock file says that is as old as `stat` tells; None if it is gone.

    `now` is the storage's time, taken before `stat` was: a lock seems younger then, never older, than it is.
    """
    epoch = int(stat.key.rpartition("/")[2].removesuffix(".json"))
    try:
        data = storage.read_bytes(stat.key)
    except StorageMissing:
        return None
    return LockInfo.parse(epoch, data, max(now - stat.modified, timedelta()))


def newest(storage: Storage, now: datetime) -> LockInfo | None:
    """The lock of the highest epoch."""
    files = epochs(storage)
    return read_lock(storage, files[max(files)], now) if files else None


def prune(storage: Storage, highest: int, keep: int) -> None:
    """Remove all but the last lock files; those below `highest` have to be over."""
    for epoch in epochs(storage):
        if epoch <= highest - keep:
            storage.remove(lock_key(epoch))
