"""One writer for each upload, across threads and processes; the kernel frees what a dead process held."""

import fcntl
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager

from scipion_cloud.errors import ScipionCloudError
from scipion_cloud.portal.uploads.folder import DataFolder


class Busy(ScipionCloudError):
    """Somebody is sending this very file at this moment."""


def acquire(folder: DataFolder, upload: uuid.UUID) -> int:
    """The descriptor of the upload's part file, held alone until it is closed. Raises Busy."""
    fd = folder.open_part(upload)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.fstat(fd).st_nlink == 0:
            raise Busy("This upload was ended or forgotten a moment ago; announce the file again.")
    except BlockingIOError as e:
        os.close(fd)
        raise Busy("This file is being sent from another window or program; wait for its end.") from e
    except BaseException:
        os.close(fd)
        raise
    return fd


@contextmanager
def locked(folder: DataFolder, upload: uuid.UUID) -> Iterator[int]:
    """As `acquire`, for the length of a `with` block."""
    fd = acquire(folder, upload)
    try:
        yield fd
    finally:
        os.close(fd)
