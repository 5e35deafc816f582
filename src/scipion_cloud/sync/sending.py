"""The part of a save that brings what has changed into the storage."""

import contextlib
import errno
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial

from scipion_cloud.errors import InvalidInput, StorageError
from scipion_cloud.sync.capture import SMALL, Captured, Unstable, capture
from scipion_cloud.sync.changes import Changes, Local
from scipion_cloud.sync.codec import entry_of
from scipion_cloud.sync.copy import WorkingCopy
from scipion_cloud.sync.crew import Task, run_all
from scipion_cloud.sync.databases import Busy
from scipion_cloud.sync.entry import Entry, EntryKind
from scipion_cloud.sync.fence import Fence
from scipion_cloud.sync.index import UNSURE, WIDTH, Index, identity_of, is_settled, same_inode
from scipion_cloud.sync.manifest import same_content
from scipion_cloud.sync.progress import Problem, Progress
from scipion_cloud.sync.saving import Saving

LARGE = 16 * SMALL  # bytes
TINY = 64 * 1024  # bytes; many such files are put in one call
CHECKPOINT = 30.0  # seconds; what was sent longer ago is not sent again after a kill
PENDING = 50_000  # files; no more notes wait for that in memory
TRIES = 3
_OURS = (errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.ENFILE, errno.ENOMEM)  # what this machine lacks

Begin = Callable[[set[bytes], str | None], Saving]  # the paths to be touched, the id of a save to go on with
_TAKEN = Local(b"", 0, b"")


