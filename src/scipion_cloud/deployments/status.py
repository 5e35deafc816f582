"""What an agent says about itself: to the portal, to the command line, to the page and to scripts."""

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from pydantic import TypeAdapter

from scipion_cloud.deployments.states import Phase

SCHEMA_VERSION = 1
STATUS_FILE = "status.json"


@dataclass(frozen=True)
class Transfer:
    """How far a copy has come."""

    files_done: int = 0
    files_total: int = 0
    bytes_done: int = 0
    bytes_total: int = 0
    rate: float | None = None  # bytes a second
    seconds_left: float | None = None  # None while nobody can tell


@dataclass(frozen=True)
class Arriving:
    """What is still on its way although work has begun."""

    files: int
    bytes: int


@dataclass(frozen=True)
class Trouble:
    """Something that went wrong, with what to do about it."""

    time: datetime
    text: str


@dataclass(frozen=True)
class LeftOut:
    """A file that is not saved as it is, and why."""

    path: str  # bytes that are no text are shown as \\x..
    text: str


@dataclass(frozen=True)
class LeaseStatus:
    """The lock that this agent holds."""

    epoch: int
    holder: str
    since: datetime
    renewed: datetime | None


@dataclass(frozen=True)
class AgentStatus:
    """One deployment at one moment. Times are UTC."""

    phase: Phase
    message: str  # one sentence for people
    storage: str  # URL
    work: str
    deployment: str
    pid: int
    host: str
    started: datetime
    updated: datetime
    source_storage: str | None = None  # URL
    project: Transfer | None = None  # the project's way here
    source: Transfer | None = None  # the source's way here
    saving: Transfer | None = None  # the save that is running
    arriving: Arriving | None = None  # READY, but these are still coming
    generation: int | None = None  # what the working copy was when it was last restored or saved
    last_saved: datetime | None = None  # when the newest generation was made
    last_checked: datetime | None = None  # when all that was here was last known to be in the storage
    next_save: datetime | None = None
    unsaved: bool = False  # work may be here that the last save did not get into the storage
    errors: tuple[Trouble, ...] = ()  # the latest ones, newest first
    problems: tuple[LeftOut, ...] = ()  # the first hundred
    problems_total: int = 0
    question: str | None = None  # what POST /confirm would allow, once
    deadline: datetime | None = None  # when it closes by itself
    warning: str | None = None  # the deadline is near
    closing: bool = False  # it has been told to close
    lease: LeaseStatus | None = None
    exit_code: int | None = None  # once it has ended
    versions: dict[str, str] = field(default_factory=dict)
    schema_version: int = SCHEMA_VERSION

    def to_json(self) -> bytes:
        """As it is written to status.json and served at /status."""
        return _ADAPTER.dump_json(self, indent=2)

    @classmethod
    def from_json(cls, data: bytes) -> "AgentStatus":
        """Raises ValueError if it is none."""
        return _ADAPTER.validate_json(data)


_ADAPTER = TypeAdapter(AgentStatus)


def schema() -> dict[str, Any]:
    """The JSON schema of the status."""
    return {"title": "AgentStatus", **_ADAPTER.json_schema(mode="serialization")}
