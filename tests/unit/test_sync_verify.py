"""Damage in a storage is found, and put right where there is anything to put it right with."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
from blake3 import blake3
from sync_project import Held, begin, contents, link, save, shown, tree

from scipion_cloud.errors import NotFound
from scipion_cloud.storage import Storage
from scipion_cloud.sync.layout import INTENT, KEPT, kept_key
from scipion_cloud.sync.progress import Progress
from scipion_cloud.sync.repository import Repository
from scipion_cloud.sync.verify import repair, verify
from scipion_cloud.testing.memory import MemoryStorage

FIRST = {b"a": b"first", b"b": b"same", b"c": b"same", b"d/e": b"other"}
SECOND = {b"a": b"second", b"b": b"same", b"c": b"same", b"d/e": b"other"}


def kept(content: bytes) -> str:
    return kept_key(blake3(content).digest())


@pytest.fixture
def repository() -> Repository:
    """Two generations."""
    repository = Repository(MemoryStorage())
    save(repository, FIRST, link(b"l", b"a"))
    save(repository, SECOND, link(b"l", b"a"))
    return repository


def damage(storage: Storage, key: str) -> None:
    """Bit rot: as many bytes as before."""
    storage.write(key, bytes(len(storage.read_bytes(key))))


def test_a_whole_project(repository: Repository) -> None:
    progress = Progress()
    assert verify(repository, progress=progress) == []
    assert (progress.files_done, progress.files_total, progress.bytes_done) == (4, 4, 19)
    assert verify(repository, 1) == []
    assert verify(repository, 1, contents=False) == []
    with pytest.raises(NotFound):
        verify(repository, 3)
    with pytest.raises(NotFound):
        verify(Repository(MemoryStorage()))


@pytest.mark.parametrize(
    ("harm", "found", "by_size"),
    [
        (lambda s: damage(s, "d/e"), [b"d/e"], []),
        (lambda s: s.remove("d/e"), [b"d/e"], [b"d/e"]),
        (lambda s: s.write("a", b"shorter"), [b"a"], [b"a"]),
        (lambda s: s.remove(kept(b"first")), [], []),
    ],
)
def test_damage_is_found(
    repository: Repository, harm: Callable[[Storage], None], found: list[bytes], by_size: list[bytes]
) -> None:
    harm(repository.storage)
    assert [p.path for p in verify(repository)] == found
    assert [p.path for p in verify(repository, contents=False)] == by_size


def test_damage_of_an_earlier_generation_is_found(repository: Repository) -> None:
    damage(repository.storage, kept(b"first"))
    assert verify(repository) == []
    assert [p.path for p in verify(repository, 1)] == [b"a"]


def test_contents_under_wrong_names_are_put_right(repository: Repository) -> None:
    """Also where they stand in each other's places."""
    storage = repository.storage
    save(repository, SECOND | {b"d/e": b"third"}, link(b"l", b"a"))
    one, two = kept(b"first"), kept(b"other")
    first, second = storage.read_bytes(one), storage.read_bytes(two)
    storage.write(one, second)
    storage.write(two, first)
    assert verify(repository, 1)
    assert repair(repository, Held()) == []
    assert contents(repository, 1) == FIRST
    assert contents(repository, 2) == SECOND


def test_two_files_that_were_exchanged_by_hand(repository: Repository) -> None:
    storage = repository.storage
    storage.move("a", "x")
    storage.move("d/e", "a")
    storage.move("x", "d/e")
    storage.remove("l")
    assert repair(repository, Held()) == []
    assert shown(storage) == {k.decode(): v for k, v in SECOND.items()}
    assert storage.readlink("l") == b"a"
    assert contents(repository, 1) == FIRST


def test_a_file_that_is_lost_and_has_a_twin(repository: Repository) -> None:
    damage(repository.storage, "b")
    assert repair(repository, Held()) == []
    assert contents(repository, 2) == SECOND


def test_what_stands_in_the_place_of_a_file_is_not_lost(repository: Repository) -> None:
    repository.storage.write("d/e", b"written by hand")
    assert [p.path for p in repair(repository, Held())] == [b"d/e"]
    assert repository.storage.read_bytes(kept(b"written by hand")) == b"written by hand"


def test_what_cannot_be_put_right_is_told_and_the_rest_is(repository: Repository) -> None:
    storage = repository.storage
    damage(storage, "d/e")
    storage.move("a", kept(b"second"))
    assert [p.path for p in repair(repository, Held())] == [b"d/e"]
    assert storage.read_bytes("a") == b"second"


def test_an_unfinished_save_whose_note_is_damaged(repository: Repository) -> None:
    storage = repository.storage
    begin(repository, tree({b"a": b"third"}, link(b"l", b"a")), {b"a": b"third"})
    (note,) = storage.children(INTENT)
    storage.write(note.key, b"\0")
    assert repair(repository, Held(2)) == []
    assert not list(storage.children(INTENT))
    assert shown(storage) == {k.decode(): v for k, v in SECOND.items()}
    assert contents(repository, 1) == FIRST


def test_an_unfinished_save_is_rolled_back_first(repository: Repository) -> None:
    begin(repository, tree({b"a": b"third"}), {b"a": b"third"})
    assert repair(repository, Held(2)) == []
    assert contents(repository, 2) == SECOND
    assert datetime.now(UTC) - repository.generations()[0].created < timedelta(hours=1)
    assert all(len(s.key.removeprefix(f"{KEPT}/")) == 64 for s in repository.storage.children(KEPT))
