"""Headers of TIFF files (TIFF 6.0 and BigTIFF), read with bounds, so that a hostile file costs little."""

import math
import re
import struct
from dataclasses import dataclass, replace

from scipion_cloud.errors import InvalidInput
from scipion_cloud.tools.movies.files import OpenFile, truncated
from scipion_cloud.tools.movies.header import LARGEST, MOST_FRAMES, Header

MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
EER_COMPRESSIONS = (65000, 65001, 65002)

_MOST_ENTRIES = 256
_MOST_STRIPS = 4_000_000  # in all frames together
_MOST_TEXT = 4096

# Tags
_WIDTH, _LENGTH, _BITS, _COMPRESSION, _SAMPLES, _SAMPLE_FORMAT = 256, 257, 258, 259, 277, 339
_STRIPS, _STRIP_COUNTS, _TILES, _TILE_COUNTS = 273, 279, 324, 325
_DESCRIPTION, _X_RESOLUTION, _UNIT = 270, 282, 296

# TIFF's type: (letters of struct, bytes); type 5 is a fraction of two integers.
_TYPES = {1: ("B", 1), 3: ("H", 2), 4: ("I", 4), 5: ("II", 8), 11: ("f", 4), 12: ("d", 8), 16: ("Q", 8)}
_FORMATS = {1: "uint", 2: "int", 3: "float"}
_PIXELS = frozenset({"uint4", "uint8", "int8", "uint16", "int16", "float32"})
# ImageJ's units, in A
_UNITS = {
    "angstrom": 1.0,
    "a": 1.0,
    "å": 1.0,
    "nm": 10.0,
    "nanometer": 10.0,
    "um": 1e4,
    "µm": 1e4,
    "micron": 1e4,
}


@dataclass(frozen=True)
class _Layout:
    order: str
    big: bool

    @property
    def entry_bytes(self) -> int:
        return 20 if self.big else 12

    @property
    def offset(self) -> tuple[str, int]:
        return (self.order + "Q", 8) if self.big else (self.order + "I", 4)


_Entries = dict[int, tuple[int, int, bytes]]  # tag: type, count, value or its offset


def read_header(file: OpenFile) -> Header:
    """Read the directories of all frames. Raises InvalidInput if data is missing or the file is no movie."""
    start = file.read(0, min(16, file.size))
    layout = _Layout("<" if start[:1] == b"I" else ">", start[2:4] in (b"+\0", b"\0+"))
    letter, width = layout.offset
    place = width if layout.big else 4
    (offset,) = struct.unpack(letter, file.read(place, width))
    first: Header | None = None
    frames = strips = 0
    seen: set[int] = set()
    while offset:
        if offset in seen or frames >= MOST_FRAMES or strips > _MOST_STRIPS:
            raise _damaged(file.name)
        seen.add(offset)
        entries, offset = _directory(file, layout, offset)
        header = _page(file, layout, entries)
        if first is None:
            first = header
            if first.compression in EER_COMPRESSIONS:  # thousands of frames, not needed
                return first
        elif (header.nx, header.ny, header.dtype) != (first.nx, first.ny, first.dtype):
            raise InvalidInput(
                f"Frame {frames + 1} of {file.name} has {header.nx} x {header.ny} pixels, the first one "
                f"{first.nx} x {first.ny}. Frames must be alike; choose another file."
            )
        strips += _check_data(file, layout, entries)
        frames += 1
    if first is None:
        raise _damaged(file.name)
    return replace(first, frames=frames)


def _directory(file: OpenFile, layout: _Layout, offset: int) -> tuple[_Entries, int]:
    """The entries at `offset`, and where the next directory is (0: nowhere)."""
    letter, width = layout.offset
    head = 8 if layout.big else 2
    (count,) = struct.unpack(layout.order + ("Q" if layout.big else "H"), file.read(offset, head))
    if not 0 < count <= _MOST_ENTRIES:
        raise _damaged(file.name)
    body = file.read(offset + head, count * layout.entry_bytes + width)
    entries: _Entries = {}
    for n in range(count):
        at = n * layout.entry_bytes
        tag, kind = struct.unpack_from(layout.order + "HH", body, at)
        (values,) = struct.unpack_from(letter, body, at + 4)
        entries[tag] = kind, values, body[at + 4 + width : at + layout.entry_bytes]
    (following,) = struct.unpack(letter, body[-width:])
    return entries, following


