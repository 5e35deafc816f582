"""What a storage can really do, found out in a folder of our own that is removed again."""

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from os import fsdecode, urandom
from threading import Barrier

from scipion_cloud.errors import InvalidInput, ScipionCloudError, StorageExists, StorageMissing
from scipion_cloud.storage.base import Kind, Storage

FOLDER = ".scipion-cloud"
RACERS = 8

CONTENT = b"Scipion Cloud tries what this storage can do. This may be deleted."


@dataclass(frozen=True)
class Finding:
    """One thing that a storage can do, or cannot."""

    name: str  # of a capability; or "write", "read", "list", "delete", "round trip"
    promised: bool
    works: bool
    note: str  # for people


def selftest(storage: Storage) -> tuple[Finding, ...]:
    """Try all that projects need, and what they could use, in a folder of its own.

    What can be done at all comes first; if writing fails, nothing else is tried. The last one is the time of
    a round trip. Never raises a ScipionCloudError, since that is a finding.
    """
    with _place(storage) as place:
        written = _tried("write", "Files can be written.", lambda: storage.write(f"{place}/a/file", CONTENT))
        if not written.works:
            return (written,)
        able = storage.capabilities
        return (
            written,
            _tried("read", "Files come back as they were written.", lambda: _read(storage, place)),
            _tried("list", "Folders can be listed.", lambda: _list(storage, place)),
            _tried("delete", "Files can be deleted.", lambda: _delete(storage, place)),
            *(_found(name, getattr(able, name), probe, storage, place) for name, probe in PROBES.items()),
            _round_trip(storage, place),
        )


def create_is_exclusive(storage: Storage) -> bool:
    """Whether a file that is there is not created a second time. Quick: two requests, and one to clean up.

    Raises what the storage raises, but for the refusal that is asked for.
    """
    with _place(storage) as place:
        # the promise last: trying may teach the storage that it cannot keep it
        refused = _second_create_is_refused(storage, f"{place}/twice")
        return refused and storage.capabilities.exclusive_create


@contextmanager
def _place(storage: Storage) -> Iterator[str]:
    """A folder that nobody else uses; removed in any case, as far as the storage lets us."""
    place = f"{FOLDER}/selftest-{urandom(8).hex()}"
    try:
        yield place
    finally:
        with suppress(ScipionCloudError):
            for stat in list(storage.walk(place)):
                storage.remove(stat.key)
            _remove_folders(storage, place)


def _remove_folders(storage: Storage, folder: str) -> None:
    for stat in list(storage.children(folder)):
        if stat.kind is Kind.FOLDER:
            _remove_folders(storage, stat.key)
    storage.remove_folder(folder)


def _tried(name: str, note: str, do: Callable[[], object]) -> Finding:
    """Something without which there can be no project."""
    try:
        do()
    except ScipionCloudError as e:
        return Finding(name, promised=True, works=False, note=str(e))
    return Finding(name, promised=True, works=True, note=note)


class _NotSoError(ScipionCloudError):
    """The storage said yes and did something else."""


def _expect(holds: bool, text: str) -> None:
    if not holds:
        raise _NotSoError(text)


def _read(storage: Storage, place: str) -> None:
    _expect(storage.read_bytes(f"{place}/a/file") == CONTENT, "What is read is not what was written.")


def _list(storage: Storage, place: str) -> None:
    _expect([s.key for s in storage.walk(place)] == [f"{place}/a/file"], "A new file is not listed.")
    _expect(
        [s.key for s in storage.children(f"{place}/a")] == [f"{place}/a/file"], "A new file is not listed."
    )


def _delete(storage: Storage, place: str) -> None:
    storage.remove(f"{place}/a/file")
    try:
        storage.stat(f"{place}/a/file")
    except StorageMissing:
        return
    raise _NotSoError("A file that was deleted is still there.")


def _round_trip(storage: Storage, place: str) -> Finding:
    times = []
    for _ in range(5):
        began = time.perf_counter()
        with suppress(ScipionCloudError):
            storage.stat(f"{place}/nothing")
        times.append(time.perf_counter() - began)
    return Finding("round trip", True, True, f"One request takes {sorted(times)[2] * 1000:.1f} ms.")


Probe = Callable[[Storage, str], str]  # storage, folder -> "" if it works, else why not


