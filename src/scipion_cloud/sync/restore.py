"""A generation into a working copy: what people need to begin with first, then the large files."""

import errno
import os
import threading
from collections import defaultdict
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

from scipion_cloud.errors import NoRoom, SyncError
from scipion_cloud.storage import linux
from scipion_cloud.sync.copy import WorkingCopy
from scipion_cloud.sync.entry import Entry, EntryKind, parent_of
from scipion_cloud.sync.fetch import Stopped
from scipion_cloud.sync.generation import Generation
from scipion_cloud.sync.in_use import begin_use, end_use, is_in_use
from scipion_cloud.sync.index import Index
from scipion_cloud.sync.manifest import Manifest
from scipion_cloud.sync.placing import Placing
from scipion_cloud.sync.present import Present, look
from scipion_cloud.sync.progress import Problem, Progress
from scipion_cloud.sync.repository import Repository

SOON = 4 * 1024 * 1024  # bytes; files up to here are there before people begin to work
DATABASES = (b".sqlite", b".sqlite3", b".db")  # these too, whatever their size
BATCH = 64  # small files of one folder that one thread takes
MARGIN = 16 * 1024 * 1024  # bytes to be left free


@dataclass(frozen=True)
class Estimate:
    """What a restore has to do."""

    files: int  # of the generation
    bytes: int
    have_files: int  # of them, known to be here already
    have_bytes: int
    free_bytes: int  # on the disk of the working copy


def estimate(repository: Repository, generation: Generation, copy: WorkingCopy) -> Estimate:
    """How much a restore would copy, and whether there is room; nothing is changed."""
    files = [e for e in repository.manifest(generation.number).values() if e.kind is EntryKind.FILE]
    have = [e for e in files if copy.has(e)] if copy.marker else []
    return Estimate(
        len(files), sum(e.size for e in files), len(have), sum(e.size for e in have), free_space(copy.path)
    )


def restore(
    repository: Repository,
    generation: Generation,
    copy: WorkingCopy,
    *,
    progress: Progress | None = None,
    on_ready: Callable[[], None] | None = None,
    threads: int | None = None,
    stop: threading.Event | None = None,
) -> tuple[Problem, ...]:
    """Make a working copy what a generation is. What is in the way is moved aside, never deleted.

    Databases, small files and links come first; then `on_ready` is called, people may work, and what they do
    is left alone while the large files arrive. A restore that was cut off is gone on with by the same call;
    what is whole is not copied again. Returns early, with nothing to be done about it, once `stop` is set.
    The problems tell what was left alone. Raises SyncError if there is no room, or at the end if files are
    damaged in the storage: all others are there then. Raises StorageError.
    """
    job = _Restore(repository, generation, copy, progress or Progress(), threads, stop)
    try:
        return job.run(on_ready)
    except Stopped:
        return ()
    except OSError as e:
        if e.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise SyncError(
                f"{copy.path} does not take the project's files ({e}). What has arrived stays; when this is "
                "put right, the same again goes on from there."
            ) from e
        raise _no_room(copy.path, job.left) from e


def revert(
    repository: Repository,
    generation: Generation,
    copy: WorkingCopy,
    *,
    progress: Progress | None = None,
    threads: int | None = None,
    stop: threading.Event | None = None,
) -> tuple[Problem, ...]:
    """Put back a generation, while nobody works: only what differs is copied, and what is there moved aside.

    The next save makes a new generation of it, so that those in between can still be restored. One that was
    cut off is gone on with by the same call, or undone by restoring the latest generation. Raises what
    `restore` raises, and SyncError while people work and the project is still arriving.
    """
    copy.check(repository.storage.url)
    if is_in_use(copy):
        raise SyncError("The project is still arriving. Wait until all of it is here, then go back.")
    return restore(repository, generation, copy, progress=progress, threads=threads, stop=stop)


def free_space(path: Path) -> int:
    """Bytes that are free for us on the disk of a folder, which may have to be made yet."""
    while not path.exists():
        path = path.parent
    found = os.statvfs(path)
    return found.f_bavail * found.f_frsize


def _no_room(path: Path, need: int) -> NoRoom:
    free = free_space(path)
    return NoRoom(
        f"There is not enough room in {path}: {need / 1e9:.2f} GB are still to come, {free / 1e9:.2f} GB are "
        "free. Nothing is lost. Free some space and try again; what has arrived is not copied again."
    )