def _page(file: OpenFile, layout: _Layout, entries: _Entries) -> Header:
    def one(tag: int, default: int) -> int:
        values = _values(file, layout, entries, tag, 4)
        return int(values[0]) if values else default

    nx, ny = one(_WIDTH, 0), one(_LENGTH, 0)
    if not (0 < nx <= LARGEST and 0 < ny <= LARGEST):
        raise _damaged(file.name)
    if one(_SAMPLES, 1) != 1:
        raise InvalidInput(
            f"{file.name} is a colour picture, not a movie. Choose the movie as the camera wrote it."
        )
    dtype = f"{_FORMATS.get(one(_SAMPLE_FORMAT, 1), 'unknown')}{one(_BITS, 1)}"
    compression = one(_COMPRESSION, 1)
    if dtype not in _PIXELS and compression not in EER_COMPRESSIONS:
        raise InvalidInput(
            f"{file.name} has pixels of the type {dtype}, which is not handled. Convert it to 8 or 16 bits."
        )
    size = _pixel_size(file, layout, entries, one(_UNIT, 2))
    return Header("TIFF", nx, ny, 1, dtype, size, compression)


def _check_data(file: OpenFile, layout: _Layout, entries: _Entries) -> int:
    """Count the strips or tiles of a frame. Raises InvalidInput unless all lie within the file."""
    where, long = (_TILES, _TILE_COUNTS) if _TILES in entries else (_STRIPS, _STRIP_COUNTS)
    offsets = _values(file, layout, entries, where, LARGEST)
    lengths = _values(file, layout, entries, long, LARGEST)
    if not offsets or len(offsets) != len(lengths):
        raise _damaged(file.name)
    if max(map(sum, zip(offsets, lengths, strict=True))) > file.size:
        raise truncated(file.name)
    return len(offsets)


def _values(file: OpenFile, layout: _Layout, entries: _Entries, tag: int, most: int) -> tuple[float, ...]:
    """The numbers of an entry; empty if it is not there."""
    if tag not in entries:
        return ()
    kind, count, inline = entries[tag]
    if kind not in _TYPES or not 0 < count <= most:
        raise _damaged(file.name)
    letters, width = _TYPES[kind]
    data = _data(file, layout, inline, count * width)
    return struct.unpack(layout.order + letters * count, data)


def _data(file: OpenFile, layout: _Layout, inline: bytes, length: int) -> bytes:
    if length <= len(inline):
        return inline[:length]
    (offset,) = struct.unpack(layout.offset[0], inline)
    return file.read(offset, length)


def _pixel_size(file: OpenFile, layout: _Layout, entries: _Entries, unit: int) -> float | None:
    """Pixel size in A from the resolution tag; ImageJ gives the unit in the description.

    Resolutions of printers and screens (72 per inch and the like) say nothing about a specimen.
    """
    values = _values(file, layout, entries, _X_RESOLUTION, 1)
    if not values:
        return None
    per_unit = values[0] / values[1] if len(values) == 2 and values[1] else values[0]
    if not math.isfinite(per_unit) or per_unit <= 0:
        return None
    in_a = {2: 2.54e8, 3: 1e8}.get(unit)
    description = _text(file, layout, entries)
    if description.startswith("ImageJ") and (found := re.search(r"^unit=(\S+)", description, re.MULTILINE)):
        name = found[1].lower().replace("\\u00b5", "µ").replace("\\u00c5", "å")
        in_a = _UNITS.get(name)
    if in_a is None or in_a / per_unit > 1e4:
        return None
    return float(round(in_a / per_unit, 6))


def _text(file: OpenFile, layout: _Layout, entries: _Entries) -> str:
    kind, count, inline = entries.get(_DESCRIPTION, (2, 0, b""))
    if kind != 2 or count == 0:
        return ""
    if count > _MOST_TEXT and count > len(inline):
        (offset,) = struct.unpack(layout.offset[0], inline)
        return file.read(offset, min(_MOST_TEXT, max(file.size - offset, 0))).decode("latin-1")
    return _data(file, layout, inline, count).decode("latin-1")


def _damaged(name: str) -> InvalidInput:
    return InvalidInput(f"{name} is a damaged TIFF file. The copy was probably interrupted; upload it again.")
