"""Saves over a storage that fails, lies and dies at any call: what was acknowledged is there, all of it."""

import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from blake3 import blake3
from hypothesis import HealthCheck, settings, strategies
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from levels import examples
from scipion_cloud.errors import LeaseLost, StorageError, SyncError
from scipion_cloud.storage import Kind
from scipion_cloud.sync import retention, rollback
from scipion_cloud.sync.entry import Entry, EntryKind, parent_of
from scipion_cloud.sync.layout import INTENT, NAMES, SERVICE, key_of
from scipion_cloud.sync.manifest import Manifest, diff
from scipion_cloud.sync.repository import Repository
from scipion_cloud.sync.retention import Retention, expire
from scipion_cloud.sync.saving import Saving
from scipion_cloud.testing.faulty import Died, Fault, FaultyStorage
from scipion_cloud.testing.memory import ABLE, MemoryStorage

PATHS = [b"a", b"a/x", b"a/x/y", b"a/z", b"b", b"b/x", b"c", b"c\n", b"c\n/x", b"\xff", b"d"]
CONTENTS = [b"", b"one", b"two", b"six", b"longer than the others"]
FAULTS = [
    f for f in Fault if f not in (Fault.HANG, Fault.LATE)
]  # those are about time, and nothing waits here
POOR = replace(ABLE, rename=False, symlinks=False, folders=False, byte_names=False)

paths = strategies.sampled_from(PATHS)
faults = strategies.dictionaries(strategies.integers(1, 40), strategies.sampled_from(FAULTS), max_size=2)


class Fence:
    """A lease that nobody takes away unless the test says so."""

    deployment, host, user = "deployment", "host", "user"

    def __init__(self, epoch: int) -> None:
        self.epoch = epoch
        self.lost = False

    def check(self) -> None:
        """Of the time before it learns of its loss, the test decides."""
        if self.lost:
            raise LeaseLost("lost")

    def confirm(self) -> None:
        self.check()


def file(path: bytes, content: bytes) -> Entry:
    return Entry(path, EntryKind.FILE, size=len(content), digest=blake3(content).digest())


