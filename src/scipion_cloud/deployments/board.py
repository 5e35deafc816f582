"""Where the parts of an agent put what they have to say, and readers find it."""

import contextlib
import threading
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from scipion_cloud.deployments.states import TRANSITIONS, Phase
from scipion_cloud.deployments.status import STATUS_FILE, AgentStatus, LeftOut, Trouble
from scipion_cloud.sync.progress import Problem

_PERIOD = 0.5  # s between two writes
_ERRORS = 10
_PROBLEMS = 100

Live = Callable[[], dict[str, Any]]


class Board:
    """The status of one agent. Thread-safe. Use it in a `with` block: within, it is written to a file.

    `live` gives the fields that change by themselves (amounts, the lease); it is asked for each reading.
    """

    def __init__(self, status: AgentStatus, state: Path, live: Live = dict) -> None:
        self._status, self._file, self.live = status, state / STATUS_FILE, live
        self._lock = threading.Lock()
        self._changed = threading.Event()
        self._end = threading.Event()
        self._writer = threading.Thread(target=self._write, name="status", daemon=True)
        self._written = b""

    def __enter__(self) -> "Board":
        self._changed.set()
        self._writer.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._changed.set()
        self._writer.join()

    @property
    def phase(self) -> Phase:
        """Where the deployment stands."""
        return self._status.phase

    @property
    def deadline(self) -> datetime | None:
        """When the deployment closes by itself."""
        return self._status.deadline

    def read(self) -> AgentStatus:
        """The status now."""
        live = self.live()
        with self._lock:
            return replace(self._status, **live)

    def set(self, **fields: Any) -> None:
        """Change fields."""
        with self._lock:
            self._status = replace(self._status, updated=datetime.now(UTC), **fields)
        self._changed.set()

    def enter(self, phase: Phase, message: str, **fields: Any) -> None:
        """Change the phase. Raises AssertionError for a step that there is not."""
        before = self._status.phase
        if phase is not before and phase not in TRANSITIONS[before]:
            raise AssertionError(f"a deployment does not go from {before} to {phase}")
        self.set(phase=phase, message=message, **fields)

    def error(self, text: str) -> None:
        """Add to the latest errors; the same text again only gets a new time."""
        with self._lock:
            others = [e for e in self._status.errors if e.text != text]
            errors = (Trouble(datetime.now(UTC), text), *others)[:_ERRORS]
        self.set(errors=errors)

    def problems(self, found: tuple[Problem, ...]) -> None:
        """What the last save left out."""
        shown = tuple(LeftOut(readable(p.path), p.text) for p in found[:_PROBLEMS])
        self.set(problems=shown, problems_total=len(found))

    def _write(self) -> None:
        while not self._end.is_set():
            self._changed.wait(_PERIOD)
            self._changed.clear()
            self._write_once()
            self._end.wait(_PERIOD)
        self._write_once()

    def _write_once(self) -> None:
        content = self.read().to_json()
        if content == self._written:
            return
        with contextlib.suppress(OSError):  # a full disk; the socket still tells
            fresh = self._file.with_name(f".{STATUS_FILE}.new")
            fresh.write_bytes(content)
            fresh.replace(self._file)
            self._written = content


def readable(path: bytes) -> str:
    """A path for people and JSON."""
    text = path.decode(errors="backslashreplace")
    return text if text.isprintable() else text.encode("unicode_escape").decode()
