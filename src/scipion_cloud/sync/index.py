"""What a working copy was when it was last saved or restored: only what has changed is looked at."""

import os
import struct
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from scipion_cloud.errors import SyncError
from scipion_cloud.sync import codec
from scipion_cloud.sync.entry import Entry, EntryKind
from scipion_cloud.sync.files import write_whole
from scipion_cloud.sync.manifest import Manifest

MAGIC = b"SC-INDX\x01"
ABSENT = b""  # the identity of what has not arrived in the working copy yet
UNSURE = b"?"  # before the identity, if it is known, of what is there and has to be looked at again

_pack = struct.Struct("<QqQq").pack
_unpack = struct.Struct("<QqQq").unpack
WIDTH = 32  # bytes of an identity
TICK = 50_000_000  # nanoseconds within which two changes may leave the same times on a file


def identity_of(stat: os.stat_result) -> bytes:
    """What changes with any change of a file: inode, ctime, size and mtime. Nobody can set a ctime back."""
    return _pack(stat.st_ino, stat.st_ctime_ns, stat.st_size, stat.st_mtime_ns)


def is_settled(identity: bytes, start: int) -> bool:
    """Whether any change after `start`, ns since the epoch, will show in the identity of a file."""
    ctime: int = _unpack(identity)[1]
    return ctime < start - TICK


def same_inode(a: bytes, b: bytes) -> bool:
    """Whether two identities are of names of one file."""
    return bool(a and b) and _inode(a) == _inode(b)


def is_moved(identities: Iterable[bytes]) -> Callable[[bytes], bool]:
    """Tells of the identity that a file had whether one of these may be the same file under another name."""
    there = {_without_ctime(identity) for identity in identities}
    return lambda identity: _without_ctime(identity) in there


def _inode(identity: bytes) -> bytes:
    start = len(identity) % WIDTH  # after UNSURE
    return identity[start : start + 8]


def _without_ctime(identity: bytes) -> bytes:
    """A new name is a new ctime."""
    start = len(identity) % WIDTH  # after UNSURE
    return identity[start : start + 8] + identity[start + 16 : start + WIDTH]


class Index:
    """The entries of one generation, and which local files are known to hold them.

    `identities` says for a path what `identity_of` said of the local file that held its entry; ABSENT (or
    nothing) if it never was in this working copy, which is not the same as deleted.
    """

    def __init__(
        self,
        url: str = "",
        generation: int | None = None,
        manifest: Manifest | None = None,
        identities: dict[bytes, bytes] | None = None,
        save: str = "",
    ) -> None:
        self.url = url  # of the storage
        self.generation = generation  # None: there has been none yet
        self.save = save  # the id of the save that made the generation, if it was made here
        self.manifest = Manifest() if manifest is None else manifest
        self.identities = {} if identities is None else identities

    def rebased(
        self, url: str, generation: int | None, manifest: Manifest, *, saved_here: bool = False
    ) -> "Index":
        """The index for another generation: an entry that is the same keeps its local file, as far as known.

        Others are UNSURE if something was there, else ABSENT; if the generation was `saved_here`, they were.
        """
        if url != self.url:
            return Index(url, generation, manifest)
        identities = {}
        for path, entry in manifest.items():
            identity = self.identities.get(path, ABSENT)
            if not _same(self.manifest.get(path), entry):
                identity = UNSURE if identity or saved_here else ABSENT
            if identity:
                identities[path] = identity
        return Index(url, generation, manifest, identities)

    def write(self, path: Path) -> None:
        """Put it into a file, whole and durable. Raises OSError with the old one untouched."""
        get = self.identities.get
        header = {"url": self.url, "generation": self.generation, "save": self.save}
        rows = ((*entry, get(name, ABSENT)) for name, entry in self.manifest.items())
        write_whole(path, codec.pack(MAGIC, header, rows))

    @classmethod
    def read(cls, path: Path) -> "Index":
        """What `write` put there; FileNotFoundError. Raises SyncError if it is damaged."""
        header, rows = codec.unpack(MAGIC, path.read_bytes(), columns=9)
        identities: dict[bytes, bytes] = {}
        entries = []
        for row in rows:
            identity = row.pop()
            entry = codec.entry_of(row)
            entries.append(entry)
            if type(identity) is not bytes:
                raise SyncError(f"{path} is damaged.")
            if identity:
                identities[entry.path] = identity
        url: Any = header.get("url")
        generation: Any = header.get("generation")
        save: Any = header.get("save")
        return cls(url, generation, Manifest(entries), identities, save)


def _same(a: Entry | None, b: Entry) -> bool:
    """Whether two entries of a path differ at most in the mtime of a folder."""
    if a is None or a == b:
        return a is not None
    return b.kind is EntryKind.FOLDER and a._replace(mtime_ns=b.mtime_ns) == b
