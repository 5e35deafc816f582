"""The locks of the systems before this one.

West-Life: `.deployment_status_do_not_delete/lock` with lines HOST, MOUNT, DIR, USER, DATE; never refreshed.
Scipion in Kubernetes: `scipion-docker/project.lock`, either empty and never refreshed, or the seconds since
1970, written again every two minutes.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum

from scipion_cloud.errors import StorageMissing
from scipion_cloud.storage import Kind, Stat, Storage
from scipion_cloud.sync.lock_files import storage_time
from scipion_cloud.sync.lock_info import span

WLC_FOLDER = ".deployment_status_do_not_delete"
WLC_LOCK = f"{WLC_FOLDER}/lock"
WLC_LINKS = f"{WLC_FOLDER}/linklist"
K8S_FOLDER = "scipion-docker"
K8S_LOCKS = (f"{K8S_FOLDER}/project.lock", "project.lock")
K8S_LINKS = ("symlink-dump", f"{K8S_FOLDER}/symlink-dump")

REFRESHED = timedelta(minutes=10)  # the old system itself took a refreshed lock for stale after that
LONGEST = timedelta(days=31)  # a lock that is never refreshed: the longest deployment took 30 days
SMALL = 1 << 16  # bytes; a lock is not larger

_LINE = re.compile(r"""\s*([A-Za-z]+)\s*[:=\s]\s*["']?(.*?)["']?\s*""")


class System(StrEnum):
    """Who left a project behind."""

    WLC = "the West-Life portal"
    K8S = "Scipion in Kubernetes"


@dataclass(frozen=True)
class OldLock:
    """A lock of an earlier system."""

    system: System
    key: str
    holder: str  # in words; empty if it names nobody
    silent: timedelta  # since the last sign of life of its deployment, by the storage's clock
    live: bool  # its deployment may still be working, and would overwrite or delete what is saved
    values: Mapping[str, str]  # what the file says, names in upper case

    def describe(self) -> str:
        """Whose it is and what to do about it."""
        by = f", opened by {self.holder}" if self.holder else ""
        said = f"It is locked by {self.system}{by}; the last sign of life was {span(self.silent)} ago."
        if self.live:
            return (
                f"{said} Close it there first. If that deployment is gone for good, remove the file "
                f"'{self.key}' in the storage and try again."
            )
        return f"{said} That is so long that its deployment must be gone; say so to pass over the lock."


def read_locks(storage: Storage, signs: Iterable[Stat]) -> list[OldLock]:
    """The earlier systems' locks; `signs` are files that a deployment would have written meanwhile."""
    found = [(system, stat) for system, key in _places() if (stat := _stat(storage, key))]
    if not found:
        return []
    now = storage_time(storage)
    newest = [sign.modified for sign in signs]
    return [_read(storage, system, stat, newest, now) for system, stat in found]


def _places() -> list[tuple[System, str]]:
    return [(System.WLC, WLC_LOCK), *((System.K8S, key) for key in K8S_LOCKS)]


def _stat(storage: Storage, key: str) -> Stat | None:
    try:
        stat = storage.stat(key)
    except StorageMissing:
        return None
    return stat if stat.kind is Kind.FILE else None


def _read(storage: Storage, system: System, stat: Stat, newest: list[datetime], now: datetime) -> OldLock:
    text = b"".join(storage.read(stat.key, 0, SMALL)).decode(errors="replace")
    values = _values(text)
    refreshed = _seconds(text) if system is System.K8S else None
    signs = [stat.modified, *newest, *([refreshed] if refreshed else [])]
    silent = max(now - max(signs), timedelta())
    holder = " on ".join(values[name] for name in ("USER", "HOST") if values.get(name))
    if holder and values.get("DATE"):
        holder += f" ({values['DATE']})"
    limit = LONGEST if refreshed is None else REFRESHED
    return OldLock(system, stat.key, holder, silent, silent <= limit, values)


def _values(text: str) -> dict[str, str]:
    lines = (_LINE.fullmatch(line) for line in text.splitlines())
    return {line[1].upper(): line[2] for line in lines if line}


def _seconds(text: str) -> datetime | None:
    try:
        return datetime.fromtimestamp(float(text), UTC)
    except (ValueError, OverflowError, OSError):
        return None
