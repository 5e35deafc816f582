"""A working copy: the folder in which Scipion works, and what we know about it.

DIR/.scipion-cloud/copy.json   says which project this folder is; an empty or another volume has it not
state/copy.json                the same, the generation, and whether it is still being filled
state/index                    what every local file was when it was last saved or restored
state/index.next               the same for a save that is about to be committed, or just has been
state/arrived, state/sent      journals of a restore and of a save that are not finished
state/tmp/                     temporary files, on the file system of the working copy
"""

import contextlib
import json
import os
import secrets
import shutil
import threading
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import BinaryIO

from scipion_cloud.errors import SyncError
from scipion_cloud.storage import linux
from scipion_cloud.sync import paths
from scipion_cloud.sync.entry import Entry
from scipion_cloud.sync.files import write_whole
from scipion_cloud.sync.index import UNSURE, Index, identity_of
from scipion_cloud.sync.journal import Journal
from scipion_cloud.sync.layout import SERVICE
from scipion_cloud.sync.manifest import Manifest


@dataclass(frozen=True)
class Marker:
    """Which project a working copy is, and of when."""

    url: str  # of the storage
    token: str  # the folder and our state have the same one if they belong together
    generation: int | None = None  # that was restored or saved last; None: there has been none yet
    restoring: bool = False  # not all of it has arrived yet
    save: str = ""  # the id of the save that made the generation, if it was made here