class Sending:
    """Takes the changed files of a working copy and puts them; begins a save when there is a need for one.

    `entries` and `identities` become those of the next generation; `sent_files` and `sent_bytes` are what
    went over the wire.
    """

    def __init__(
        self,
        copy: WorkingCopy,
        index: Index,
        changes: Changes,
        fence: Fence,
        begin: Begin,
        progress: Progress,
    ) -> None:
        self.entries = changes.entries
        self.identities = changes.identities
        self.problems = changes.problems
        self.sent_files = self.sent_bytes = 0
        self._copy = copy
        self._known = index.manifest
        self._changes = changes
        self._fence = fence
        self._begin = begin
        self._progress = progress
        self._lock = threading.RLock()
        self._saving: Saving | None = None
        self._header = {"url": index.url, "base": str(index.generation), "was": index.save}
        self._sent: dict[bytes, tuple[bytes, Entry]] = {}  # by a save that was killed
        self._pending: list[tuple[bytes, Entry]] = []  # sent, but not known to survive a power cut
        self._checked = time.monotonic()

    @property
    def saving(self) -> Saving:
        """The save, begun at the latest now."""
        with self._lock:
            if self._saving is None:
                self._saving = self._open()
            return self._saving

    def files(self, threads: int, batch: int) -> None:
        """Look at all files that may have changed; put those that have, up to `batch` small ones at once.

        Raises StorageError, LeaseLost.
        """
        files = self._changes.files.values()
        self._progress.expect(len(files), sum(f.size for f in files))
        self._recall()
        run_all(
            self._small_tasks((f for f in files if f.size < LARGE), batch),
            (partial(self._first_name, f) for f in files if f.size >= LARGE),
            threads,
        )

    def others(self, threads: int) -> None:
        """Put folders and links, and remove what is not there any more."""
        run_all(self._other_tasks(self.saving), (), threads)

    def part_hard_links(self) -> None:
        """Take the second names of files that were replaced, or went, between the scan and their taking."""
        for entry in self._linked():
            taken = self.identities.get(entry.target)
            try:
                here = identity_of(self._copy.lstat(entry.path))
            except OSError:
                here = b""
            if taken is None or not same_inode(taken, here):
                del self.entries[entry.path]
                self._file(Local(entry.path, 0, here))
                self._keep_apart(entry.path)

    def forget(self) -> None:
        """Let go of what the next generation's index has by now: there may be hundreds of thousands."""
        for told in (self.entries, self.identities, self._changes.files):
            told.clear()
        self._pending.clear()

    def abandon(self) -> None:
        """Roll back, if anything was put."""
        if self._saving is not None:
            self._saving.abandon()
            self._copy.sent.remove()

    def _keep_apart(self, path: bytes) -> None:
        """A second name that stays as it was saved: with the old bytes, though the first name has others."""
        entry = self.entries.get(path)
        if entry is None or entry.kind is not EntryKind.HARD_LINK:
            return
        old, now = self._known.get(entry.target), self.entries.get(entry.target)
        if old is not None and now is not None and now.kind is EntryKind.FILE and not same_content(old, now):
            self.entries[path] = old._replace(path=path)

    def _linked(self) -> list[Entry]:
        """Second names of files that are taken."""
        taken = self._changes.files
        return [e for e in self.entries.values() if e.kind is EntryKind.HARD_LINK and e.target in taken]

    def _other_tasks(self, saving: Saving) -> Iterator[Task]:
        for path in sorted(self.entries):
            entry = self.entries[path]
            if entry.kind is not EntryKind.FILE and self._known.get(path) != entry:
                yield partial(saving.put, entry)
        for path in self._known:
            if path not in self.entries:
                yield partial(saving.remove, self._known[path])

    def _open(self) -> Saving:
        """Begin the save; a journal then tells a later process what has been sent."""
        touched = {p for p, e in self.entries.items() if self._known.get(p) is not e}
        for path, local in self._changes.files.items():
            touched.update((path, *(c.path for c in local.companions)))
        touched.update(p for p in self._known if p not in self.entries)
        touched.update(e.path for e in self._linked())
        journal = self._copy.sent
        earlier = next(journal.read(self._header), [None])[0]
        saving = self._begin(touched, earlier)
        if not saving.resumed:
            self._sent.clear()
        journal.remove()
        journal.start(self._header)
        journal.add(saving.id)
        return saving

    def _recall(self) -> None:
        """Go on with a save that was killed, if there is one."""
        rows = self._copy.sent.read(self._header)
        if next(rows, None) is None:
            return
        for identity, *row in rows:
            entry = entry_of(row)
            self._sent[entry.path] = identity, entry
        if self._sent:
            _ = self.saving

    def _small_tasks(self, files: Iterable[Local], batch: int) -> Iterator[Task]:
        """Files one by one, but tiny ones that may be new together."""
        together: list[Local] = []
        for file in files:
            if batch == 1 or file.size > TINY or file.path in self._known or file.companions:
                yield partial(self._first_name, file)
                continue
            together.append(file)
            if len(together) == batch:
                yield partial(self._together, together)
                together = []
        if together:
            yield partial(self._together, together)

    def _together(self, files: list[Local]) -> None:
        """Take tiny files that the last generation has not, and put them all at once."""
        taken: list[tuple[Local, Entry, bytes, bytes]] = []
        self._fence.check()
        for local in files:
            if found := self._tiny(local):
                taken.append((local, *found))
            else:
                self._first_name(local)
        if not taken:
            return
        try:
            self.saving.put_files([(entry, content) for _, entry, content, _ in taken])
        except InvalidInput:  # one of them; it is to be told which
            for local, *_ in taken:
                self._first_name(local)
            return
        with self._lock:
            self.sent_files += len(taken)
            self.sent_bytes += sum(entry.size for _, entry, _, _ in taken)
        for local, entry, _, identity in taken:
            self._remember(entry, identity)
            self._settle(entry, identity)
            self._changes.files[local.path] = _TAKEN
        self._progress.add(len(taken), sum(local.size for local, *_ in taken))

    def _tiny(self, local: Local) -> tuple[Entry, bytes, bytes] | None:
        """A file's entry, its bytes and its identity; None if it needs more attention."""
        if local.path in self._sent:
            return None
        start = time.time_ns()
        try:
            with capture(self._copy, local.path, patience=0) as taken:
                if taken.database or not isinstance(taken.content, bytes):
                    return None
                return taken.entry, taken.content, _with_logs(taken, local, start)
        except OSError:
            return None

    def _first_name(self, local: Local) -> None:
        """Take one of the files that were found, and let go of what the scan told of it."""
        self._file(local)
        self._changes.files[local.path] = _TAKEN

    def _file(self, local: Local) -> None:
        """Take one file."""
        self._fence.check()
        try:
            taken = self._resent(local) or self._take(local)
        except FileNotFoundError:
            self._fail(local, "vanished while it was saved")
        except Busy:
            self._fail(local, "is a database that another program has locked for long")
        except Unstable:
            self._fail(local, "is being written all the time")
        except InvalidInput as e:
            self._fail(local, f"could not be saved ({e})")
        except OSError as e:
            if e.errno in _OURS:  # no fault of this file
                raise
            self._fail(local, f"could not be read ({e.strerror})")
        else:
            entry, identity, database = taken
            self._settle(entry, identity)
            if not database:
                for companion in local.companions:
                    self._file(companion)
        if local.path in self._changes.files:
            self._progress.add(1, local.size)

    def _resent(self, local: Local) -> tuple[Entry, bytes, bool] | None:
        """What a save that was killed has sent of it, if that is still what it is."""
        identity, entry = self._sent.get(local.path, (b"", None))
        if entry is None or identity != local.identity or not self.saving.holds(entry):
            return None
        self._remember(entry, identity)
        return entry, identity, True

    def _take(self, local: Local) -> tuple[Entry, bytes, bool]:
        """Put a file if its content has changed; its entry, its identity, and whether it is a database."""
        for attempt in range(TRIES):
            start = time.time_ns()
            with capture(self._copy, local.path, frozen=attempt > 0) as taken:
                identity = _with_logs(taken, local, start)
                if same_content(self._known.get(local.path), taken.entry):
                    return taken.entry, identity, taken.database
                try:
                    self.saving.put(taken.entry, taken.content)
                except StorageError:
                    if taken.still_same():
                        raise
                    continue  # it was cut meanwhile
                if taken.still_same():
                    with self._lock:
                        self.sent_files += 1
                        self.sent_bytes += taken.entry.size
                    self._remember(taken.entry, identity)
                    return taken.entry, identity, taken.database
        raise Unstable

    def _settle(self, entry: Entry, identity: bytes) -> None:
        old = self._known.get(entry.path)
        with self._lock:
            self.entries[entry.path] = old if old is not None and old == entry else entry
            self.identities[entry.path] = identity

    def _fail(self, local: Local, text: str) -> None:
        """Keep what was saved of a file last, and try again with the next save."""
        old = [e for p in (local.path, *(c.path for c in local.companions)) if (e := self._known.get(p))]
        text += "; its last saved version is kept." if old else "; it is not saved yet."
        with self._lock:
            self.problems.append(Problem(local.path, text, unsaved=True))
            self.entries.update((entry.path, entry) for entry in old)

    def _remember(self, entry: Entry, identity: bytes) -> None:
        """Note what has been sent; from time to time a later process gets to rely on what was noted."""
        with self._lock:
            self._pending.append((identity, entry))
            if len(self._pending) < PENDING and time.monotonic() - self._checked < CHECKPOINT:
                return
            self._checked = time.monotonic()
            rows, self._pending = self._pending, []
        self.saving.checkpoint()
        with contextlib.suppress(OSError):  # a full disk costs only time, should there be a kill
            self._copy.sent.add_all((identity, *entry) for identity, entry in rows)


def _with_logs(taken: Captured, local: Local, start: int) -> bytes:
    """The identity of a file, for a database with that of its log."""
    logs = [local.identity[n : n + WIDTH] for n in range(WIDTH, len(local.identity), WIDTH)]
    own = taken.identity[-WIDTH:]
    if own != taken.identity or not all(is_settled(log, start) for log in logs):
        return UNSURE + own
    return own + b"".join(logs)
