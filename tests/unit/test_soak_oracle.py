"""The judge of the soak: lets pass what is whole, and finds each kind of loss."""

import math
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from blake3 import blake3

from scipion_cloud.storage import Storage, open_storage
from scipion_cloud.sync.copy import WorkingCopy
from scipion_cloud.sync.entry import EntryKind
from scipion_cloud.sync.layout import KEPT, generation_key, kept_key, key_of
from scipion_cloud.sync.lease import acquire
from scipion_cloud.sync.manifest import Manifest
from scipion_cloud.sync.repository import Repository
from scipion_cloud.sync.restore import restore
from scipion_cloud.sync.save import save
from scipion_cloud.testing.soak import database
from scipion_cloud.testing.soak.ledger import History, Ledger, State
from scipion_cloud.testing.soak.oracle import Loss, Oracle, Tally
from scipion_cloud.testing.soak.trees import difference, tree
from scipion_cloud.testing.soak.writer import APART, DATABASES, Writer, make_tree

DEPLOYMENT = "soaked"


class Soaked:
    """A project with a writer, saved by hand."""

    def __init__(self, folder: Path) -> None:
        self.work, self.ledger = folder / "work", folder / "ledger"
        self.open: list[Ledger] = []
        self.work.mkdir()
        make_tree(self.work, self.ledger, "seed")
        (folder / "storage").mkdir()
        self.storage: Storage = open_storage((folder / "storage").as_uri())
        self.copy = WorkingCopy(self.work, folder / "state", None)
        self.copy.begin(self.storage.url, None, Manifest())
        self.copy.complete()
        self.lease = acquire(self.storage, deployment=DEPLOYMENT, host="h", user="u", parameters={})
        self.oracle = Oracle(self.storage, Tally())
        self.oracle.ledgers[DEPLOYMENT] = self.ledger

    def save(self) -> Manifest:
        """One more generation; its files."""
        made = save(self.copy, Repository(self.storage), self.lease, max_deleted=1).generation
        assert made is not None
        return Repository(self.storage).manifest(made.number)

    def opened(self, path: Path) -> Ledger:
        """A ledger that is closed at the end."""
        self.open.append(ledger := Ledger(path))
        return ledger

    def work_on(self, times: int) -> None:
        with closing(Writer(self.work, self.ledger, f"{time.time()}")) as writer:
            writer.whole = True
            for _ in range(times):
                writer.work()


@pytest.fixture
def soaked(tmp_path: Path) -> Iterator[Soaked]:
    made = Soaked(tmp_path)
    yield made
    for ledger in made.open:
        ledger.close()
    made.copy.close()
    made.storage.close()


def test_what_is_whole_passes(soaked: Soaked, tmp_path: Path) -> None:
    for number in range(3):
        manifest = soaked.save()
        soaked.oracle.examine()
        soaked.oracle.agrees(DEPLOYMENT)
        soaked.oracle.expect(number + 1)
        soaked.work_on(60)
    assert soaked.oracle.tally.generations == 3
    assert soaked.oracle.tally.databases >= 6
    assert soaked.oracle.rows(manifest).keys() == DATABASES.keys()
    manifest = soaked.save()
    copy = WorkingCopy(tmp_path / "other", tmp_path / "other-state", None)
    repository = Repository(soaked.storage)
    restore(repository, repository.generations()[0], copy)
    copy.close()
    soaked.oracle.is_here(manifest, tmp_path / "other")
    assert difference(tree(soaked.work), tree(tmp_path / "other"), apart=APART) == []


