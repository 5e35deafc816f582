"""The two small files in a desktop's folder: what is wanted (`desktop.json`) and what is (`state.json`)."""

import json
import os
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, Self

from scipion_cloud.errors import DesktopError

SOCKET = "vnc.sock"


class Phase(StrEnum):
    """How far a session has come."""

    STARTING = "starting"
    X_READY = "x-ready"  # the screen can be looked at; Scipion is loading
    SCIPION_READY = "scipion-ready"
    SCIPION_CLOSED = "scipion-closed"  # by its user; the panel opens it again
    ENDED = "ended"


@dataclass(frozen=True)
class DesktopSettings:
    """What a session shows. `command` is Scipion's, run in `project` with the variables of `environ`."""

    project: str
    title: str
    command: list[str]
    environ: dict[str, str]
    geometry: str = "1280x800"  # pixels, until the browser says its own size

    def write(self, folder: Path) -> None:
        """Save as `desktop.json` in a folder that only the owner can enter, which is made if needed."""
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        _write(folder / "desktop.json", asdict(self))

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Read `desktop.json`. Raises DesktopError if it is missing or damaged."""
        try:
            return cls(**json.loads((folder / "desktop.json").read_text()))
        except (OSError, ValueError, TypeError) as e:
            raise DesktopError(f"{folder / 'desktop.json'} cannot be read ({e}); open a new desktop.") from e


@dataclass(frozen=True)
class SessionState:
    """What a session tells about itself."""

    phase: Phase = Phase.STARTING
    display: str = ""
    pids: dict[str, int] = field(default_factory=dict)
    message: str = ""

    def write(self, folder: Path) -> None:
        """Save as `state.json`."""
        _write(folder / "state.json", asdict(self))

    @classmethod
    def read(cls, folder: Path) -> Self:
        """The session's last word; STARTING if it has said nothing yet."""
        try:
            values = json.loads((folder / "state.json").read_text())
            return cls(**{**values, "phase": Phase(values["phase"])})
        except (OSError, ValueError, TypeError, KeyError):
            return cls()


def _write(file: Path, values: dict[str, Any]) -> None:
    """Replace a JSON file at once, so that nobody reads half of it; readable by the owner only."""
    fresh = file.with_name(f".{file.name}.{os.getpid()}")
    with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as stream:
        json.dump(values, stream, indent=1)
    fresh.replace(file)
