"""What archives hold, whatever their format."""

import lzma
import zlib
from dataclasses import dataclass
from typing import BinaryIO

import zstandard

from scipion_cloud.errors import InvalidInput
from scipion_cloud.sync.entry import EntryKind

_SUFFIXES = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz", ".tar.zst", ".tzst", ".zip")
HUGE = 1 << 62
_BROKEN = (EOFError, zlib.error, lzma.LZMAError, zstandard.ZstdError)


class BadArchive(InvalidInput):
    """The archive cannot be unpacked; the message says why."""


@dataclass(frozen=True)
class Member:
    """One thing in an archive, as the archive tells it: nothing about it has been checked."""

    path: bytes
    kind: EntryKind | None  # None: a device, a pipe or the like
    mode: int = 0o644
    mtime_ns: int = 0
    size: int = 0  # bytes
    target: bytes = b""  # of a link
    content: "Checked | None" = None  # of a file; to be read before the next member


def is_archive(name: str) -> bool:
    """Whether a file is called as an archive that can be unpacked."""
    return name.lower().endswith(_SUFFIXES)


def nanoseconds(seconds: float) -> int:
    """A time of an archive, which may claim anything."""
    return int(seconds * 1_000_000_000) if 0 <= seconds < HUGE / 1e9 else 0


class Checked:
    """A stream whose own troubles are those of the archive. With `read` only."""

    def __init__(self, stream: BinaryIO, broken: tuple[type[Exception], ...] = _BROKEN) -> None:
        self._stream = stream
        self._broken = broken  # what it raises when the archive is not whole

    def read(self, size: int = -1) -> bytes:
        """So many bytes; fewer only at the end. Raises BadArchive."""
        try:
            return self._stream.read(size)
        except BadArchive:
            raise
        except self._broken as e:
            raise damaged(e) from e
        except OSError as e:
            if e.errno is not None:  # the disk's, not the archive's
                raise
            raise damaged(e) from e


def damaged(why: object) -> BadArchive:
    """An archive that is not whole."""
    return BadArchive(f"The archive is damaged or cut off ({why}). Upload it again, or make it anew.")
