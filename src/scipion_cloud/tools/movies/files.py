"""Open a user's file without trusting it: plain files only, no waiting on a pipe, every read bounded."""

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from scipion_cloud.errors import InvalidInput


@dataclass(frozen=True)
class OpenFile:
    """An open plain file, read at given places."""

    descriptor: int
    size: int  # bytes
    name: str

    def read(self, offset: int, length: int) -> bytes:
        """Exactly `length` bytes from `offset`. Raises InvalidInput if the file ends before."""
        if offset < 0 or offset + length > self.size:
            raise truncated(self.name)
        data = os.pread(self.descriptor, length, offset)
        if len(data) < length:
            raise truncated(self.name)
        return data


def truncated(name: str) -> InvalidInput:
    """The error for a file that ends too early."""
    return InvalidInput(
        f"{name} is incomplete: it ends before the data that its header announces. "
        "The copy was probably interrupted; upload the file again."
    )


@contextmanager
def open_plain(path: Path, inside: Path | None = None) -> Iterator[OpenFile]:
    """Open `path` for reading.

    inside: a folder that the file, its links followed, must not leave. Raises InvalidInput for whatever is
    not a readable plain file with something in it.
    """
    name = path.name
    if inside is not None and not path.resolve().is_relative_to(inside.resolve()):
        raise InvalidInput(f"{name} is a link to a place outside the project. Upload the file itself.")
    try:
        # Opening a pipe would wait for a writer without O_NONBLOCK.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    except FileNotFoundError as e:
        raise InvalidInput(
            f"{name} does not exist, or is a link to something that is gone. Upload it again."
        ) from e
    except OSError as e:
        raise InvalidInput(f"{name} cannot be read: {e.strerror}. Check its permissions.") from e
    except ValueError as e:  # a null byte in the name
        raise InvalidInput(f"{name!r} is not a possible file name. Rename the file.") from e
    try:
        status = os.fstat(descriptor)
        if stat.S_ISDIR(status.st_mode):
            raise InvalidInput(f"{name} is a folder. Choose the movie files in it.")
        if not stat.S_ISREG(status.st_mode):
            raise InvalidInput(f"{name} is not a plain file. Choose a movie file.")
        if status.st_size == 0:
            raise InvalidInput(f"{name} is empty. The copy probably failed; upload the file again.")
        yield OpenFile(descriptor, status.st_size, name)
    finally:
        os.close(descriptor)


def looks_like_text(start: bytes) -> bool:
    """True if the first bytes of a file are those of a text."""
    return b"\0" not in start and all(byte >= 0x20 or byte in b"\t\n\r\f" for byte in start)
