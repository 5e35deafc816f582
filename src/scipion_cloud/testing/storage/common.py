"""What the parts of the contract share."""

import random
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from scipion_cloud.storage import Stat, Storage

OURS = ".scipion-cloud"
TEMPORARY = f"{OURS}/tmp"  # noqa: S108 - the one place where what was cut off may be left

T = TypeVar("T")


def noise(size: int, seed: int = 0) -> bytes:
    """Bytes that no server compresses or takes for others."""
    return random.Random(seed).randbytes(size)  # noqa: S311 - not a secret


def keys(storage: Storage, folder: str = "") -> set[str]:
    """The files and links below a folder; what is temporary does not count. Each is told once."""
    found = [stat.key for stat in storage.walk(folder)]
    assert len(found) == len(set(found)), "told twice"
    return {key for key in found if not key.startswith(f"{TEMPORARY}/")}


def children(storage: Storage, folder: str = "") -> dict[str, Stat]:
    """What stands in a folder, by key; our own folder does not count. Each is told once."""
    found = list(storage.children(folder))
    assert len(found) == len({stat.key for stat in found}), "told twice"
    return {stat.key: stat for stat in found if stat.key != OURS}


def at_once(tasks: Iterable[Callable[[], T]], threads: int = 16) -> list[T]:
    """Do all in threads; what they return, in order."""
    with ThreadPoolExecutor(threads) as pool:
        return [future.result() for future in [pool.submit(task) for task in tasks]]
