"""`scipion-cloud data bench`: what a storage can do, and how fast it is from here."""

import contextlib
import os
import time
import uuid
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

import click

from scipion_cloud.cli.storages import as_json_option, with_storage
from scipion_cloud.errors import StorageError

if TYPE_CHECKING:
    from scipion_cloud.storage import Storage

_SMALL = 4096  # bytes
_THREADS = 16
_ROUND_TRIPS = 5


@dataclass(frozen=True)
class Speeds:
    """What was measured: many files at once, but for the round trip."""

    round_trip_s: float  # the median
    up_bytes_s: float
    down_bytes_s: float
    up_files_s: float
    down_files_s: float

    def seconds_in(self, files: int, size: int) -> float:
        """How long a project of that many files and bytes takes to come here."""
        return files / self.down_files_s + size / self.down_bytes_s


@click.command()
@with_storage
@click.option(
    "--size", "megabytes", type=click.IntRange(1, 10_000), default=64, show_default=True, help="MB."
)
@click.option("--files", type=click.IntRange(1, 10_000), default=200, show_default=True, help="Small ones.")
@as_json_option
def bench(storage: "Storage", megabytes: int, files: int, as_json: bool) -> None:
    """Try what the storage can do, and how fast it is.

    The files that this takes are removed again.
    """
    from dataclasses import asdict

    from scipion_cloud.cli.output import show_facts, show_json, show_table, size
    from scipion_cloud.cli.progress import seconds
    from scipion_cloud.storage.selftest import selftest
    from scipion_cloud.sync.repository import Repository

    findings = selftest(storage)
    if not all(f.works for f in findings if f.name in ("write", "read", "list", "delete")):
        failed = next(f for f in findings if not f.works)
        raise StorageError(failed.note)
    speeds = measure(storage, megabytes * 1_000_000, files)
    latest = Repository(storage).latest()
    expected = speeds.seconds_in(latest.files, latest.bytes) if latest else None
    if as_json:
        show_json(
            {"findings": [asdict(f) for f in findings], "speeds": asdict(speeds), "stage_in_s": expected}
        )
        return
    rows = [(f.name.replace("_", " "), "yes" if f.works else "no", f.note) for f in findings]
    show_table(("it can", "", ""), rows, "")
    click.echo()
    show_facts(
        {
            "Round trip": f"{speeds.round_trip_s * 1000:.1f} ms",
            "Large files up": f"{size(speeds.up_bytes_s)}/s",
            "Large files down": f"{size(speeds.down_bytes_s)}/s",
            "Small files up": f"{speeds.up_files_s:.0f} a second",
            "Small files down": f"{speeds.down_files_s:.0f} a second",
            "This project": f"{latest.files} files, {size(latest.bytes)}" if latest else None,
            "Is here in about": seconds(expected) if expected is not None else None,
        }
    )


def measure(storage: "Storage", size: int, files: int) -> Speeds:
    """Write and read `size` bytes in four files, and `files` small ones. Raises StorageError."""
    from scipion_cloud.sync.layout import SERVICE

    place = f"{SERVICE}/bench-{uuid.uuid4().hex}"
    large = {f"{place}/large-{n}": os.urandom(max(size // 4, 1)) for n in range(4)}
    small = {f"{place}/small/{n}": os.urandom(_SMALL) for n in range(files)}

    def put(key: str) -> None:
        storage.write(key, large.get(key) or small[key], new=True)

    def get(key: str) -> None:
        fd = os.memfd_create("bench")
        try:
            storage.download(key, fd)
        finally:
            os.close(fd)

    try:
        up_large = _timed(put, large) + _time(storage.flush)
        up_small = _timed(put, small) + _time(storage.flush)
        down_large, down_small = _timed(get, large), _timed(get, small)
        first = next(iter(large))
        times = sorted(_time(lambda: storage.stat(first)) for _ in range(_ROUND_TRIPS))
    finally:
        with contextlib.suppress(StorageError), ThreadPoolExecutor(_THREADS) as pool:
            list(pool.map(storage.remove, [*large, *small]))
            storage.remove_folder(f"{place}/small")
            storage.remove_folder(place)
    total = sum(map(len, large.values()))
    return Speeds(
        times[len(times) // 2], total / up_large, total / down_large, files / up_small, files / down_small
    )


def _timed(work: Callable[[str], None], keys: Iterable[str]) -> float:
    """Seconds to do something with all keys, many at a time."""

    def all_of_them() -> None:
        with ThreadPoolExecutor(_THREADS) as pool:
            list(pool.map(work, keys))

    return _time(all_of_them)


def _time(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return max(time.perf_counter() - began, 1e-9)
