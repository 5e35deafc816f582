"""Whether a generation is whole in the storage, and putting right what can be."""

import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from blake3 import blake3

from scipion_cloud.errors import NotFound, StorageError, StorageMissing, SyncError
from scipion_cloud.storage import Kind, Storage
from scipion_cloud.sync.entry import Entry, EntryKind
from scipion_cloud.sync.fence import Fence
from scipion_cloud.sync.fetch import copy, holds
from scipion_cloud.sync.intent import intent_keys, read_intent
from scipion_cloud.sync.layout import KEPT, kept_key, key_of
from scipion_cloud.sync.manifest import Manifest
from scipion_cloud.sync.progress import Problem, Progress
from scipion_cloud.sync.repository import Repository
from scipion_cloud.sync.rollback import conform

THREADS = 8


def verify(
    repository: Repository,
    number: int | None = None,
    *,
    contents: bool = True,
    progress: Progress | None = None,
) -> list[Problem]:
    """What of a generation, the latest by default, is damaged or missing in the storage; nothing is changed.

    Without `contents` files are looked for but not read. Raises NotFound, StorageError, and SyncError if the
    list of its files is damaged.
    """
    manifest = _manifest(repository, number)
    progress = progress or Progress()
    progress.expect(manifest.files, manifest.size)
    whole = _check(repository.storage, manifest, contents, progress)
    return [_problem(e) for e in manifest.values() if e.kind is EntryKind.FILE and e.path not in whole]


def repair(repository: Repository, fence: Fence) -> list[Problem]:
    """Put right what can be: files that stand under wrong names get their right ones; what is still damaged.

    All files are read. What stands where a file of the project belongs, and is not it, is kept under its own
    digest, not removed. Raises LeaseLost, StorageError.
    """
    fence.confirm()
    storage = repository.storage
    damaged_notes = _damaged_notes(repository)
    if not damaged_notes:
        repository.recover(fence)
    manifest = _manifest(repository, None)
    _right_names(storage, fence)
    whole = _at_own_names(storage, manifest, fence)
    _copy_twins(storage, manifest, whole, fence)
    conform(storage, manifest, manifest, repository.needed_in(), fence.check)
    for key in damaged_notes:
        fence.check()
        storage.remove(key)
    return verify(repository)


def _manifest(repository: Repository, number: int | None) -> Manifest:
    if number is None:
        latest = repository.latest()
        if latest is None:
            raise NotFound("Nothing was ever saved in this storage.")
        number = latest.number
    return repository.manifest(number)


def _problem(entry: Entry) -> Problem:
    return Problem(entry.path, "is damaged or missing in the storage; earlier generations may have it whole.")


def _check(storage: Storage, manifest: Manifest, contents: bool, progress: Progress) -> set[bytes]:
    """The paths of the files that are whole."""

    def check(entry: Entry) -> bytes | None:
        keys = (key_of(entry.path, storage.capabilities), kept_key(entry.digest))
        found = any((holds if contents else _has_size)(storage, key, entry) for key in keys)
        progress.add(files=1, size=entry.size)
        return entry.path if found else None

    files = (entry for entry in manifest.values() if entry.kind is EntryKind.FILE)
    with ThreadPoolExecutor(THREADS) as pool:
        return {path for path in pool.map(check, files) if path is not None}


def _has_size(storage: Storage, key: str, entry: Entry) -> bool:
    try:
        found = storage.stat(key)
    except StorageMissing:
        return False
    return found.kind is Kind.FILE and found.size == entry.size


def _damaged_notes(repository: Repository) -> list[str]:
    """The keys of the notes of unfinished saves that cannot be read."""
    damaged = []
    for key in intent_keys(repository.storage):
        try:
            read_intent(repository.storage, key)
        except StorageMissing:
            continue
        except SyncError:
            damaged.append(key)
    return damaged


def _right_names(storage: Storage, fence: Fence) -> None:
    """Give what is kept the name of its digest."""
    wrong: dict[str, str] = {}
    lock = threading.Lock()

    def look(key: str) -> None:
        right = kept_key(_digest(storage, key))
        if right != key:
            with lock:
                wrong[key] = right

    _all(partial(look, stat.key) for stat in list(storage.children(KEPT)) if stat.kind is Kind.FILE)
    # who has the name that another one needs goes first, to a place of his own
    for key in sorted(wrong):
        fence.check()
        storage.move(key, f"{wrong[key]}.moved")
    for right in sorted(set(wrong.values())):
        fence.check()
        storage.move(f"{right}.moved", right)


def _at_own_names(storage: Storage, manifest: Manifest, fence: Fence) -> dict[bytes, str]:
    """Keep what stands under a project file's name and is not it; where which bytes are whole."""
    whole: dict[bytes, str] = {}
    lock = threading.Lock()

    def look(entry: Entry) -> None:
        key = key_of(entry.path, storage.capabilities)
        try:
            digest = _digest(storage, key)
        except StorageMissing:
            return
        except StorageError as e:
            if type(e) is not StorageError:
                raise
            return  # a folder or link; `conform` deals with it
        if digest == entry.digest:
            with lock:
                whole[digest] = key
        else:
            fence.check()
            storage.move(key, kept_key(digest))

    _all(partial(look, entry) for entry in manifest.values() if entry.kind is EntryKind.FILE)
    return whole


def _copy_twins(storage: Storage, manifest: Manifest, whole: dict[bytes, str], fence: Fence) -> None:
    """What is lost under its own name, and not kept, may be the same as another file."""
    for entry in manifest.values():
        source = whole.get(entry.digest) if entry.kind is EntryKind.FILE else None
        key = key_of(entry.path, storage.capabilities)
        if source not in (None, key) and not _has_size(storage, key, entry):
            fence.check()
            copy(storage, str(source), key)


def _digest(storage: Storage, key: str) -> bytes:
    hasher = blake3()
    for chunk in storage.read(key):
        hasher.update(chunk)
    return hasher.digest()


def _all(calls: Iterable[Callable[[], None]]) -> None:
    with ThreadPoolExecutor(THREADS) as pool:
        for _ in pool.map(lambda call: call(), calls):
            pass
