"""What an agent is told at its start."""

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path

from scipion_cloud.storage import Storage
from scipion_cloud.sync.retention import Retention


@dataclass(frozen=True)
class AgentSettings:
    """One deployment: which project, where to, how often it is saved."""

    storage: Storage  # the project's
    work: Path  # the Scipion project's folder
    state: Path  # the agent's own; on the same file system
    source: Storage | None = None  # a read-only dataset
    source_target: Path | None = (
        None  # where the source appears; NAME.source beside the working copy NAME if None
    )
    every: timedelta = timedelta(seconds=120)  # from the end of one save to the next
    deployment: str | None = None  # made once and kept in the state folder if None
    deadline: datetime | None = None  # when it closes by itself
    generation: int | None = None  # begin with this one instead of the newest
    user: str = ""  # for whom; the lock shows it
    take_over: str = ""  # why the lock of somebody else may be broken, if it may
    import_legacy: bool = False  # what a predecessor left in the storage becomes generation 1
    remove_work: bool = False  # empty the working copy once all is in the storage
    stop_grace: timedelta = timedelta(0)  # from the wish to close to the final save, for programs to finish
    trust_lock: bool = False  # the storage cannot keep two writers apart, and somebody promises to
    max_deleted: float = 0.5  # a save that would remove more than this share asks first
    retention: Retention = field(default_factory=Retention)
    lease_ttl: timedelta = timedelta(minutes=5)
    first_wait: timedelta = timedelta(seconds=2)  # before the first new try; doubles
    longest_wait: timedelta = timedelta(minutes=5)

    @property
    def source_folder(self) -> Path:
        """Where the source appears."""
        return self.source_target or self.work.with_name(f"{self.work.name}.source")


def default_state(work: Path) -> Path:
    """The agent's own folder for a working copy: its hidden sibling."""
    work = work.absolute()
    return work.with_name(f".{work.name}.agent")
