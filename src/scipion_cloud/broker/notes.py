"""What the broker keeps of a job, in the job's folder: how far it is, and what goes to the site.

`away.json` says which phase is next; it is written before anything of that phase is done.
"""

from datetime import UTC, datetime
from typing import Any

from scipion_cloud.broker.contents import Contents
from scipion_cloud.errors import InvalidInput, TransferError
from scipion_cloud.jobs import JobId
from scipion_cloud.jobs.folder import JobFolder

STATE, CONTENTS = "away.json", "contents.json"


class Notes:
    """The notes on one job."""

    def __init__(self, folder: JobFolder) -> None:
        self.folder = folder
        self._state: dict[str, Any] = folder.read(STATE) or {"phase": "pack", "attempt": 1}

    @property
    def phase(self) -> str:
        """What is to be done next."""
        return str(self._state["phase"])

    @property
    def attempt(self) -> int:
        """Which attempt this is, from 1."""
        return int(self._state["attempt"])

    @property
    def remote(self) -> JobId | None:
        """The number that the job has at the site."""
        return self._state.get("remote")

    @property
    def outcome(self) -> dict[str, Any]:
        """How the job ended at the site: `state`, `exit_code`, `reason`. Only once it has."""
        found: dict[str, Any] = self._state["outcome"]
        return found

    @property
    def started(self) -> datetime | None:
        """When it started at the site, as last heard."""
        text = self._state.get("started")
        return datetime.fromisoformat(text).astimezone(UTC) if text else None

    def saw_start(self, started: datetime | None) -> None:
        """Remember when it started; committed with the next phase."""
        self._state["started"] = started.isoformat() if started else None

    def go(self, phase: str, **facts: Any) -> None:
        """Commit the next phase and what is known for it. Raises TransferError when the disk refuses."""
        self._commit({**self._state, **facts, "phase": phase})

    def go_again(self) -> None:
        """Commit the next attempt: nothing of the last one counts any more. Raises TransferError."""
        self._commit({"phase": "send", "attempt": self.attempt + 1})

    @property
    def began(self) -> bool:
        """Whether this attempt has the run's folder at the site: what is in it is its own."""
        return bool(self._state.get("began"))

    def keep_contents(self, contents: Contents) -> None:
        """Keep what goes to the site. Raises TransferError when the disk refuses."""
        self._write(CONTENTS, contents.to_json())

    def contents(self) -> Contents:
        """What goes to the site. Raises InvalidInput if somebody has removed it."""
        found = self.folder.read(CONTENTS)
        if found is None:
            raise InvalidInput(f"{self.folder.path / CONTENTS} has been removed; submit the job again.")
        return Contents.from_json(found)

    def _commit(self, state: dict[str, Any]) -> None:
        self._write(STATE, state)
        self._state = state

    def _write(self, name: str, content: dict[str, Any]) -> None:
        try:
            self.folder.path.mkdir(exist_ok=True)
            self.folder.write(name, content)
        except OSError as e:
            raise TransferError(f"{self.folder.path} cannot be written: {e.strerror}.") from e
