"""Judges a storage by what its writers noted: what was said to be saved must be there, whole and right."""

import math
import os
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from blake3 import blake3

from scipion_cloud.errors import ScipionCloudError
from scipion_cloud.storage import Storage
from scipion_cloud.sync.entry import Entry, EntryKind
from scipion_cloud.sync.generation import Generation
from scipion_cloud.sync.manifest import Manifest
from scipion_cloud.sync.repository import Repository
from scipion_cloud.sync.verify import verify
from scipion_cloud.testing.soak import database
from scipion_cloud.testing.soak.ledger import History, State, Version, content
from scipion_cloud.testing.soak.trees import tree
from scipion_cloud.testing.soak.writer import DATABASES

KINDS = {EntryKind.FILE: "f", EntryKind.FOLDER: "d", EntryKind.LINK: "l", EntryKind.HARD_LINK: "f"}


class Loss(AssertionError):
    """Something that was said to be saved is not there, or is another."""


@dataclass
class Tally:
    """What was looked at."""

    generations: int = 0
    files: int = 0  # read and compared with their digests
    entries: int = 0  # compared with the ledger
    databases: int = 0
    held: int = 0  # changed while they were taken: their version of before was kept
    torn: int = 0  # taken while they were being written: the beginning of the new bytes
    losses: list[str] = field(default_factory=list)


class Oracle:
    """The judge of one storage. `ledgers` are by deployment: whose generation it is."""

    def __init__(self, storage: Storage, tally: Tally) -> None:
        self._storage = storage
        self.tally = tally
        self.ledgers: dict[str, Path] = {}
        self.lenient = False  # files that could not be read may be as they were saved before
        self._judged: dict[int, str] = {}  # generations that must be there, and the saves that made them
        self._acknowledged: set[int] = set()

    @property
    def repository(self) -> Repository:
        """As somebody sees it who knows nothing yet."""
        return Repository(self._storage)

    def expect(self, acknowledged: int | None) -> None:
        """An agent has told that this generation is saved."""
        if acknowledged:
            self._acknowledged.add(acknowledged)

    def forget(self, expired: Iterable[int]) -> None:
        """These need not be there any more."""
        for number in expired:
            self._judged.pop(number, None)
            self._acknowledged.discard(number)

    def examine(self) -> None:
        """Look at what is there, while nobody writes. Raises Loss."""
        there = {g.number: g for g in self.repository.generations()}
        if missing := self._acknowledged - there.keys():
            raise Loss(f"Generations {sorted(missing)} were acknowledged; there are {sorted(there)}.")
        for number, save in self._judged.items():
            if number not in there or there[number].save != save:
                raise Loss(f"Generation {number} is not there any more; there are {sorted(there)}.")
        fresh = [g for n, g in sorted(there.items()) if n not in self._judged]
        for generation in fresh:
            self._judge(generation, there)
            self._judged[generation.number] = generation.save
        for number in {max(there, default=0), *(g.number for g in fresh)} - {0}:
            self.read(number)

    def rows(self, manifest: Manifest) -> dict[bytes, int]:
        """How many rows the databases of a generation have."""
        found = {}
        for path in DATABASES:
            if (entry := manifest.get(path)) is not None:
                with self._copy(entry) as file:
                    found[path], _ = database.check(file)
        return found

    def read(self, number: int) -> None:
        """Read all of a generation. Raises Loss."""
        manifest = self.repository.manifest(number)
        if problems := verify(self.repository, number):
            raise Loss(f"Of generation {number}: {problems[:5]} (of {len(problems)})")
        self.tally.files += manifest.files

    def read_all(self) -> None:
        """Read all of all generations. Raises Loss."""
        for generation in self.repository.generations():
            self.read(generation.number)

    def agrees(self, deployment: str) -> None:
        """The newest generation is all that its writer, who has stopped, has left. Raises Loss."""
        latest = self.repository.latest()
        if latest is None:
            raise Loss("There is no generation, though all was saved.")
        self._compare(latest, None, History(self.ledgers[deployment]), math.inf, math.inf)

    def is_here(self, manifest: Manifest, folder: Path) -> None:
        """A folder, in which nobody works, is what a manifest says. Raises Loss."""
        found = tree(folder)
        wrong = [f"{path!r} is missing" for path in manifest if path not in found]
        for path, node in found.items():
            entry = manifest.get(path)
            if entry is None:
                wrong.append(f"{path!r} should not be there")
            elif node.content != (resolve(entry, manifest).digest or entry.target):
                wrong.append(f"{path!r} is not {entry}")
        if wrong:
            raise Loss("What was restored is not what was saved:\n" + "\n".join(wrong[:20]))

    def _judge(self, generation: Generation, there: dict[int, Generation]) -> None:
        ledger = self.ledgers.get(generation.deployment)
        if ledger is None:
            raise Loss(f"Generation {generation.number} was made by a stranger: {generation.deployment}.")
        before = there.get(generation.parent or 0)
        since = before.created.timestamp() if before else -math.inf
        old = self.repository.manifest(before.number) if before else None
        self._compare(generation, old, History(ledger), since, generation.created.timestamp())
        self.tally.generations += 1

    def _compare(
        self, generation: Generation, old: Manifest | None, history: History, since: float, until: float
    ) -> None:
        manifest = self.repository.manifest(generation.number)
        wrong: list[str] = []
        for path in manifest.keys() | history.versions.keys():
            self.tally.entries += 1
            entry, versions = manifest.get(path), history.possible(path, since, until)
            held = old is not None and same(entry, manifest, old.get(path), old)
            if any(matches(entry, v.state, manifest) for v in versions):
                if (
                    entry
                    and any(v.state and v.state.kind == "b" for v in versions)
                    and not (self.lenient and held)
                ):
                    wrong += self._database(entry, *history.rows(path, since, until))
            elif held and (self.lenient or len(versions) > 1):
                self.tally.held += 1
            elif entry and self._is_torn(resolve(entry, manifest), versions):
                self.tally.torn += 1
            else:
                wrong.append(f"{path!r} is {entry}, but may be {[v.state for v in versions]}")
        if wrong:
            raise Loss(
                f"Generation {generation.number} ({since} to {until}), {len(wrong)} wrong:\n"
                + "\n".join(wrong[:10])
            )

    def _is_torn(self, entry: Entry, versions: list[Version]) -> bool:
        """Whether a file is the beginning of what was being written."""
        if len(versions) < 2 or entry.kind is not EntryKind.FILE:
            return False
        data = self._bytes(entry)
        for version in versions:
            state = version.state
            if state and state.kind == "f" and state.base <= len(data) <= state.size:
                made = content(state.token, state.size - state.base)[: len(data) - state.base]
                if data[state.base :] == made and blake3(data[: state.base]).hexdigest() == state.base_digest:
                    return True
        return False

    def _database(self, entry: Entry, least: int, most: int) -> Iterator[str]:
        """What is wrong with a database that is to have so many rows."""
        with self._copy(entry) as file:
            rows, wrong = database.check(file)
        self.tally.databases += 1
        if wrong:
            yield f"{entry.path!r}: {wrong}"
        elif not least <= rows <= most:
            yield f"{entry.path!r} has {rows} rows, but should have {least} to {most}"

    @contextmanager
    def _copy(self, entry: Entry) -> Iterator[Path]:
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "copy.sqlite"
            file.write_bytes(self._bytes(entry))
            yield file

    def _bytes(self, entry: Entry) -> bytes:
        with tempfile.TemporaryFile() as file:
            try:
                self.repository.fetch(entry, file.fileno())
            except ScipionCloudError as e:
                raise Loss(f"{entry.path!r} cannot be had: {e}") from e
            return os.pread(file.fileno(), entry.size, 0)


