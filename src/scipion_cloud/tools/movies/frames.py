"""Pixels of movies and micrographs, one frame at a time, so that memory does not grow with the movie.

All arrays have row 0 at the bottom of the picture (y up), as RELION sees files of both formats: TIFF files
store the top row first and are turned here.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mrcfile
import numpy as np
import tifffile
from numpy.typing import NDArray

from scipion_cloud.errors import InvalidInput
from scipion_cloud.tools.movies.info import MovieInfo, read_image_info

Pixels = NDArray[Any]
Floats = NDArray[np.float32]


def iter_frames(path: Path) -> Iterator[Pixels]:
    """The frames of a movie, (ny, nx), of the file's own type. Raises InvalidInput if it cannot be read."""
    info = read_image_info(path)
    if info.dtype == "uint4":
        raise InvalidInput(f"{path.name} has 4 bits a pixel, of which no pictures can be made yet.")
    try:
        if info.format == "TIFF":
            with tifffile.TiffFile(path) as tiff:
                for page in tiff.pages:
                    yield page.asarray(maxworkers=1)[::-1]
        else:
            with mrcfile.mmap(path, permissive=True) as mrc:
                if mrc.data is None:
                    raise ValueError("its header is damaged")
                yield from mrc.data.reshape(info.frames, info.ny, info.nx)
    except (OSError, ValueError, RuntimeError) as e:  # RuntimeError: a damaged compressed strip
        raise InvalidInput(f"{path.name} cannot be read: {e}. Upload it again.") from e


def read_image(path: Path) -> Floats:
    """The first frame of an image, (ny, nx)."""
    for frame in iter_frames(path):
        return np.array(frame, dtype=np.float32)
    raise InvalidInput(f"{path.name} has no image in it. Upload it again.")


def read_gain(path: Path, rotation: int = 0, flip: int = 0) -> Floats:
    """A gain reference, turned as RELION does.

    rotation: number of quarter turns, as RELION's --gain_rot. flip: 0 none, 1 upside down, 2 left to right,
    after the rotation, as RELION's --gain_flip.
    """
    gain = np.rot90(read_image(path), -rotation)
    if flip:
        gain = gain[::-1] if flip == 1 else gain[:, ::-1]
    return gain


def mean_frame(path: Path, gain: Floats | None = None) -> Floats:
    """The average of all frames, (ny, nx), times the gain. Raises InvalidInput if the gain does not fit."""
    info = read_image_info(path)
    if gain is not None and gain.shape != (info.ny, info.nx):
        size = f"{gain.shape[1]} x {gain.shape[0]}"
        raise InvalidInput(f"The gain reference has {size} pixels, {path.name} has {info.nx} x {info.ny}.")
    total = np.zeros((info.ny, info.nx), _sum_type(info))
    for frame in iter_frames(path):
        total += frame
    mean = total.astype(np.float32)
    mean /= np.float32(info.frames)
    if gain is not None:
        mean *= gain
    return mean


def _sum_type(info: MovieInfo) -> type[np.generic]:
    """The smallest type that holds the sum of all frames: sums in it are quick."""
    if info.dtype.startswith("float"):
        return np.float32
    if info.dtype in ("uint8", "int8") and info.frames <= 128:
        return np.uint16 if info.dtype == "uint8" else np.int16
    return np.int64 if info.dtype == "uint16" and info.frames > 32_000 else np.int32
