"""What a save is about to change, written before its first change so that anybody can roll it back."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import msgpack
import zstandard

from scipion_cloud.errors import SyncError
from scipion_cloud.storage import Storage
from scipion_cloud.sync.layout import INTENT

LARGEST = 1 << 30  # bytes, unpacked; more is no list of paths but an attack


@dataclass(frozen=True, slots=True)
class Intent:
    """A save that has begun, and has not been seen to end."""

    save: str  # its id
    epoch: int
    deployment: str
    base: int | None  # the generation that it starts from
    number: int  # of the generation that it is to make, or a later one
    touched: frozenset[bytes]  # all paths whose content, link or folder it puts or removes

    @property
    def key(self) -> str:
        """Where it is."""
        return f"{INTENT}/{self.save}"

    def encode(self) -> bytes:
        """Its bytes."""
        packed: bytes = msgpack.packb(
            [1, self.save, self.epoch, self.deployment, self.base, self.number, sorted(self.touched)]
        )
        return zstandard.ZstdCompressor(level=1, write_checksum=True).compress(packed)


def read_intent(storage: Storage, key: str) -> Intent:
    """The intent under a key. Raises StorageMissing, and SyncError if it is damaged."""
    data = storage.read_bytes(key)
    try:
        if zstandard.frame_content_size(data) > LARGEST:
            raise ValueError("too large")
        packed = zstandard.ZstdDecompressor().decompress(data, allow_extra_data=False)
        fields: list[Any] = msgpack.unpackb(packed)
        version, save, epoch, deployment, base, number, touched = fields
        if version != 1 or f"{INTENT}/{save}" != key or not all(isinstance(p, bytes) for p in touched):
            raise ValueError("not as it is written")
        return Intent(str(save), int(epoch), str(deployment), base, int(number), frozenset(touched))
    except (ValueError, TypeError, zstandard.ZstdError, msgpack.UnpackException) as e:
        raise SyncError(
            f"The note of an unfinished save ({key}) is damaged. Nothing was changed. Run "
            "`scipion-cloud data verify --repair`: it compares all files with the last generation."
        ) from e


def intent_keys(storage: Storage) -> list[str]:
    """The keys of all saves that have not been seen to end."""
    return sorted(stat.key for stat in storage.children(INTENT))


def deepest_first(paths: Iterable[bytes]) -> list[bytes]:
    """Paths from the deepest to the highest, so that a folder comes after all that is in it."""
    return sorted(paths, key=lambda path: (path.count(b"/"), path), reverse=True)
