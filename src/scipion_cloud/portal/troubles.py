"""A full disk and a database that does not answer: what people are told, on whatever road they meet it."""

import errno

from django.db import DatabaseError

DISK_FULL = (errno.ENOSPC, errno.EDQUOT)
_FULL = "The server's disk is full: nothing was changed. Ask your operator for space, then try again."
_BUSY = "The database is busy with something long. Nothing was changed; try again in a minute."
_AWAY = "The database does not answer. Nothing was changed; try again in a minute, or tell your operator."


def trouble_of(error: BaseException) -> tuple[int, str] | None:
    """Status and words for an error that only the machine is to blame for; None for any other."""
    if isinstance(error, OSError) and error.errno in DISK_FULL:
        return 507, _FULL
    # also what Django calls InterfaceError and InternalError comes from a server that went away or a bad file
    if isinstance(error, DatabaseError) and type(error).__name__ in ("OperationalError", "DatabaseError"):
        text = str(error)
        if "is full" in text or "No space left" in text:
            return 507, _FULL
        return 503, _BUSY if "locked" in text else _AWAY
    return None
