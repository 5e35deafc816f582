"""Headers of MRC files (MRC2014: https://www.ccpem.ac.uk/mrc_format/mrc2014.php)."""

import math
import struct

from scipion_cloud.errors import InvalidInput
from scipion_cloud.tools.movies.files import OpenFile, truncated
from scipion_cloud.tools.movies.header import LARGEST, MOST_FRAMES, Header

HEADER_BYTES = 1024

# mode: (name of the type, bits of a pixel)
_MODES = {
    0: ("int8", 8),
    1: ("int16", 16),
    2: ("float32", 32),
    6: ("uint16", 16),
    12: ("float16", 16),
    101: ("uint4", 4),
}
_TRANSFORMS = (3, 4)


def is_mrc(start: bytes) -> bool:
    """True if the first 1024 bytes of a file can be an MRC header; old ones lack the mark 'MAP '."""
    return _order(start) is not None


def read_header(file: OpenFile) -> Header:
    """Read the header of an MRC file or stack. Raises InvalidInput if the file is cut or holds no images."""
    start = file.read(0, HEADER_BYTES)
    order = _order(start)
    if order is None:
        raise InvalidInput(f"{file.name} is not an MRC file, or its header is damaged. Upload it again.")
    nx, ny, nz, mode = struct.unpack_from(order + "4i", start)
    if mode in _TRANSFORMS:
        raise InvalidInput(f"{file.name} holds a Fourier transform, not images. Choose the movie itself.")
    dtype, bits = _MODES[mode]
    (extended,) = struct.unpack_from(order + "i", start, 92)
    if extended < 0:
        raise InvalidInput(f"{file.name} has a damaged MRC header. Upload it again.")
    expected = HEADER_BYTES + extended + nz * ny * ((nx * bits + 7) // 8)
    if file.size < expected:
        raise truncated(file.name)
    warnings = []
    if file.size > expected:
        warnings.append(f"The file has {file.size - expected} bytes more than its header announces.")
    return Header("MRC", nx, ny, nz, dtype, _pixel_size(order, start), warnings=tuple(warnings))


def image_bytes(start: bytes) -> int | None:
    """Bytes that a whole file with this header has, or None if it is no header of images."""
    order = _order(start)
    if order is None:
        return None
    nx, ny, nz, mode = struct.unpack_from(order + "4i", start)
    (extended,) = struct.unpack_from(order + "i", start, 92)
    if mode not in _MODES or extended < 0:
        return None
    return int(HEADER_BYTES + extended + nz * ny * ((nx * _MODES[mode][1] + 7) // 8))


def _order(start: bytes) -> str | None:
    """The byte order in which the header makes sense, or None."""
    if len(start) < HEADER_BYTES:
        return None
    for order in "<>":
        nx, ny, nz, mode = struct.unpack_from(order + "4i", start)
        sizes = 0 < nx <= LARGEST and 0 < ny <= LARGEST and 0 < nz <= MOST_FRAMES
        if sizes and (mode in _MODES or mode in _TRANSFORMS):
            return order
    return None


def _pixel_size(order: str, start: bytes) -> float | None:
    (mx,) = struct.unpack_from(order + "i", start, 28)
    (cell,) = struct.unpack_from(order + "f", start, 40)
    if mx <= 0 or not math.isfinite(cell) or cell <= 0:
        return None
    return float(round(cell / mx, 6))
