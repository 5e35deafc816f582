"""What one job of copying has to do, as a file in its folder."""

import json
import os
import secrets
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

ORDER_FILE = "order.json"


@dataclass(frozen=True)
class FromFolder:
    """A project that people may be working in."""

    folder: str
    source: str | None = None  # where its read-only dataset appears, if it has one


@dataclass(frozen=True)
class FromStorage:
    """A project as it was saved in its storage."""

    url: str
    folder: str  # where it is when it is open here
    credentials: str  # a file, sealed
    key: str  # the file with the key that opens it
    generation: int | None = None  # None: the newest


@dataclass(frozen=True)
class FromArchive:
    """An archive among the files of a project."""

    folder: str  # of that project
    path: str  # below the folder; surrogates stand for bytes that are not UTF-8


What = FromFolder | FromStorage | FromArchive
_KINDS: dict[str, type[What]] = {kind.__name__: kind for kind in (FromFolder, FromStorage, FromArchive)}


@dataclass(frozen=True)
class Order:
    """What is to be copied, and where the new project will be once somebody has put it there."""

    target: Path
    what: What
    source: Path | None = None  # where the new project's read-only dataset will appear

    @property
    def parts(self) -> Path:
        """What is not whole yet; on the disk of the target."""
        return self.target.with_name(f".{self.target.name}.parts")

    @property
    def ready(self) -> Path:
        """The new project, whole and on the disk: to be renamed to the target."""
        return self.target.with_name(f".{self.target.name}.new")

    def write(self, folder: Path) -> None:
        """Put the order into a job's folder."""
        content = {
            "target": str(self.target),
            "source": str(self.source) if self.source else None,
            "kind": type(self.what).__name__,
            "what": asdict(self.what),
        }
        put(folder / ORDER_FILE, json.dumps(content).encode())

    @classmethod
    def read(cls, folder: Path) -> "Order":
        """The order in a job's folder."""
        content: dict[str, Any] = json.loads((folder / ORDER_FILE).read_bytes())
        source = Path(content["source"]) if content["source"] else None
        return cls(Path(content["target"]), _KINDS[content["kind"]](**content["what"]), source)


def put(file: Path, content: bytes) -> None:
    """Write a file that only we can read, whole at any moment, also when two write it at once."""
    new = file.with_name(f"{file.name}.{secrets.token_hex(6)}")
    fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(fd, "wb") as opened:
        opened.write(content)
        opened.flush()
        os.fsync(opened.fileno())
    new.replace(file)
