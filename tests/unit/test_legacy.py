"""Projects that earlier systems left: their locks, their links, and taking them up."""

import os
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from blake3 import blake3

from scipion_cloud.errors import Conflict, LeaseLost, Locked, SyncError
from scipion_cloud.storage import Capabilities, Storage, open_storage
from scipion_cloud.storage.wrapper import Wrapper
from scipion_cloud.sync.entry import Entry, EntryKind
from scipion_cloud.sync.lease import acquire
from scipion_cloud.sync.legacy import import_legacy, inspect
from scipion_cloud.sync.legacy_links import OldLink, parse_dump, parse_linklist
from scipion_cloud.sync.legacy_lock import System
from scipion_cloud.sync.manifest import Manifest
from scipion_cloud.sync.progress import Problem, Progress
from scipion_cloud.sync.repository import Repository
from scipion_cloud.testing.memory import MemoryStorage

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
IMPORT = "Runs/000002_ProtImportMovies/extra"


class Fence:
    """Always held."""

    epoch, deployment, host, user = 1, "d", "h", "ann"

    def check(self) -> None:
        pass

    confirm = check


@pytest.fixture(params=["memory", "posix"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Storage]:
    if request.param == "memory":
        yield MemoryStorage(clock=lambda: NOW)
    else:
        with open_storage((tmp_path / "space").as_uri()) as folder:
            yield folder


def database() -> bytes:
    """A project.sqlite as Scipion makes one, as far as it matters here."""
    with tempfile.NamedTemporaryFile() as file:
        with closing(sqlite3.connect(file.name)) as db, db:
            db.execute("CREATE TABLE Objects (id INTEGER PRIMARY KEY, name TEXT, value TEXT)")
            db.execute("INSERT INTO Objects (name, value) VALUES ('project', 'apoferritin')")
        return Path(file.name).read_bytes()


def project(storage: Storage) -> dict[str, bytes]:
    """An ordinary Scipion project; its files."""
    files = {
        "project.sqlite": database(),
        "settings.sqlite": database(),
        f"{IMPORT[:-6]}/movies.sqlite": database(),
        "Runs/000031_ProtMotion/extra/mic 1.mrc": b"\0" * 4096,
        "Runs/000031_ProtMotion/logs/run.stdout": b"",
        "Logs/schedule.log": b"started\n",
    }
    for key, content in files.items():
        storage.write(key, content)
    return files


def west_life(storage: Storage, age: timedelta = timedelta()) -> None:
    """What the West-Life scripts left: `find -type l -printf '"%h" "%f" "%l"\\n'` of the working copy."""
    work = "/home/ann/apoferritin"
    storage.write(
        ".deployment_status_do_not_delete/lock",
        b"HOST=wn12.example.org\nMOUNT=/onedata\nDIR=space1/apoferritin\nUSER=Ann\n"
        b"DATE=Mon Jan  2 15:04:05 CET 2017\n",
    )
    storage.write(
        ".deployment_status_do_not_delete/linklist",
        "".join(
            f'"{work}/{folder}" "{name}" "{target}"\n'
            for folder, name, target in [
                (IMPORT, "mov 1.tif", f"{work}/data/mov 1.tif"),
                (IMPORT, 'mov "2".tif', "/onedata/space1/apoferritin/data/2.tif"),
                (IMPORT, "mov\n3.tif", "../../../data/mov\n3.tif"),
                (IMPORT, "gain.mrc", "/onedata/gains/gain.mrc"),
                ("Runs", "self", "."),
                ("Runs", "loop", "../Runs"),
            ]
        ).encode()
        + b"this is no line\n",
    )


def kubernetes(storage: Storage, lock: bytes = b"", dump: bytes | None = None) -> None:
    """What the controller left: project.lock, and `<target> <absolute link>` for each link."""
    storage.write("scipion-docker/project.lock", lock)
    volume = "/mnt/vol-project"
    links = [(f"/mnt/vol-source/set 1/mov{n}.tif", f"{volume}/{IMPORT}/mov{n}.tif") for n in range(3)] + [
        ("/root/ScipionUserData/source/gain.mrc", f"{volume}/{IMPORT}/gain.mrc"),
        ("/root/ScipionUserData/projects/apoferritin/Logs/schedule.log", f"{volume}/{IMPORT}/named.log"),
        (f"{volume}/Runs/000031_ProtMotion/extra/mic 1.mrc", f"{volume}/{IMPORT}/mic 1.mrc"),
        ("..", f"{volume}/Runs/loop"),
        *[(f"/mnt/vol-source/{n}", f"{volume}/Runs/{'loop/Runs/' * n}loop/seen{n}") for n in range(60)],
        ("/nowhere/at/all", f"{volume}/Runs/dangling"),
        ("/nowhere/at/all", f"{volume}/Runs/dangling"),
        ("settings.sqlite", f"{volume}/project.sqlite"),
    ]
    lines = "".join(f"{target} {link}\n" for target, link in links).encode()
    storage.write("symlink-dump", lines if dump is None else dump)


def take_up(storage: Storage, **options: object) -> tuple[Manifest, list[Problem]]:
    problems: list[Problem] = []
    made = import_legacy(storage, Fence(), tell=problems.append, **options)  # type: ignore[arg-type]
    repository = Repository(storage)
    assert repository.latest() == made
    assert made.number == 1
    return repository.manifest(1), problems


def fetched(storage: Storage, entry: Entry) -> bytes:
    with tempfile.TemporaryFile() as file:
        Repository(storage).fetch(entry, file.fileno())
        file.seek(0)
        return file.read()


def check_files(storage: Storage, manifest: Manifest, files: dict[str, bytes]) -> None:
    there = {os.fsdecode(e.path): e for e in manifest.values() if e.kind is EntryKind.FILE}
    assert there.keys() == files.keys()
    for key, content in files.items():
        assert there[key].digest == blake3(content).digest()
        assert fetched(storage, there[key]) == content
        assert storage.read_bytes(key) == content  # nothing was moved


def links_of(manifest: Manifest) -> dict[str, tuple[EntryKind, str]]:
    links = [e for e in manifest.values() if e.kind in (EntryKind.LINK, EntryKind.SOURCE_LINK)]
    return {os.fsdecode(e.path): (e.kind, os.fsdecode(e.target)) for e in links}


# what lies there


def test_nothing_and_a_project_of_ours_are_not_legacy(storage: Storage) -> None:
    assert inspect(storage) is None
    storage.write("project.sqlite", database())
    take_up(storage)
    assert inspect(storage) is None
    with pytest.raises(Conflict, match="nothing to import"):
        import_legacy(storage, Fence())


def test_a_project_of_scipion_alone(storage: Storage) -> None:
    files = project(storage)
    found = inspect(storage)
    assert found is not None
    assert found.describe() == "A Scipion project lies in this storage."
    progress = Progress()
    manifest, problems = take_up(storage, progress=progress)
    check_files(storage, manifest, files)
    assert problems == []
    assert manifest[b"Runs/000031_ProtMotion/logs"].kind is EntryKind.FOLDER
    assert (progress.files_done, progress.files_total) == (6, 6)
    assert progress.bytes_done == progress.bytes_total == sum(map(len, files.values()))
    made = Repository(storage).latest()
    assert made is not None
    assert (made.note, made.user, made.files) == ("Imported", "ann", 6)


def test_files_that_are_no_project(storage: Storage) -> None:
    storage.write("photos/cat.jpg", b"miaow")
    found = inspect(storage)
    assert found is not None
    assert not found.is_project
    assert found.describe() == "Files, but no Scipion project, lie in this storage."


def test_empty_folders_and_the_storages_own_links(tmp_path: Path) -> None:
    root = tmp_path / "space"
    (root / "Runs" / "empty" / "inner").mkdir(parents=True)
    (root / "project.sqlite").write_bytes(database())
    (root / "Runs" / "loop").symlink_to("..")
    (root / "Runs" / "db").symlink_to(root / "project.sqlite")
    (root / "Runs" / "gone").symlink_to("nothing here")
    with open_storage(root.as_uri()) as storage:
        manifest, problems = take_up(storage)
    assert manifest[b"Runs/empty/inner"].kind is EntryKind.FOLDER
    assert links_of(manifest) == {
        "Runs/loop": (EntryKind.LINK, ".."),
        "Runs/db": (EntryKind.LINK, str(root / "project.sqlite")),
        "Runs/gone": (EntryKind.LINK, "nothing here"),
    }
    assert [p.path for p in problems] == [b"Runs/db"]


def test_names_that_the_storage_holds_by_chance() -> None:
    storage = MemoryStorage()
    storage.write("project.sqlite", database())
    storage.write("Runs/cafe\u0301.mrc", b"not NFC")

    class Picky(Wrapper):
        @property
        def capabilities(self) -> Capabilities:
            return replace(self.inner.capabilities, byte_names=False)

    manifest, _ = take_up(Picky(storage))
    entry = manifest["Runs/cafe\u0301.mrc".encode()]
    assert fetched(Picky(storage), entry) == b"not NFC"


# West-Life


def test_west_life(storage: Storage) -> None:
    files = project(storage)
    west_life(storage)
    found = inspect(storage)
    assert found is not None
    assert (found.system, len(found.links), len(found.problems)) == (System.WLC, 6, 1)
    assert found.live is not None
    assert (
        "locked by the West-Life portal, opened by Ann on wn12.example.org (Mon Jan  2 15:04:05 CET 2017)"
        in found.describe()
    )
    with pytest.raises(Locked, match=r"remove the file '\.deployment_status_do_not_delete/lock'"):
        take_up(storage, stale_too=True)
    assert Repository(storage).latest() is None

    storage.remove(".deployment_status_do_not_delete/lock")
    manifest, problems = take_up(storage, sources=["/onedata/gains"])
    check_files(storage, manifest, files)
    assert links_of(manifest) == {
        f"{IMPORT}/mov 1.tif": (EntryKind.LINK, "../../../data/mov 1.tif"),
        f'{IMPORT}/mov "2".tif': (EntryKind.LINK, "/onedata/space1/apoferritin/data/2.tif"),
        f"{IMPORT}/mov\n3.tif": (EntryKind.LINK, "../../../data/mov\n3.tif"),
        f"{IMPORT}/gain.mrc": (EntryKind.SOURCE_LINK, "gain.mrc"),
        "Runs/self": (EntryKind.LINK, "."),
        "Runs/loop": (EntryKind.LINK, "../Runs"),
    }
    # the mount was told by the lock, which is gone; the line that is none
    assert [p.path for p in problems] == [b"", f'{IMPORT}/mov "2".tif'.encode()]
    assert storage.read_bytes(".deployment_status_do_not_delete/linklist")


def test_a_west_life_lock_is_stale_after_the_longest_deployment() -> None:
    now = NOW
    storage = MemoryStorage(clock=lambda: now)
    project(storage)
    west_life(storage)
    now = NOW + timedelta(days=30)
    assert inspect(storage).live  # type: ignore[union-attr]
    now = NOW + timedelta(days=32)
    with pytest.raises(Locked, match=r"32 d ago.*must be gone"):
        take_up(storage)
    manifest, problems = take_up(storage, stale_too=True)
    assert links_of(manifest)[f'{IMPORT}/mov "2".tif'] == (EntryKind.LINK, "../../../data/2.tif")
    assert [p.path for p in problems] == [b"", f"{IMPORT}/gain.mrc".encode()]


def test_west_life_lines() -> None:
    links, problems = parse_linklist(
        b'"/a" "b" "c"\n\n"." "" "x"\n"/a" "q"q" "t"t"\n"/a" "l\n\nm" "n\no"\nrubbish\n'
        b'"/a" "b" "c" "d"\n"/x" "y'
    )
    assert links == [
        OldLink(b"/a/b", b"c"),
        OldLink(b"./", b"x"),
        OldLink(b'/a/q"q', b't"t'),
        OldLink(b"/a/l\n\nm", b"n\no"),
    ]
    assert ["rubbish" in problems[0].text, '"d"' in problems[1].text, '"y' in problems[2].text] == [True] * 3


# Scipion in Kubernetes


def test_kubernetes(storage: Storage) -> None:
    files = project(storage)
    kubernetes(storage)
    found = inspect(storage)
    assert found is not None
    assert found.system is System.K8S
    storage.remove("scipion-docker/project.lock")
    manifest, problems = take_up(storage)
    check_files(storage, manifest, files)
    assert links_of(manifest) == {
        **{f"{IMPORT}/mov{n}.tif": (EntryKind.SOURCE_LINK, f"set 1/mov{n}.tif") for n in range(3)},
        f"{IMPORT}/gain.mrc": (EntryKind.SOURCE_LINK, "gain.mrc"),
        f"{IMPORT}/named.log": (EntryKind.LINK, "../../../Logs/schedule.log"),
        f"{IMPORT}/mic 1.mrc": (EntryKind.LINK, "../../000031_ProtMotion/extra/mic 1.mrc"),
        "Runs/loop": (EntryKind.LINK, ".."),
        "Runs/dangling": (EntryKind.LINK, "/nowhere/at/all"),
    }
    assert [(p.path, "a file in the storage" in p.text) for p in problems] == [
        (b"Runs/dangling", False),
        (b"project.sqlite", True),
    ]
    assert storage.read_bytes("symlink-dump")


@pytest.mark.parametrize(
    ("link", "project_target", "source_target"),
    [
        ("/home/u/ScipionUserData/projects/apo/Runs/x", "/mnt/v1/apo/Logs/a", "/mnt/v2/b/c"),
        ("/home/u/ScipionUserData/projects/Runs/x", "/mnt/v1/Logs/schedule.log", "/mnt/v2/b/c"),
        ("/mnt/v1/apo/Runs/x", "/home/u/ScipionUserData/projects/apo/Logs/a", "/mnt/v2/b/c"),
        ("/mnt/v1/Runs/x", "/mnt/v1/Logs/a", "/home/u/ScipionUserData/source/b/c"),
    ],
)
def test_both_names_of_the_volumes(link: str, project_target: str, source_target: str) -> None:
    storage = MemoryStorage()
    project(storage)
    kubernetes(storage, dump=f"{project_target} {link}\n{source_target} {link}2\n".encode())
    storage.remove("scipion-docker/project.lock")
    manifest, problems = take_up(storage)
    assert links_of(manifest) == {
        "Runs/x": (EntryKind.LINK, "../Logs/" + project_target.rpartition("/")[2]),
        "Runs/x2": (EntryKind.SOURCE_LINK, "b/c"),
    }
    assert problems == []


def test_kubernetes_lines() -> None:
    good = b"/s/a b /mnt/v/Runs/l 1\nrel /mnt/v/m\n"
    assert parse_dump(good) == ([OldLink(b"/mnt/v/Runs/l 1", b"/s/a b"), OldLink(b"/mnt/v/m", b"rel")], [])
    links, problems = parse_dump(good + b"/s/x /odd /mnt/v/o\n" + good)
    assert (len(links), len(problems)) == (4, 1)
    # a line break in a name: the neighbours may be its parts
    links, problems = parse_dump(good + b"/s/new\nline /mnt/v/n\n" + good)
    assert links == [*parse_dump(good)[0][:1], *parse_dump(good)[0]]
    assert [p.text[-20:] for p in problems if "new" in p.text]
    assert len(problems) == 3


@pytest.mark.parametrize(
    ("content", "age", "live"),
    [
        (b"", timedelta(days=30), True),  # it was never refreshed: nobody knows
        (b"", timedelta(days=32), False),
        (b"nonsense", timedelta(days=30), True),
        (b"nan", timedelta(days=30), True),
        (b"%d\n", timedelta(minutes=9), True),
        (b"%d\n", timedelta(minutes=11), False),
    ],
)
def test_kubernetes_locks(content: bytes, age: timedelta, live: bool) -> None:
    now = NOW
    storage = MemoryStorage(clock=lambda: now)
    project(storage)
    kubernetes(storage, content % NOW.timestamp() if b"%" in content else content)
    now = NOW + age
    found = inspect(storage)
    assert found is not None
    assert [lock.live for lock in found.locks] == [live]
    with pytest.raises(Locked, match="remove the file" if live else "say so"):
        take_up(storage, stale_too=live)
    if not live:
        take_up(storage, stale_too=True)


def test_a_deployment_that_saves_is_alive_whatever_its_lock_says() -> None:
    now = NOW
    storage = MemoryStorage(clock=lambda: now)
    project(storage)
    kubernetes(storage, b"%d" % NOW.timestamp())
    now = NOW + timedelta(hours=1)
    storage.write("project.sqlite", database())
    now += timedelta(minutes=1)
    found = inspect(storage)
    assert found is not None
    assert found.live is not None
    assert found.live.silent == timedelta(minutes=1)


# while it is imported


def test_an_import_that_somebody_writes_into_is_given_up(storage: Storage) -> None:
    files = project(storage)

    class Written(Wrapper):
        done = False

        def read(self, key: str, start: int = 0, length: int | None = None) -> Iterator[bytes]:
            yield from self.inner.read(key, start, length)
            if key == "Logs/schedule.log" and not self.done:
                self.done = True
                self.inner.write(key, b"started\nended\n")

    with pytest.raises(SyncError, match=r"'Logs/schedule\.log' changed.*still writes"):
        import_legacy(Written(storage), Fence())
    assert Repository(storage).latest() is None
    manifest, _ = take_up(storage)
    check_files(storage, manifest, {**files, "Logs/schedule.log": b"started\nended\n"})


def test_an_import_under_a_lease_that_was_lost_makes_nothing(storage: Storage) -> None:
    project(storage)
    who = {"host": "h", "user": "u", "parameters": {}}
    lost = acquire(storage, deployment="d", **who)  # type: ignore[arg-type]
    acquire(storage, deployment="d", **who)  # type: ignore[arg-type]
    with pytest.raises(LeaseLost):
        import_legacy(storage, lost)
    assert Repository(storage).latest() is None
