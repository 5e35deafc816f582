"""STATE.json: where a chain of protocols stands, for those who watch it from outside."""

import json
import os
from pathlib import Path

STATE_NAME = "STATE.json"


class ChainState:
    """The state of a chain, written at each change in one piece.

    {"key", "status": "running" | "finished" | "failed" | "aborted", "error",
     "steps": {name: {"protocol_id", "status", "run_dir", "error", "summary"}}}
    where a step's status is Scipion's own word and `summary` a list of lines. A step that runs elsewhere also
    has "job", its number here, and "phase", what is being done about it, in words.
    """

    def __init__(self, file: Path, key: str, names: list) -> None:
        """Start from the state that an earlier process left in `file`, if it is of the same chain."""
        self.file = file
        old = _read(file)
        steps = old.get("steps", {}) if old.get("key") == key else {}
        self.data = {
            "key": key,
            "status": "running",
            "error": "",
            "steps": {name: steps.get(name) or _unborn() for name in names},
        }

    def protocol_id(self, name: str):
        """The protocol of a step, None before it is made."""
        return self.data["steps"][name]["protocol_id"]

    def set_step(self, name: str, **values) -> None:
        """Change a step and write."""
        self.data["steps"][name].update(values)
        self.write()

    def set_status(self, status: str, error: str = "") -> None:
        """Change the whole chain's status and write."""
        self.data.update(status=status, error=error)
        self.write()

    def write(self) -> None:
        """Replace the file at once."""
        new = self.file.with_name(self.file.name + ".new")
        with new.open("w") as out:
            json.dump(self.data, out, indent=1)
            out.flush()
            os.fsync(out.fileno())
        new.replace(self.file)


def _unborn() -> dict:
    return {"protocol_id": None, "status": "waiting", "run_dir": "", "error": "", "summary": []}


def _read(file: Path) -> dict:
    try:
        return json.loads(file.read_text())
    except (OSError, ValueError):
        return {}
