"""Archives of every format that can be unpacked."""

import bz2
import gzip
import lzma
from collections.abc import Iterator
from typing import BinaryIO, cast

import zstandard

from scipion_cloud.copies import tars, zips
from scipion_cloud.copies.members import Checked, Member


def members(file: BinaryIO) -> Iterator[Member]:
    """All that is in an archive, in its order; its format is told by its first bytes, not by its name.

    Raises BadArchive as soon as it turns out to be damaged, cut off, encrypted or no archive.
    """
    start = file.read(8)
    file.seek(0)
    if start.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        return zips.members(file)
    return tars.members(_unpacked(file, start))


def _unpacked(file: BinaryIO, start: bytes) -> Checked:
    if start.startswith(b"\x1f\x8b"):
        return Checked(cast(BinaryIO, gzip.GzipFile(fileobj=file)))
    if start.startswith(b"BZh"):
        return Checked(cast(BinaryIO, bz2.BZ2File(file)))
    if start.startswith(b"\xfd7zXZ\0"):
        return Checked(cast(BinaryIO, lzma.LZMAFile(file)))
    if start.startswith(b"\x28\xb5\x2f\xfd"):
        reader = zstandard.ZstdDecompressor().stream_reader(file, read_across_frames=True)
        return Checked(cast(BinaryIO, reader))
    return Checked(file)
