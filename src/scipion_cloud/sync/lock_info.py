"""What a lock says: who has a project open, where, since when, and in what state the lock is."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

GRACE = timedelta(seconds=2)  # clocks of storages tell whole seconds, some cut and some rounded
LONGEST_TTL = timedelta(days=1)
UNKNOWN_TTL = timedelta(minutes=10)  # of a lock that cannot be read


@dataclass(frozen=True)
class Takeover:
    """How a lock came to follow one that its holder had not released."""

    deployment: str  # whose lock it was
    user: str
    host: str
    epoch: int
    why: str
    when: datetime  # UTC, by the clock of the one that took over
    forced: bool  # it had not expired yet


@dataclass(frozen=True)
class LockInfo:
    """One lock file."""

    epoch: int
    deployment: str
    host: str
    user: str
    pid: int
    parameters: Mapping[str, str]  # as site, work (the working copy), deadline; never secrets
    acquired: datetime  # UTC, by the holder's clock, for people to read; nothing is decided by it
    renewed: datetime
    ttl: timedelta
    nonce: str  # tells one writer from every other
    generation: int | None = None  # the last one that the holder saved
    released: datetime | None = None
    took_over: Takeover | None = None
    settled: bool = False  # its holder has made sure that every lower epoch is over
    renewals: int = 0
    silent: timedelta = field(default=timedelta(), compare=False)  # since it was written; the storage's clock

    @property
    def expired(self) -> bool:
        """Not released, and not renewed in time."""
        return self.released is None and self.silent > self.ttl + GRACE

    @property
    def live(self) -> bool:
        """Somebody may be writing under this lock."""
        return self.released is None and not self.expired

    @property
    def left(self) -> timedelta:
        """Until it expires unless it is renewed."""
        return max(self.ttl + GRACE - self.silent, timedelta())

    def same_place(self, other: "LockInfo") -> bool:
        """Whether it is the same deployment on the same host, after a crash for example."""
        return bool(self.nonce) and (self.deployment, self.host) == (other.deployment, other.host)

    def to_json(self) -> bytes:
        """The lock file."""
        values = {
            "epoch": self.epoch,
            "deployment": self.deployment,
            "host": self.host,
            "user": self.user,
            "pid": self.pid,
            "parameters": dict(self.parameters),
            "acquired": self.acquired.isoformat(),
            "renewed": self.renewed.isoformat(),
            "ttl_s": self.ttl.total_seconds(),
            "nonce": self.nonce,
            "generation": self.generation,
            "released": self.released.isoformat() if self.released else None,
            "took_over": _takeover_values(self.took_over),
            "settled": self.settled,
            "renewals": self.renewals,
        }
        return json.dumps(values, indent=1, sort_keys=True).encode() + b"\n"

    @classmethod
    def parse(cls, epoch: int, data: bytes, silent: timedelta) -> "LockInfo":
        """What a lock file says. One that says nothing sensible is somebody's lock all the same."""
        try:
            values = json.loads(data)
            released = values["released"]
            ttl = timedelta(seconds=float(values["ttl_s"]))
            return cls(
                epoch=epoch,
                deployment=str(values["deployment"]),
                host=str(values["host"]),
                user=str(values["user"]),
                pid=int(values["pid"]),
                parameters={str(k): str(v) for k, v in values["parameters"].items()},
                acquired=_time(values["acquired"]),
                renewed=_time(values["renewed"]),
                ttl=min(max(ttl, timedelta()), LONGEST_TTL),
                nonce=str(values["nonce"]),
                generation=None if values["generation"] is None else int(values["generation"]),
                released=None if released is None else _time(released),
                took_over=_takeover(values["took_over"]),
                settled=values["settled"] is True,
                renewals=int(values["renewals"]),
                silent=silent,
            )
        except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError):
            return cls._unreadable(epoch, silent)

    @classmethod
    def _unreadable(cls, epoch: int, silent: timedelta) -> "LockInfo":
        never = datetime.fromtimestamp(0, UTC)
        who = "unknown"
        return cls(epoch, who, who, who, 0, {}, never, never, UNKNOWN_TTL, "", silent=silent)

    def describe(self) -> str:
        """Who holds the project, where, since when and until when, in one sentence or two."""
        if not self.nonce:
            return f"Its lock file of epoch {self.epoch} cannot be read; {self._state()}."
        where = f" in {self.parameters['work']}" if self.parameters.get("work") else ""
        site = f" at {self.parameters['site']}" if self.parameters.get("site") else ""
        saved = "" if self.generation is None else f" Last saved there: generation {self.generation}."
        return (
            f"It was opened by {self.user or 'somebody'} on {self.host}{site}{where} (deployment "
            f"{self.deployment}) on {moment(self.acquired)}; {self._state()}.{saved}"
        )

    def _state(self) -> str:
        if self.released is not None:
            return f"it was closed on {moment(self.released)}"
        said = f"its lock was renewed {span(self.silent)} ago"
        if self.expired:
            return f"{said} for the last time and has expired"
        return f"{said} and expires in {span(self.left)} unless it is renewed again"


def moment(when: datetime) -> str:
    """A time as people read it, UTC."""
    return f"{when.astimezone(UTC):%d %b %Y %H:%M} UTC"


def span(length: timedelta) -> str:
    """A length of time as people say it."""
    seconds = max(int(length.total_seconds()), 0)
    for size, name in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds // size} {name}"
    return f"{seconds} s"


def _time(text: str) -> datetime:
    when = datetime.fromisoformat(text)
    if when.tzinfo is None:
        raise ValueError("a time without its zone")
    return when.astimezone(UTC)


def _takeover(values: Any) -> Takeover | None:
    if values is None:
        return None
    return Takeover(
        str(values["deployment"]),
        str(values["user"]),
        str(values["host"]),
        int(values["epoch"]),
        str(values["why"]),
        _time(values["when"]),
        values["forced"] is True,
    )


def _takeover_values(takeover: Takeover | None) -> dict[str, Any] | None:
    return None if takeover is None else {**vars(takeover), "when": takeover.when.isoformat()}
