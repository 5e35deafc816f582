"""Manifests as bytes: sizes, bombs, the header alone."""

import tracemalloc
from datetime import UTC, datetime

import msgpack
import pytest
import zstandard
from blake3 import blake3

from scipion_cloud.errors import SyncError
from scipion_cloud.sync import codec
from scipion_cloud.sync.entry import Entry, EntryKind
from scipion_cloud.sync.manifest import Manifest


def sealed(body: bytes, count: int, size: int, header: object = None) -> bytes:
    """Bytes of which every digest is right, whatever they say."""
    told: bytes = msgpack.packb([{} if header is None else header, blake3(body).digest(), count, size])
    return codec.MANIFEST + len(told).to_bytes(4, "big") + blake3(told).digest() + told + body


def test_the_header_is_read_without_the_body() -> None:
    header = {
        "number": 41,
        "parent": None,
        "created": datetime(2026, 11, 20, 12, 0, 0, 123456, UTC),
        "note": "ä",
    }
    data = codec.encode(header, Manifest([Entry(b"x", EntryKind.FOLDER)]))
    assert codec.decode_header(data[:4096]) == header
    body = data.index(zstandard.FRAME_HEADER)
    assert codec.decode_header(data[:body]) == header
    with pytest.raises(SyncError, match="damaged"):
        codec.decode_header(data[: body - 1])


def test_a_header_that_does_not_fit_is_not_written() -> None:
    with pytest.raises(SyncError, match="too large"):
        codec.encode({"note": "x" * 5000}, Manifest())


@pytest.mark.parametrize("told", [64 << 20, 2 << 30, 1000])
def test_a_bomb_takes_no_memory(told: int) -> None:
    body = zstandard.ZstdCompressor(level=19).compress(b"\xc0" * (64 << 20))
    assert len(body) < 20_000
    data = sealed(body, 64 << 20, told)
    tracemalloc.start()
    try:
        with pytest.raises(SyncError):
            codec.decode(data)
        assert tracemalloc.get_traced_memory()[1] < 8 << 20
    finally:
        tracemalloc.stop()


def test_a_frame_that_wants_a_huge_window_is_refused() -> None:
    compressor = zstandard.ZstdCompressor(
        compression_params=zstandard.ZstdCompressionParameters(window_log=27, write_content_size=0)
    ).compressobj()
    body = compressor.compress(b"\x90" * 1000) + compressor.flush()
    with pytest.raises(SyncError):
        codec.decode(sealed(body, 1000, 1000))


@pytest.mark.parametrize("header", [b"x", 3, {1: 2}, [], None])
def test_only_a_dictionary_is_a_header(header: object) -> None:
    body = zstandard.compress(b"")
    data = sealed(body, 0, 0, header if header is not None else "x")
    with pytest.raises(SyncError):
        codec.decode(data)


def test_climbing_paths_and_missing_folders_are_refused() -> None:
    for path in (b"../x", b"/x", b"a/./b", b"a//b", b"", b"nowhere/x", b"a\0b"):
        row = Entry(path, EntryKind.LINK, target=b"t")
        with pytest.raises(SyncError):
            codec.decode(codec.pack(codec.MANIFEST, {}, [row]))


def test_a_large_tree_is_small() -> None:
    entries = [Entry(b"Runs", EntryKind.FOLDER)]
    for n in range(20_000):
        entries.append(
            Entry(
                b"Runs/micrograph_%06d.mrc" % n,
                EntryKind.FILE,
                0o644,
                10**18 + n,
                n,
                blake3(b"%d" % n).digest(),
            )
        )
    data = codec.encode({}, Manifest(entries))
    assert len(data) < 45 * len(entries)  # the digests alone are 32
    assert codec.decode(data)[1] == Manifest(entries)
