"""What the broker has to know of a job to run it elsewhere: part of its specification, as JSON."""

import shlex
import sqlite3
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scipion_cloud.errors import InvalidInput

_RUNNER = "pw_protocol_run.py"


@dataclass(frozen=True)
class Parcel:
    """A folder at home, what of it is needed, and the folder in it that comes back.

    Raises InvalidInput for what cannot be.
    """

    root: Path  # absolute: a Scipion project, or any folder
    run: str  # the folder that is worked in, relative to it; all that is in it comes back
    needs: tuple[str, ...] | None = None  # files and folders, relative; None: Scipion knows
    protocol: int | None = None  # the protocol's number in the project; None: the job's own command is run
    protocol_class: str = ""
    packages: tuple[str, ...] = ()  # Scipion plugins that the site needs
    source: Path | None = None  # a read-only dataset that links of the project may lead to

    def __post_init__(self) -> None:
        parts = self.run.split("/")
        if not self.root.is_absolute() or not all(part not in ("", ".", "..") for part in parts):
            raise InvalidInput(f"{self.run!r} of {str(self.root)!r} is no folder that can come back.")
        if self.needs is None and self.protocol is None:
            raise InvalidInput("A parcel has to say what it needs, or which protocol does.")

    @property
    def run_db(self) -> str:
        """The database of a protocol's run, relative to the root."""
        return f"{self.run}/logs/run.db"

    def to_json(self) -> dict[str, Any]:
        """As `JobSpec.parcel` holds it."""
        return {
            "root": str(self.root),
            "run": self.run,
            "needs": None if self.needs is None else list(self.needs),
            "protocol": self.protocol,
            "protocol_class": self.protocol_class,
            "packages": list(self.packages),
            "source": str(self.source) if self.source else None,
        }

    @classmethod
    def from_json(cls, content: Mapping[str, Any] | None) -> "Parcel":
        """What `to_json` made; what is not said has its default. Raises InvalidInput."""
        if not content or "root" not in content or "run" not in content:
            raise InvalidInput("The job does not say which folder it works in, so it cannot run elsewhere.")
        needs, source = content.get("needs"), content.get("source")
        return cls(
            Path(content["root"]),
            content["run"],
            None if needs is None else tuple(needs),
            content.get("protocol"),
            content.get("protocol_class") or "",
            tuple(content.get("packages") or ()),
            Path(source) if source else None,
        )


def parcel_of_script(script: Path, packages: tuple[str, ...] = ()) -> Parcel:
    """The parcel of the protocol that a job script of Scipion runs.

    Raises InvalidInput for any other script, which nobody knows what it needs.
    """
    text = script.read_text(errors="surrogateescape")
    words = next((w for line in text.splitlines() if _RUNNER in line and (w := _split(line))), [])
    at = next((i for i, word in enumerate(words) if word.endswith(f"/{_RUNNER}")), None)
    if at is None or len(words) < at + 4 or not words[at + 3].isdigit():
        raise InvalidInput(
            "Only whole protocols of Scipion can be sent to another site. Choose 'No' where Scipion asks "
            "whether each step is submitted, or run this here."
        )
    root, database, protocol = Path(words[at + 1]), words[at + 2], int(words[at + 3])
    run = database.removeprefix(f"{root}/").removesuffix("/logs/run.db")
    return Parcel(root, run, None, protocol, _class_of(root / run / "logs" / "run.db", protocol), packages)


def _split(line: str) -> list[str]:
    try:
        return shlex.split(line)
    except ValueError:
        return []


def _class_of(database: Path, protocol: int) -> str:
    try:
        with closing(sqlite3.connect(f"{database.as_uri()}?mode=ro", uri=True, timeout=30)) as db:
            row = db.execute("SELECT classname FROM Objects WHERE id = ?", (protocol,)).fetchone()
    except sqlite3.Error as e:
        raise InvalidInput(f"{database} cannot be read ({e}); launch the protocol again.") from e
    return str(row[0]) if row else ""