class WorkingCopy:
    """A folder to work in, `path`, with our own `state` beside it and perhaps a read-only `source`.

    One process uses it at a time; its methods are safe to use from many threads.
    """

    def __init__(self, path: Path, state: Path, source: Path | None = None) -> None:
        self.path = path
        self.state = state
        self.source = source
        self.sent = Journal(state / "sent")
        self._arrived = Journal(state / "arrived")
        self._lock = threading.RLock()
        self._index: Index | None = None
        self._root: int | None = None

    # what is here

    @property
    def marker(self) -> Marker | None:
        """What is here; None if that is not known."""
        try:
            return Marker(**json.loads((self.state / "copy.json").read_bytes()))
        except (FileNotFoundError, ValueError, TypeError):
            return None

    @property
    def index(self) -> Index:
        """What was saved or restored last. Raises SyncError if it is damaged."""
        with self._lock:
            if self._index is None:
                self._index = self._read_index()
            return self._index

    def check(self, url: str) -> Marker:
        """Say that this folder is the working copy of the project at `url`. Raises SyncError if it is not."""
        marker = self.marker
        if marker is None:
            raise SyncError(
                f"Nothing is known about {self.path} (there is no {self.state / 'copy.json'}): nothing was "
                "saved. Restore the project into it first."
            )
        if marker.url != url:
            raise SyncError(
                f"{self.path} is the working copy of {marker.url}, not of {url}: nothing was saved."
            )
        try:
            mark = json.loads((self.path / SERVICE / "copy.json").read_bytes())
        except (OSError, ValueError):
            mark = {}
        if not isinstance(mark, dict) or mark.get("token") != marker.token:
            raise SyncError(
                f"{self.path} is not the folder that the project was restored into: it was emptied or "
                f"replaced, or its disk is not mounted ({SERVICE}/copy.json is missing or another one). "
                "Nothing was saved."
            )
        self._reopen()
        return marker

    def is_same(self, url: str, generation: int | None) -> bool:
        """Whether this is provably the working copy of a generation, left whole by the last restore or save.

        What was changed in it since is told by the index, file by file.
        """
        try:
            marker = self.check(url)
            return (
                not marker.restoring
                and marker.generation == generation
                and (self.index.url, self.index.generation) == (url, generation)
            )
        except SyncError:
            return False

    # restoring

    def begin(self, url: str, generation: int | None, manifest: Manifest) -> None:
        """Say that `generation` is about to be put here, before its first byte is; or go on with that.

        `has` then tells what is here already. Whatever else stands at a path of the manifest has to be moved
        aside before people work here, else a save would take it for their work.
        """
        self.state.mkdir(parents=True, exist_ok=True)
        self.path.mkdir(parents=True, exist_ok=True)
        self.clean()
        with self._lock:
            old = self.marker
            try:
                known = self.index if old and old.url == url and self._is_ours(old) else Index()
            except SyncError:
                known = Index()
            token = old.token if old and self._is_ours(old) else secrets.token_hex(16)
            self._index = known.rebased(url, generation, manifest)
            self._index.write(self.state / "index")
            self._arrived.remove()
            self._mark(Marker(url, token, generation, restoring=True))
            self._arrived.start(_journal(self._index))

    def arrived(self, identities: Mapping[bytes, bytes]) -> None:
        """Say which entries of the generation are here, whole, and the identities of their files.

        UNSURE: something else may be at that path, which the next save has to look at.
        """
        with self._lock:
            self.index.identities.update(identities)
            self._arrived.add_all(identities.items())

    def unsure(self, entry: Entry) -> None:
        """Say that something else may be at the path of an entry."""
        self.arrived({entry.path: UNSURE})

    def has(self, entry: Entry) -> bool:
        """Whether what stands at the path of an entry is known to be it, without reading it."""
        index = self.index
        identity = index.identities.get(entry.path)
        if not identity or index.manifest.get(entry.path) != entry:
            return False
        try:
            return identity_of(self.lstat(entry.path)) == identity
        except OSError:
            return False

    def complete(self) -> None:
        """Say that all of the generation has arrived; on return that is true after a power cut as well."""
        with self._lock:
            marker = self.marker
            if marker is None:
                raise SyncError(f"{self.path} is not being restored.")
            linux.sync_file_system(self.root, str(self.path))
            self.keep(self.index)
            self._mark(replace(marker, restoring=False))

    # saving

    def keep(self, index: Index) -> None:
        """Put another index in the place of the present one, durable."""
        with self._lock:
            index.write(self.state / "index")
            self._adopt(index)

    @property
    def has_prepared(self) -> bool:
        """Whether there was a save of which it is not known here how it ended."""
        return (self.state / "index.next").exists()

    def unprepare(self) -> None:
        """Forget the index of a save that was not committed."""
        (self.state / "index.next").unlink(missing_ok=True)

    def prepare(self, index: Index) -> None:
        """Write down the index of a save, `index.save`, that is about to be committed, durable."""
        index.write(self.state / "index.next")

    def committed(self, index: Index, generation: int) -> None:
        """Say that the save of the prepared index has become a generation."""
        with self._lock:
            index.generation = generation
            marker = self.marker
            if marker is not None:
                self._mark(replace(marker, generation=generation, save=index.save))
            (self.state / "index.next").replace(self.state / "index")
            self._adopt(index)

    def catch_up(self, generation: int, save: str) -> bool:
        """Whether the latest generation is a save of this copy that was killed before it saw its success.

        If so, the index is from now on the one that was prepared for it.
        """
        with self._lock:
            try:
                index = Index.read(self.state / "index.next")
            except (FileNotFoundError, SyncError):
                return False
            if not save or index.save != save or index.url != self.index.url:
                return False
            self.committed(index, generation)
            return True

    def _adopt(self, index: Index) -> None:
        old, self._index = self._index, index
        self._arrived.remove()  # the index has its rows by now
        marker = self.marker
        if marker is not None and marker.restoring:
            self._arrived.start(_journal(index))
            if old is not None and old is not index:
                self._arrived_meanwhile(old, index)

    def _arrived_meanwhile(self, old: Index, index: Index) -> None:
        """Files that have arrived since the index of a save was made."""
        for path, identity in old.identities.items():
            if path not in index.identities and index.manifest.get(path) == old.manifest.get(path):
                index.identities[path] = identity
                self._arrived.add(path, identity)

    # files

    @property
    def root(self) -> int:
        """A descriptor of the folder itself. Raises OSError."""
        with self._lock:
            if self._root is None:
                self._root = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            return self._root

    def _reopen(self) -> None:
        """Let go of the folder if another one has its path now."""
        with self._lock:
            if self._root is not None and not os.path.samestat(os.fstat(self._root), self.path.stat()):
                os.close(self._root)
                self._root = None

    def parent(self, path: bytes) -> contextlib.AbstractContextManager[tuple[int, bytes]]:
        """The open folder that holds `path`, and its name in it, never through a symlink. Raises OSError."""
        return paths.parent(self.root, path)

    def lstat(self, path: bytes) -> os.stat_result:
        """What stands at a path. Raises OSError."""
        with self.parent(path) as (folder, name):
            return os.stat(name, dir_fd=folder, follow_symlinks=False)

    @property
    def tmp(self) -> Path:
        """A folder for temporary files on the same file system; `clean` empties it."""
        path = self.state / "tmp"
        path.mkdir(parents=True, exist_ok=True)
        return path

    @contextlib.contextmanager
    def temporary(self) -> Iterator[tuple[Path, BinaryIO]]:
        """A new empty file in `tmp`, open for reading and writing; gone at the end unless it was renamed."""
        path = self.tmp / secrets.token_hex(12)
        try:
            with path.open("xb+") as file:
                yield path, file
        finally:
            path.unlink(missing_ok=True)

    def clean(self) -> None:
        """Remove temporary files that a crash has left."""
        shutil.rmtree(self.state / "tmp", ignore_errors=True)

    def close(self) -> None:
        """Let go of open files."""
        with self._lock:
            self.sent.close()
            self._arrived.close()
            if self._root is not None:
                os.close(self._root)
                self._root = None

    def _read_index(self) -> Index:
        marker = self.marker
        try:
            index = Index.read(self.state / "index")
        except FileNotFoundError:
            return Index(marker.url if marker else "")
        if index.generation is None and marker and index.save and index.save == marker.save:
            index.generation = marker.generation
        for path, identity in self._arrived.read(_journal(index)):
            if path in index.manifest:
                index.identities[path] = identity
        if marker and marker.restoring:
            self._arrived.start(_journal(index))
        return index

    def _is_ours(self, marker: Marker) -> bool:
        try:
            self.check(marker.url)
        except SyncError:
            return False
        return True

    def _mark(self, marker: Marker) -> None:
        folder = self.path / SERVICE
        folder.mkdir(mode=0o700, exist_ok=True)
        write_whole(folder / "copy.json", json.dumps({"url": marker.url, "token": marker.token}).encode())
        write_whole(self.state / "copy.json", json.dumps(asdict(marker)).encode())


def _journal(index: Index) -> dict[str, str]:
    """What the journal of arrivals belongs to."""
    return {"url": index.url, "index": index.save or str(index.generation)}