class Saves(RuleBasedStateMachine):
    """One project, saved by one deployment after the other."""

    able = ABLE

    @initialize()
    def begin(self) -> None:
        self.memory = MemoryStorage(self.able)
        self.storage = FaultyStorage(self.memory, {})
        self.fence = Fence(1)
        self.tree: dict[bytes, Entry] = {}
        self.saved: dict[int, Manifest] = {}  # all that was acknowledged and not expired
        self.base = 0
        self.maybe: Manifest | None = None  # a save of which nobody knows how it ended
        self.contents = {blake3(c).digest(): c for c in CONTENTS}

    # what people do

    @rule(path=paths, content=strategies.sampled_from(CONTENTS))
    def write(self, path: bytes, content: bytes) -> None:
        self._place(file(path, content))

    @rule(contents=strategies.lists(strategies.sampled_from(CONTENTS), min_size=4, max_size=4))
    def write_all(self, contents: list[bytes]) -> None:
        """Many files with few contents, some of which they have had before."""
        for path, content in zip((b"a/x/y", b"b/x", b"c", b"d"), contents, strict=True):
            self._place(file(path, content))

    @rule(path=paths)
    def make_folder(self, path: bytes) -> None:
        self._place(Entry(path, EntryKind.FOLDER, mode=0o755))

    @rule(path=paths, to=strategies.sampled_from([b"a", b"../a", b"/etc/passwd"]))
    def make_link(self, path: bytes, to: bytes) -> None:
        self._place(Entry(path, EntryKind.LINK, mode=0o777, target=to))

    @rule(path=paths)
    def remove(self, path: bytes) -> None:
        for other in [p for p in self.tree if p == path or p.startswith(path + b"/")]:
            del self.tree[other]

    @rule(path=paths)
    def chmod(self, path: bytes) -> None:
        if path in self.tree:
            self.tree[path] = self.tree[path]._replace(mode=0o600)

    def _place(self, entry: Entry) -> None:
        old = self.tree.get(entry.path)
        if old is not None and (old.kind is EntryKind.FOLDER) is not (entry.kind is EntryKind.FOLDER):
            self.remove(entry.path)
        folder = parent_of(entry.path)
        while folder:
            if (old := self.tree.get(folder)) is None or old.kind is not EntryKind.FOLDER:
                self.tree[folder] = Entry(folder, EntryKind.FOLDER, mode=0o755)
            folder = parent_of(folder)
        self.tree[entry.path] = entry

    # what deployments do

    @rule(plan=faults, shuffle=strategies.randoms(use_true_random=False), unstable=strategies.booleans())
    def save(self, plan: Mapping[int, Fault], shuffle: object, unstable: bool) -> None:
        manifest = Manifest(self.tree.values())
        self._under(plan, lambda: self._save(manifest, shuffle, unstable))

    @rule(plan=faults)
    def recover(self, plan: Mapping[int, Fault]) -> None:
        self._under(plan, lambda: Repository(self.storage).recover(self.fence))

    @rule(plan=faults, now=strategies.integers(0, 40))
    def expire(self, plan: Mapping[int, Fault], now: int) -> None:
        """The policy keeps what is not older than some minutes; all of it was made in no time."""
        repository = Repository(self.storage)
        keep = Retention(timedelta(), timedelta(), timedelta())
        policy = keep if now % 2 else Retention()
        self._under(plan, lambda: expire(repository, self.fence, policy, datetime.now(UTC)))
        numbers = {g.number for g in Repository(self.memory).generations()}
        self.saved = {n: m for n, m in self.saved.items() if n in numbers or n == max(self.saved)}

    @rule(shuffle=strategies.randoms(use_true_random=False), saves=strategies.booleans())
    def pause(self, shuffle: object, saves: bool) -> None:
        """An agent is paused right before it commits; another takes over, and may save; the first goes on."""
        manifest = Manifest(self.tree.values())
        slow = self.fence
        saving = self._changed(manifest, shuffle, False)
        if saving is None:
            return
        asked = iter([lambda: None])

        def confirm() -> None:
            next(asked, take_over)()

        def take_over() -> None:
            self.fence = Fence(slow.epoch + 1)
            self._settle()
            if saves:
                self._place(file(b"d", b"six"))
                self._save(Manifest(self.tree.values()), shuffle, False)

        slow.confirm = confirm  # type: ignore[method-assign]
        with pytest.raises(LeaseLost):
            saving.commit(manifest)

    def _under(self, plan: Mapping[int, Fault], do: Callable[[], object]) -> None:
        """Do it with faults; then somebody opens the project without any, and all is well."""
        self.storage = FaultyStorage(self.memory, plan)
        try:
            do()
        except Died:
            self.fence = Fence(self.fence.epoch + 1)
        except (StorageError, SyncError):
            pass
        self.storage = FaultyStorage(self.memory, {})
        self._settle()

    def _settle(self) -> None:
        repository = Repository(self.storage)
        repository.recover(self.fence)
        assert not list(self.memory.children(INTENT))
        latest = repository.latest()
        number = latest.number if latest else 0
        if number != self.base:
            assert number > self.base
            assert self.maybe is not None, "a generation that nobody has made"
            assert repository.manifest(number) == self.maybe
            self.saved[number] = self.maybe
            self.base = number
        self.maybe = None

    def _save(self, manifest: Manifest, shuffle: object, unstable: bool) -> None:
        saving = self._changed(manifest, shuffle, unstable)
        if saving is not None:
            self.maybe = manifest
            generation = saving.commit(manifest)
            self.saved[generation.number] = manifest
            self.base = generation.number
            self.maybe = None

    def _changed(self, manifest: Manifest, shuffle: object, unstable: bool) -> Saving | None:
        """All of a save but its commit."""
        repository = Repository(self.storage)
        base = repository.latest()
        old = repository.manifest(base.number) if base else Manifest()
        plan = diff(old, manifest)
        if not plan:
            return None
        extra = [e for e in old.values() if e.kind is EntryKind.FILE][:1] if unstable else []
        touched = [e.path for e in (*plan.put, *plan.remove, *extra)]
        saving = repository.saving(base, old, touched, self.fence, "note")
        puts = list(plan.put)
        if shuffle is not None:
            shuffle.shuffle(puts)  # type: ignore[attr-defined]
        for entry in extra:
            if manifest.get(entry.path) == entry:  # what is put proves to be torn: the last version is kept
                saving.put(file(entry.path, b"torn"), b"torn")
        for entry in puts:
            if entry.kind is EntryKind.FILE:
                saving.put(entry, self.contents[entry.digest])
        for entry in puts:
            if entry.kind is not EntryKind.FILE:
                saving.put(entry)
        for entry in plan.remove:
            saving.remove(entry)
        return saving

    # what has to hold

    @invariant()
    def all_generations_are_whole(self) -> None:
        repository = Repository(self.memory)
        numbers = {g.number for g in repository.generations()}
        assert numbers == set(self.saved), "what was acknowledged is there, and nothing else"
        for number, manifest in self.saved.items():
            assert repository.manifest(number) == manifest
            for entry in manifest.values():
                if entry.kind is EntryKind.FILE:
                    assert _fetched(repository, entry) == self.contents[entry.digest]

    @invariant()
    def a_person_finds_the_latest_generation(self) -> None:
        """The files under their own names, and nothing else."""
        manifest = self.saved[self.base] if self.base else {}
        there = {s.key: s for s in self.memory.walk() if not s.key.startswith(f"{SERVICE}/")}
        for entry in manifest.values():
            key = key_of(entry.path, self.able)
            if key.startswith(NAMES):
                continue
            if entry.kind is EntryKind.FILE:
                assert self.memory.read_bytes(key) == self.contents[entry.digest]
                del there[key]
            elif entry.kind is EntryKind.LINK and self.able.symlinks:
                assert self.memory.readlink(key) == entry.target
                del there[key]
            elif entry.kind is EntryKind.FOLDER and self.able.folders:
                assert self.memory.stat(key).kind is Kind.FOLDER
        assert not there


