"""The chain of generations: which are there, which one is the project, and how the next one is added."""

import threading
from dataclasses import replace

from scipion_cloud.errors import (
    LeaseLost,
    NotFound,
    StorageExists,
    StorageMissing,
    StorageTransient,
    SyncError,
)
from scipion_cloud.storage import Storage
from scipion_cloud.sync.codec import decode, decode_header, encode
from scipion_cloud.sync.generation import Generation
from scipion_cloud.sync.layout import GENERATIONS, generation_key
from scipion_cloud.sync.manifest import Manifest

HEADER = 4096  # bytes that hold any header
TRIES = 4


class Ledger:
    """The generations in a storage. A generation is never changed; the highest number is the project."""

    def __init__(self, storage: Storage) -> None:
        self.storage = storage
        self._known: dict[int, Generation] = {}
        self._lock = threading.Lock()

    def numbers(self) -> list[int]:
        """The numbers that are taken, highest first; voids and orphans too."""
        names = (stat.key.rpartition("/")[2] for stat in self.storage.children(GENERATIONS))
        return sorted((int(name) for name in names if len(name) == 10 and name.isdecimal()), reverse=True)

    def generations(self) -> list[Generation]:
        """The project's generations, newest first."""
        return self.chain()[0]

    def chain(self) -> tuple[list[Generation], list[Generation]]:
        """The project's generations and what is none, newest first.

        None are voids and orphans: those were made by a writer that had lost its lease, and passed over by
        its successor, whose generation names an earlier one as its parent.
        """
        there: list[Generation] = []
        none: list[Generation] = []
        highest: int | None = None
        for number in self.numbers():
            try:
                found = self.header(number)
            except StorageMissing:  # expired since it was listed
                continue
            if found.void or (highest is not None and number > highest):
                none.append(found)
                continue
            there.append(found)
            highest = found.parent or 0
        return there, none

    def latest(self) -> Generation | None:
        """The project; None if nothing was ever saved."""
        for number in self.numbers():
            found = self.header(number)
            if not found.void:
                return found
        return None

    def header(self, number: int) -> Generation:
        """What stands under a number. Raises StorageMissing, SyncError if it is damaged."""
        with self._lock:
            known = self._known.get(number)
        if known is not None:
            return known
        found = Generation.of(decode_header(b"".join(self.storage.read(generation_key(number), 0, HEADER))))
        if found.number != number:
            raise SyncError(f"Generation {number} says that it is {found.number}; it was not made by us.")
        with self._lock:
            self._known[number] = found
        return found

    def manifest(self, number: int) -> Manifest:
        """The files of a generation. Raises NotFound."""
        try:
            header, manifest = decode(self.storage.read_bytes(generation_key(number)))
        except StorageMissing:
            raise missing(number) from None
        if header.get("number") != number or header.get("void"):
            raise missing(number)
        return manifest

    def forget(self, number: int) -> None:
        """Remove a generation, void or orphan."""
        self.storage.remove(generation_key(number))
        with self._lock:
            self._known.pop(number, None)

    def append(self, made: Generation, manifest: Manifest) -> Generation:
        """Add a generation, or a void that takes its place, under its number or a later one.

        What is returned stands in the storage: `made` itself with its final number, or what is there of the
        same save already. Raises LeaseLost if a later writer was quicker.
        """
        while True:
            there = self._create(made, encode(made.header(), manifest))
            if there is None:
                return made
            if there.save == made.save and (made.void or not there.void):
                return there
            if there.save == made.save or there.epoch > made.epoch:
                raise LeaseLost(
                    f"The project was taken over by {there.user} on {there.host}. This save was not "
                    "finished; the working copy is left as it is."
                )
            made = replace(made, number=made.number + 1)

    def _create(self, made: Generation, data: bytes) -> Generation | None:
        """Create it; what stands there instead. An answer that is lost is asked for again."""
        for last in (*[False] * (TRIES - 1), True):
            try:
                self.storage.create(generation_key(made.number), data)
                with self._lock:
                    self._known[made.number] = made
                return None
            except StorageExists:
                return self.header(made.number)
            except StorageTransient:
                if last:
                    raise
        raise AssertionError("unreachable")


def missing(number: int) -> NotFound:
    """The error for a generation that is not there."""
    return NotFound(
        f"There is no generation {number} (any more); `scipion-cloud data generations` lists those there are."
    )