def _found(name: str, promised: bool, probe: Probe, storage: Storage, place: str) -> Finding:
    """Whether a capability is there."""
    yes, no = NOTES[name]
    try:
        why = probe(storage, f"{place}/{name}")
    except (ScipionCloudError, NotImplementedError) as e:
        why = str(e)
    return Finding(name, promised, not why, yes if not why else f"{no} ({why})")


def _exclusive_create(storage: Storage, place: str) -> str:
    if not _second_create_is_refused(storage, f"{place}/twice"):
        return "a second file of the same name was accepted"
    start = Barrier(RACERS)

    def create(n: int) -> bool:
        start.wait(60)
        try:
            storage.create(f"{place}/race", b"%d" % n)
        except StorageExists:
            return False
        return True

    with ThreadPoolExecutor(RACERS) as pool:
        winners = sum(pool.map(create, range(RACERS)))
    return (
        ""
        if winners == 1
        else f"{winners} of {RACERS} that created a file at the same time were told that it is theirs"
    )


def _second_create_is_refused(storage: Storage, key: str) -> bool:
    storage.create(key, b"first")
    try:
        storage.create(key, b"second")
    except StorageExists:
        return storage.read_bytes(key) == b"first"
    return False


def _rename(storage: Storage, place: str) -> str:
    storage.write(f"{place}/from", CONTENT)
    storage.move(f"{place}/from", f"{place}/there/to")
    keys = {stat.key for stat in storage.walk(place)}
    if keys != {f"{place}/there/to"} or storage.read_bytes(f"{place}/there/to") != CONTENT:
        return "the file did not arrive"
    return "" if storage.capabilities.rename else "the server copies and deletes"


def _symlinks(storage: Storage, place: str) -> str:
    target = b"../no where"
    storage.symlink(f"{place}/link", target)
    right = storage.readlink(f"{place}/link") == target and storage.stat(f"{place}/link").kind is Kind.LINK
    return "" if right else "a symlink did not stay one"


def _folders(storage: Storage, place: str) -> str:
    storage.make_folder(f"{place}/empty")
    return "" if f"{place}/empty" in {stat.key for stat in storage.children(place)} else "it is not listed"


def _ranges(storage: Storage, place: str) -> str:
    storage.write(f"{place}/file", CONTENT)
    part = b"".join(storage.read(f"{place}/file", 5, 10))
    if part != CONTENT[5:15]:
        return "other bytes came"
    return "" if storage.capabilities.ranges else "the server sends all of a file"


def _mtime(storage: Storage, place: str) -> str:
    given = datetime(2001, 2, 3, 4, 5, 6, tzinfo=UTC)
    storage.write(f"{place}/file", CONTENT, mtime=given)
    kept = abs(storage.stat(f"{place}/file").modified - given) < timedelta(seconds=2)
    return "" if kept else "it tells the time of the upload"


def _byte_names(storage: Storage, place: str) -> str:
    names = {"new\nline", "cafe\u0301", "caf\u00e9", fsdecode(b"\xff")}
    try:
        for name in names:
            storage.write(f"{place}/{name}", name.encode("utf-8", "surrogateescape"))
    except InvalidInput:
        return "they are kept under other names"
    listed = {stat.key for stat in storage.walk(place)}
    return "" if listed == {f"{place}/{name}" for name in names} else "some names come back as others"


PROBES: dict[str, Probe] = {
    "exclusive_create": _exclusive_create,
    "rename": _rename,
    "symlinks": _symlinks,
    "folders": _folders,
    "ranges": _ranges,
    "mtime": _mtime,
    "byte_names": _byte_names,
}

NOTES: dict[str, tuple[str, str]] = {  # if it works, if not
    "exclusive_create": (
        "Of many that create a file one wins: projects are locked here.",
        "Files are not created exclusively: projects cannot be locked here and are locked by the portal.",
    ),
    "rename": (
        "Files are renamed in one step.",
        "Files are not renamed: they are copied, which takes longer.",
    ),
    "symlinks": ("Symlinks are kept as such.", "No symlinks: they are kept in the list of files."),
    "folders": ("Empty folders are kept as such.", "No empty folders: they are kept in the list of files."),
    "ranges": (
        "Parts of files can be read.",
        "Parts of files cannot be read: big files take longer to resume.",
    ),
    "mtime": (
        "Files keep their times.",
        "Files do not keep their times: these are kept in the list of files.",
    ),
    "byte_names": ("Any file name is kept as such.", "Not all file names can be kept."),
}