def _fetched(repository: Repository, entry: Entry) -> bytes:
    fd = os.memfd_create("fetched")
    try:
        repository.fetch(entry, fd)
        return os.pread(fd, entry.size + 1, 0)
    finally:
        os.close(fd)


class PoorSaves(Saves):
    """On S3: no rename, no symlinks, no folders, and names that have to be text."""

    able = POOR


def run(machine: type[RuleBasedStateMachine], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rollback, "THREADS", 1)  # so that the n-th call is always the same one
    monkeypatch.setattr(retention, "THREADS", 1)
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=examples(60),
            stateful_step_count=25,
            suppress_health_check=list(HealthCheck),
        ),
    )


def test_saves_on_an_able_storage(monkeypatch: pytest.MonkeyPatch) -> None:
    run(Saves, monkeypatch)


def test_saves_on_a_poor_storage(monkeypatch: pytest.MonkeyPatch) -> None:
    run(PoorSaves, monkeypatch)


@pytest.mark.parametrize("machine", [Saves, PoorSaves])
@pytest.mark.parametrize("call", range(1, 41))
def test_one_short_read_at_any_call(machine: type[Saves], call: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """One was found by chance: a file put back from what is kept was taken for wrong, and not shown."""
    monkeypatch.setattr(rollback, "THREADS", 1)
    saves = machine()
    saves.begin()
    saves.write(b"d", b"six")
    saves.save({}, None, unstable=False)
    saves.make_link(b"a/x", b"a")
    saves.save({call: Fault.SHORT}, None, unstable=True)
    saves.all_generations_are_whole()
    saves.a_person_finds_the_latest_generation()
