"""How manifests look as bytes: a header that can be read alone, then the rows, packed and compressed.

    magic (8) | length of the header (4, big endian) | BLAKE3 of the header (32) | header | rows

The header is a msgpack list: the caller's own fields, BLAKE3 of the compressed rows, their number and their
size before compression. The rows are msgpack arrays, compressed by zstd. Whatever is damaged, cut off or made
to hurt ends as SyncError, before memory is taken for it.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import islice
from typing import Any, NoReturn

import msgpack
import zstandard
from blake3 import blake3

from scipion_cloud.errors import SyncError
from scipion_cloud.sync.entry import Entry, EntryKind
from scipion_cloud.sync.manifest import LONGEST_PATH, Manifest

MANIFEST = b"SC-TREE\x01"
HEADER_SPACE = 4096  # the header and all before it fit into so many bytes
LARGEST = 1 << 30  # bytes of rows before compression
SMALL = 64 << 20  # bytes of rows; more are taken only if they have not been squeezed beyond belief
RATIO = 256  # of compression, the most that rows of a real tree have by far
LARGEST_WINDOW = 8 << 20  # bytes that zstd may ask for
PREFIX = 8 + 4 + 32
AT_ONCE = 1000  # rows that are compressed at once

_KINDS = {str(kind): kind for kind in EntryKind}
_Row = list[Any]


def encode(header: Mapping[str, Any], manifest: Mapping[bytes, Entry]) -> bytes:
    """A manifest and what is to be known about it as bytes. Raises SyncError if they are too large for it."""
    return pack(MANIFEST, header, (manifest[path] for path in sorted(manifest)))


def decode(data: bytes) -> tuple[dict[str, Any], Manifest]:
    """What `encode` was given. Raises SyncError for anything else."""
    header, rows = unpack(MANIFEST, data)
    return header, Manifest(entry_of(row) for row in rows)


def decode_header(first_bytes: bytes) -> dict[str, Any]:
    """The header alone, from the first 4 KiB of what `encode` made. Raises SyncError."""
    header, _, _, _, _ = _header(MANIFEST, first_bytes)
    return header


def entry_of(row: _Row) -> Entry:
    """The entry that a row tells. Raises SyncError if it tells none."""
    try:
        path, kind, mode, mtime_ns, size, digest, target, sparse = row
        entry = Entry(path, _KINDS[kind], mode, mtime_ns, size, digest, target, sparse)
    except (ValueError, KeyError, TypeError):
        _damaged()
    if not (
        type(path) is type(digest) is type(target) is bytes
        and type(mode) is type(mtime_ns) is type(size) is int
        and type(sparse) is bool
        and 0 <= mode <= 0o7777
        and size >= 0
    ):
        _damaged()
    return entry


def pack(magic: bytes, header: Mapping[str, Any], rows: Iterable[tuple[Any, ...]]) -> bytes:
    """A header and rows as bytes. Raises SyncError if they are too large."""
    compressor = zstandard.ZstdCompressor(level=1).compressobj()
    digest, size, count = blake3(), 0, 0
    parts = [b""]  # the first is what comes before the rows
    packed = map(msgpack.Packer().pack, rows)
    while some := list(islice(packed, AT_ONCE)):
        batch = b"".join(some)
        size += len(batch)
        count += len(some)
        parts.append(compressor.compress(batch))
    parts.append(compressor.flush())
    for part in parts:
        digest.update(part)
    compressed = sum(map(len, parts))
    told: bytes = msgpack.packb([dict(header), digest.digest(), count, size], datetime=True)
    if not _believable(size, compressed) or PREFIX + len(told) > HEADER_SPACE:
        raise SyncError(f"The list of {count} files is too large to be saved; nothing was saved.")
    parts[0] = magic + len(told).to_bytes(4, "big") + blake3(told).digest() + told
    return b"".join(parts)


def unpack(magic: bytes, data: bytes, *, columns: int = 8) -> tuple[dict[str, Any], Iterator[_Row]]:
    """The header, and the rows one after the other. Raises SyncError, also while the rows are taken."""
    header, digest, count, size, start = _header(magic, data)
    body = memoryview(data)[start:]
    if blake3(body).digest() != digest or not _believable(size, len(body)):
        _damaged()
    return header, _rows(body, count, size, columns)


def _header(magic: bytes, data: bytes) -> tuple[dict[str, Any], bytes, int, int, int]:
    """The caller's header; the digest, number and size of the rows; where they start."""
    end = PREFIX + int.from_bytes(data[8:12], "big")
    told = data[PREFIX:end]
    if data[:8] != magic or end > min(len(data), HEADER_SPACE) or blake3(told).digest() != data[12:PREFIX]:
        _damaged()
    try:
        header, digest, count, size = msgpack.unpackb(told, timestamp=3)
    except _UNPACKING:
        _damaged()
    if not (
        isinstance(header, dict) and type(count) is type(size) is int and all(type(k) is str for k in header)
    ):
        _damaged()
    return header, digest, count, size, end


def _rows(body: memoryview, count: int, size: int, columns: int) -> Iterator[_Row]:
    unpacker = msgpack.Unpacker(
        max_buffer_size=4 * LONGEST_PATH,
        max_str_len=1,
        max_bin_len=LONGEST_PATH,
        max_array_len=columns,
        max_map_len=0,
        max_ext_len=0,
    )
    feed: Callable[[bytes], None] = unpacker.feed
    seen = told = 0
    try:
        for chunk in zstandard.ZstdDecompressor(max_window_size=LARGEST_WINDOW).read_to_iter(body):
            seen += len(chunk)
            if seen > size:
                _damaged()
            feed(chunk)
            for row in unpacker:
                told += 1
                if told > count or type(row) is not list or len(row) != columns:
                    _damaged()
                yield row
    except _UNPACKING:
        _damaged()
    if seen != size or told != count or unpacker.tell() != size:
        _damaged()


_UNPACKING = (
    zstandard.ZstdError,
    msgpack.UnpackException,
    ValueError,  # msgpack's other errors, also times that there cannot be
    OverflowError,
    TypeError,
    RecursionError,
)


def _believable(size: int, compressed: int) -> bool:
    return 0 <= size <= min(LARGEST, max(SMALL, RATIO * compressed))


def _damaged() -> NoReturn:
    raise SyncError(
        "A list of files is damaged or was not made by Scipion Cloud; nothing was changed. "
        "Verify the storage, and restore from the generation before if need be."
    ) from None
