"""Whether people work in a working copy while the rest of the project arrives in it."""

from pathlib import Path

from scipion_cloud.sync.copy import WorkingCopy
from scipion_cloud.sync.files import write_whole


def is_in_use(copy: WorkingCopy) -> bool:
    """True from the moment in which people could begin until all has arrived, also after a crash between."""
    marker = copy.marker
    return marker is not None and marker.restoring and _flag(copy).exists()


def begin_use(copy: WorkingCopy) -> None:
    """People may work from now on; that is remembered after a power cut."""
    write_whole(_flag(copy), b"")


def end_use(copy: WorkingCopy) -> None:
    """All is here, or nothing that lies here is work: it need not be spared any more."""
    _flag(copy).unlink(missing_ok=True)


def _flag(copy: WorkingCopy) -> Path:
    return copy.state / "ready"
