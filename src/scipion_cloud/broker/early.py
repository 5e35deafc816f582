"""Movies of an alignment that is away come home while it runs, so that people see them one by one.

A movie that is finished never changes again. Its files arrive where all results do; from there they are
linked into the run's folder, so that nothing comes twice and the end finds them where it expects them.
Databases, and what tells how the run is, never come early.
"""

import contextlib
import os
import threading
from pathlib import Path

from scipion_cloud.broker.parcel import Parcel
from scipion_cloud.broker.way import Way
from scipion_cloud.errors import TransferError
from scipion_cloud.tools.movies.results import LAST_MOVED, PROTOCOL, output_names

AT_A_TIME = 20  # movies, so that logs and the site's answers need not wait long for them


def bring_movies(way: Way, parcel: Parcel, place: str, arrivals: Path, stop: threading.Event) -> None:
    """Bring the next finished movies into the run's folder; those that are there stay as they are.

    `place` is the root's below the area. May be repeated. Raises TransferError, or Stopped.
    """
    if parcel.protocol_class != PROTOCOL:
        return
    there, extra = f"{place}/{parcel.run}/extra", parcel.root / parcel.run / "extra"
    arrived, transfer = arrivals / "extra", way.transfer(stop)
    try:
        arrived.mkdir(parents=True, exist_ok=True)
        extra.mkdir(exist_ok=True)
        transfer.fetch_like(there, f"*{LAST_MOVED}", arrived)
        fresh = _finished(arrived) - _finished(extra)
        movies = [output_names(name.removesuffix(LAST_MOVED)) for name in sorted(fresh)[:AT_A_TIME]]
        if movies:
            transfer.fetch_files(there, [name for names in movies for name in names], arrived)
        for name in (name for names in movies for name in names):
            with contextlib.suppress(FileExistsError, FileNotFoundError):
                (extra / name).hardlink_to(arrived / name)
    except OSError as e:
        raise TransferError(f"Finished movies cannot be put into {extra}: {e.strerror}.") from e


def _finished(folder: Path) -> set[str]:
    """The names of the files that tell that a movie is finished."""
    return {name for name in os.listdir(folder) if name.endswith(LAST_MOVED)}  # noqa: PTH208 - names are text
