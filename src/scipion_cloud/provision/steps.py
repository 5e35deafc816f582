"""Set-up as a list of steps, each of which knows whether it has been done."""

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from scipion_cloud.provision.process import Report


@dataclass(frozen=True)
class Step:
    """One part of the set-up. `done` is quick and changes nothing; `work` may be repeated safely."""

    title: str
    done: Callable[[], bool]
    work: Callable[[Report], None]


@dataclass(frozen=True)
class Stamp:
    """A file beside what a step made, holding a digest of what it was made from."""

    file: Path
    digest: str

    def matches(self) -> bool:
        """True if the step's work is there and was made from these very inputs."""
        try:
            return self.file.read_text() == self.digest
        except OSError:
            return False

    def write(self) -> None:
        """Record that the work is done; call it last."""
        self.file.write_text(self.digest)


def digest_of(parts: Iterable[str | Path]) -> str:
    """SHA-256 over texts and the contents of files; a missing file counts as such."""
    total = hashlib.sha256()
    for part in parts:
        if isinstance(part, Path):
            content = part.read_bytes() if part.exists() else b"(none)"
        else:
            content = part.encode()
        total.update(hashlib.sha256(content).digest())
    return total.hexdigest()
