"""What can go wrong while a project is moved: whether to try again, and what to tell people."""

import errno
import logging
from pathlib import Path

from scipion_cloud.errors import (
    NoRoom,
    ScipionCloudError,
    StorageDenied,
    StorageFull,
    StorageTransient,
)

log = logging.getLogger(__name__)

_FULL = (errno.ENOSPC, errno.EDQUOT)


def is_passing(error: BaseException) -> bool:
    """Whether the same may succeed later, without anything but time or room."""
    return isinstance(error, (StorageTransient, StorageFull, NoRoom)) or (
        isinstance(error, OSError)
        and error.errno in (*_FULL, errno.EIO, errno.EMFILE, errno.ENFILE, errno.ENOMEM)
    )


def advice(error: BaseException, folder: Path) -> str:
    """What happened and what to do, for the status. `folder` is where this side of the copy is."""
    if isinstance(error, OSError):
        if error.errno in _FULL:
            return f"The disk of {folder} is full. Free some room on it; the agent tries on."
        return f"The disk of {folder} does not do its work: {error.strerror or error}. The agent tries on."
    if isinstance(error, StorageDenied):
        return (
            f"{error} If the credentials have expired, give the agent new ones and start it again with the "
            "same --state: nothing is lost."
        )
    if isinstance(error, ScipionCloudError):
        return str(error)
    log.error("unexpected", exc_info=error)
    return f"Something unexpected happened, which is a fault of this program: {type(error).__name__}: {error}"