def matches(entry: Entry | None, state: State | None, manifest: Manifest) -> bool:
    """Whether an entry is what stood there."""
    if entry is None or state is None:
        return entry is None and state is None
    if state.kind == "b":
        return entry.kind is EntryKind.FILE
    if KINDS.get(entry.kind) != state.kind:
        return False
    if state.kind == "l":
        return entry.target.decode("latin-1") == state.target
    entry = resolve(entry, manifest)
    return entry.mode == state.mode and (
        state.kind == "d" or (entry.size, entry.digest.hex()) == (state.size, state.digest)
    )


def resolve(entry: Entry, manifest: Manifest) -> Entry:
    """The file that a hard link is."""
    return manifest[entry.target] if entry.kind is EntryKind.HARD_LINK else entry


def same(entry: Entry | None, manifest: Manifest, old: Entry | None, before: Manifest) -> bool:
    """Whether an entry is what it was in an earlier generation."""
    if entry is None or old is None:
        return entry is old
    entry, old = resolve(entry, manifest), resolve(old, before)
    return (entry.kind, entry.digest, entry.target) == (old.kind, old.digest, old.target)


def states(manifest: Manifest) -> dict[bytes, State | None]:
    """What a working copy is once a generation has been restored into it."""
    found: dict[bytes, State | None] = {}
    for path, entry in manifest.items():
        file = resolve(entry, manifest)
        target = entry.target.decode("latin-1") if entry.kind is EntryKind.LINK else ""
        inode = file.path.decode("latin-1") if file.kind is EntryKind.FILE else ""
        found[path] = State(KINDS[entry.kind], file.mode, file.size, file.digest.hex(), target, inode, "-")
    return found