def test_each_kind_of_loss_is_found(soaked: Soaked) -> None:
    first = soaked.save()
    soaked.work_on(60)
    second = soaked.save()
    soaked.oracle.examine()
    there = {stat.key for stat in soaked.storage.walk(KEPT)}  # what was renamed has its bytes there, too
    only = next(e for e in second.values() if e.size > 100 and kept_key(e.digest) not in there)
    name = key_of(only.path, soaked.storage.capabilities)
    data = soaked.storage.read_bytes(name)
    soaked.storage.write(name, data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(Loss, match="damaged or missing"):
        soaked.oracle.examine()
    soaked.storage.write(name, data)
    soaked.oracle.examine()
    kept = next(s.key for s in soaked.storage.walk(KEPT))
    data = soaked.storage.read_bytes(kept)
    soaked.storage.remove(kept)
    with pytest.raises(Loss, match="damaged or missing"):
        soaked.oracle.read_all()
    soaked.storage.write(kept, data)
    soaked.oracle.expect(3)
    with pytest.raises(Loss, match="acknowledged"):
        soaked.oracle.examine()
    soaked.oracle.forget([3])
    soaked.storage.remove(generation_key(2))
    with pytest.raises(Loss, match="not there any more"):
        soaked.oracle.examine()
    soaked.oracle.forget([2])
    soaked.oracle.examine()
    with pytest.raises(Loss, match="may be"):
        soaked.oracle.agrees(DEPLOYMENT)
    with pytest.raises(Loss, match="What was restored"):
        soaked.oracle.is_here(first, soaked.work)


@pytest.mark.parametrize("what", ["missing", "older", "never", "rights", "strange"])
def test_a_save_that_is_not_what_was_there_is_found(soaked: Soaked, what: str) -> None:
    soaked.save()
    soaked.oracle.examine()
    ledger = soaked.opened(soaked.ledger)
    path = next(p for p, s in ledger.names.items() if s and s.kind == "f" and s.size > 10)
    place = soaked.work / os.fsdecode(path)
    if what == "older":  # people have written something that the save has not seen
        ledger.begin({path: State("f", 0o644, 5, "00" * 32)})
        ledger.end()
        (soaked.work / "other").write_text("so that there is something to save")
        ledger.begin({b"other": soaked_state(soaked.work / "other")})
        ledger.end()
    elif what == "missing":
        place.unlink()
    elif what == "never":
        place.write_bytes(b"nobody wrote this")
    elif what == "rights":
        place.chmod(0o700)
    else:
        (soaked.work / "strange").write_text("nobody made this")
    time.sleep(0.01)
    soaked.save()
    time.sleep(0.01)
    if what == "older":
        with pytest.raises(Loss, match="may be"):
            soaked.oracle.agrees(DEPLOYMENT)
    else:
        with pytest.raises(Loss, match="may be"):
            soaked.oracle.examine()


def soaked_state(path: Path) -> State:
    """Of a file."""
    data = path.read_bytes()
    return State("f", 0o644, len(data), blake3(data).hexdigest())


def test_a_database_without_its_last_rows_is_found(soaked: Soaked) -> None:
    path = next(iter(DATABASES))
    soaked.save()
    soaked.oracle.examine()
    shutil.copy(soaked.work / os.fsdecode(path), before := soaked.work.parent / "before")
    ledger = soaked.opened(soaked.ledger)
    with closing(database.connect(soaked.work / os.fsdecode(path))) as db:
        rows = database.count(db)
        for number in range(3):
            ledger.begin_rows(path, rows + number + 1)
            database.add(db, b"row")
            ledger.end()
    soaked.save()
    soaked.oracle.examine()
    shutil.copy(before, soaked.work / os.fsdecode(path))  # as if a save had taken it without its log
    soaked.save()
    with pytest.raises(Loss, match="rows, but should have"):
        soaked.oracle.examine()


def test_a_damaged_database_is_found(tmp_path: Path) -> None:
    database.make(tmp_path / "a.sqlite", "delete")
    with closing(database.connect(tmp_path / "a.sqlite")) as db:
        for number in range(5):
            database.add(db, bytes([number]))
    assert database.check(tmp_path / "a.sqlite") == (5, "")
    with closing(database.connect(tmp_path / "a.sqlite")) as db, db:
        db.execute("DELETE FROM rows WHERE seq = 3")
    assert "row 3" in database.check(tmp_path / "a.sqlite")[1]
    (tmp_path / "a.sqlite").write_bytes(b"SQLite format 3\0 and nothing")
    assert "no database" in database.check(tmp_path / "a.sqlite")[1]


def test_what_may_have_been_seen_when(tmp_path: Path) -> None:
    ledger = Ledger(touched(tmp_path / "ledger"))
    old, new = State("f", size=1), State("f", size=2)
    ledger.begin({b"a": old})
    ledger.end()
    time.sleep(0.02)
    middle = time.time()
    time.sleep(0.02)
    ledger.begin({b"a": new})
    history = History(tmp_path / "ledger")
    assert [v.state for v in history.possible(b"a", middle, middle)] == [old]
    assert [v.state for v in history.possible(b"a", middle, math.inf)] == [old, new]
    assert [v.state for v in history.possible(b"b", middle, math.inf)] == [None]
    with closing(Ledger(tmp_path / "ledger")) as again:
        assert again.torn == [b"a"]
    ledger.end()
    ledger.close()
    later = time.time() + 1
    assert [v.state for v in History(tmp_path / "ledger").possible(b"a", later, math.inf)] == [new]


def touched(path: Path) -> Path:
    path.touch()
    return path


def test_a_writer_that_is_killed_goes_on(soaked: Soaked) -> None:
    command = [
        sys.executable,
        "-m",
        "scipion_cloud.testing.soak.writer",
        str(soaked.work),
        str(soaked.ledger),
    ]
    for number in range(2):
        process = subprocess.Popen([*command, str(number)], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() == b"paused\n"
        process.stdin.write(b"go\n")
        process.stdin.flush()
        time.sleep(0.7)
        process.kill()
        process.communicate()
    soaked.work_on(1)
    manifest = soaked.save()
    soaked.oracle.examine()
    soaked.oracle.agrees(DEPLOYMENT)
    assert any(e.kind is EntryKind.FILE for e in manifest.values())
    assert datetime.now(UTC) - Repository(soaked.storage).generations()[0].created < timedelta(minutes=10)