class _Restore:
    """One run of `restore`."""

    def __init__(
        self,
        repository: Repository,
        generation: Generation,
        copy: WorkingCopy,
        progress: Progress,
        threads: int | None,
        stop: threading.Event | None,
    ) -> None:
        self._repository = repository
        self._generation = generation
        self._copy = copy
        self._progress = progress
        self._threads = threads or repository.storage.capabilities.parallel
        self._stop = stop

    @property
    def left(self) -> int:
        """Bytes that have not arrived yet."""
        return max(self._progress.bytes_total - self._progress.bytes_done, 0)

    def run(self, on_ready: Callable[[], None] | None) -> tuple[Problem, ...]:
        copy, url = self._copy, self._repository.storage.url
        manifest = self._repository.manifest(self._generation.number)
        copy.state.mkdir(parents=True, exist_ok=True)
        copy.path.mkdir(parents=True, exist_ok=True)
        known = self._known(url)
        in_use = bool(known.identities) and is_in_use(copy)
        if not in_use:
            end_use(copy)
        found = look(copy, known, manifest, in_use, self._stop)
        self._count(manifest, found)
        if (need := sum(e.size for e in found.missing if not e.sparse)) and need + MARGIN > free_space(
            copy.path
        ):
            raise _no_room(copy.path, need)
        latest, base = self._base(manifest)
        copy.begin(url, latest.number, base)
        self._work(manifest, base, found, in_use, on_ready)
        if self._placing.damaged:
            some = " ".join(str(e) for e in self._placing.damaged[:3])
            raise SyncError(f"{len(self._placing.damaged)} files are not here; all others are. {some}")
        copy.complete()
        end_use(copy)
        return (*found.problems, *self._placing.problems)

    def _base(self, manifest: Manifest) -> tuple[Generation, Manifest]:
        """What the next save is made from: the latest generation, also where an earlier one is restored."""
        latest = self._repository.latest()
        if latest is None or latest.number == self._generation.number:
            return self._generation, manifest
        return latest, self._repository.manifest(latest.number)

    def _known(self, url: str) -> Index:
        """What is known of the files that are here; nothing if it is not certain that it is about them."""
        try:
            self._copy.check(url)
            return self._copy.index
        except SyncError:
            return Index()

    def _count(self, manifest: Manifest, found: Present) -> None:
        """Tell the progress what there is and what is here."""
        here = [e for e in (*found.whole, *found.taken) if e.kind is EntryKind.FILE]
        self._progress.expect(manifest.files, manifest.size)
        self._progress.add(len(here), sum(e.size for e in here))

    def _work(
        self,
        manifest: Manifest,
        base: Manifest,
        found: Present,
        in_use: bool,
        on_ready: Callable[[], None] | None,
    ) -> None:
        copy = self._copy
        unread = frozenset(e.path for e in found.maybe)
        todo = [*found.missing, *found.maybe]
        files = [e for e in todo if e.kind is EntryKind.FILE]
        links: dict[bytes, list[Entry]] = defaultdict(list)
        for entry in todo:
            if entry.kind is EntryKind.HARD_LINK:
                links[entry.target].append(entry)
        placing = self._placing = Placing(
            copy, self._repository.storage, base, dict(links), self._progress, self._stop
        )
        for entry in found.taken:
            if not copy.index.identities.get(entry.path):
                copy.unsure(entry)
        for path in base.keys() - manifest.keys():  # not restored on purpose
            copy.unsure(base[path])
        late = sorted((e for e in files if not _is_soon(e)), key=lambda e: e.size)
        if not in_use:
            changed = {parent_of(e.path) for e in found.missing} | set(map(parent_of, found.strange))
            for entry in found.whole:
                if entry.kind is EntryKind.FOLDER and entry.path in changed:
                    placing.open_up(entry.path)
            for path in found.strange:
                placing.aside.take(path)
        self._first(todo, unread, placing)
        for entry in found.whole:
            if entry.path in links:
                placing.hard_links(entry)
        waiting = {parent_of(e.path) for e in late}
        folders = [e for e in manifest.values() if e.kind is EntryKind.FOLDER]
        folders.sort(key=lambda e: e.path, reverse=True)
        if not in_use:
            for entry in folders:
                placing.finish_folder(entry, whole=entry.path not in waiting)
            if on_ready is not None:
                self._be_ready(on_ready)
        elif on_ready is not None:
            on_ready()
        self._at_once(
            max(2, self._threads // 4),
            (_call(placing.file_later, e, e.path in unread, in_use or on_ready is not None) for e in late),
        )
        for entry in folders:
            if entry.path in waiting:
                placing.finish_folder(entry)

    def _first(self, todo: list[Entry], unread: frozenset[bytes], placing: Placing) -> None:
        """Folders, links, and what has to be there before people begin."""
        for entry in sorted(e for e in todo if e.kind is EntryKind.FOLDER):
            placing.make_folder(entry)
        for entry in todo:
            if entry.kind in (EntryKind.LINK, EntryKind.SOURCE_LINK):
                placing.check()
                placing.link(entry, entry.path in unread)
        by_folder: dict[bytes, list[Entry]] = defaultdict(list)
        for entry in todo:
            if entry.kind is EntryKind.FILE and _is_soon(entry):
                by_folder[parent_of(entry.path)].append(entry)
        self._at_once(
            self._threads,
            (
                _call(placing.files, folder, some[n : n + BATCH], unread)
                for folder, some in by_folder.items()
                for n in range(0, len(some), BATCH)
            ),
        )

    def _be_ready(self, on_ready: Callable[[], None]) -> None:
        """From here on people work: what has arrived is durable, and known even after a power cut."""
        linux.sync_file_system(self._copy.root, str(self._copy.path))
        self._copy.keep(self._copy.index)
        begin_use(self._copy)
        on_ready()

    def _at_once(self, threads: int, calls: Iterable[Callable[[], None]]) -> None:
        """Do all in threads; the first error ends all."""
        with ThreadPoolExecutor(threads) as pool:
            futures = [pool.submit(call) for call in calls]
            try:
                for future in as_completed(futures):
                    future.result()
            except BaseException:
                self._placing.halt.set()
                pool.shutdown(cancel_futures=True)
                raise


def _is_soon(entry: Entry) -> bool:
    return entry.size <= SOON or entry.path.endswith(DATABASES)


def _call(function: Callable[..., None], *args: object) -> Callable[[], None]:
    return lambda: function(*args)
