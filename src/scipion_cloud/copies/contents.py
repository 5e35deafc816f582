"""The bytes of files, with their holes."""

import os

from scipion_cloud.copies.room import Room
from scipion_cloud.storage import linux
from scipion_cloud.sync.progress import Progress

_STEP = 64 * 1024 * 1024  # bytes between two looks at the disk's room
_CHUNK = 256 * 1024


def copy_content(source: int, target: int, size: int, room: Room, progress: Progress) -> None:
    """Copy the first `size` bytes of an open file to an empty one; what is a hole stays one.

    The file system shares the bytes where it can. A file that is shorter by now leaves zeros.
    """
    place = 0
    while place < size:
        start = _data(source, place, size)
        progress.add(size=start - place)
        end = min(os.lseek(source, start, os.SEEK_HOLE), size) if start < size else size
        while start < end:
            length = min(_STEP, end - start)
            room.take(length)
            _range(source, target, start, length)
            progress.add(size=length)
            start += length
        place = end
    os.ftruncate(target, size)


def _data(fd: int, place: int, size: int) -> int:
    """Where the next byte after a place is that is no hole."""
    try:
        return min(os.lseek(fd, place, os.SEEK_DATA), size)
    except OSError:  # ENXIO: there is only a hole; or it was cut
        return size


def _range(source: int, target: int, start: int, length: int) -> None:
    done = linux.copy_range(source, target, start, length)
    while done < length:
        chunk = os.pread(source, min(_CHUNK, length - done), start + done)
        if not chunk:
            return
        linux.put(target, chunk, start + done)
        done += len(chunk)
