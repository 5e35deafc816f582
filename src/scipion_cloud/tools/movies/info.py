"""What the header of a movie says, whatever its format. No pixel is read: terabytes are checked quickly."""

from dataclasses import dataclass, replace
from pathlib import Path

from scipion_cloud.errors import InvalidInput
from scipion_cloud.tools.movies import mrc, tiff
from scipion_cloud.tools.movies.files import looks_like_text, open_plain
from scipion_cloud.tools.movies.header import MOST_MOVIE_PIXELS, MOST_PIXELS, Header

PIXEL_SIZES = (0.05, 50.0)
"""Pixel sizes (A) that a cryo-EM movie can have."""

SUFFIXES = frozenset({".tif", ".tiff", ".mrc", ".mrcs"})
"""Endings of the names of movies that are read; compare in lower case."""


@dataclass(frozen=True)
class MovieInfo:
    """What a movie's header tells; an image has 1 frame; `pixel_size` (A) is None if the file is silent."""

    path: Path
    format: str  # "TIFF" or "MRC"
    nx: int  # columns, px
    ny: int  # rows, px
    frames: int
    dtype: str  # numpy's name of a pixel's type
    pixel_size: float | None
    warnings: tuple[str, ...] = ()

    @property
    def size(self) -> tuple[int, int]:
        """Columns and rows (px)."""
        return self.nx, self.ny


def read_info(path: Path, inside: Path | None = None) -> MovieInfo:
    """Read the header of a movie, as `read_image_info` does. Raises InvalidInput also for a single frame."""
    info = read_image_info(path, inside)
    if info.frames == 1:
        raise InvalidInput(
            f"{path.name} is an image, not a movie: it has one frame. Choose the movies as the camera wrote "
            "them; a gain reference goes in its own field."
        )
    return info


def read_image_info(path: Path, inside: Path | None = None) -> MovieInfo:
    """Read the header of a movie, a micrograph or a gain reference (TIFF, MRC).

    inside: a folder that links must not lead out of. Raises InvalidInput with what to do if the file is
    truncated, empty, of another kind, or not a plain file.
    """
    with open_plain(path, inside) as file:
        start = file.read(0, min(file.size, 1024))
        if path.suffix.lower() == ".eer":
            raise InvalidInput(_no_eer(path.name))
        if start[:4] in tiff.MAGIC:
            header = tiff.read_header(file)
            if header.compression in tiff.EER_COMPRESSIONS:
                raise InvalidInput(_no_eer(path.name))
        elif mrc.is_mrc(start):
            header = mrc.read_header(file)
        elif looks_like_text(start):
            raise InvalidInput(
                f"{path.name} is a text, not a movie. Choose the movie itself (TIFF, MRC or MRCS)."
            )
        else:
            raise InvalidInput(
                f"{path.name} is neither TIFF nor MRC, or its header is damaged. "
                "Upload it again, or convert it to TIFF or MRC."
            )
    return _checked(path, header)


def check_pixel_size(value: float) -> float:
    """Return a pixel size (A) that a person gave. Raises InvalidInput if no camera could have taken it."""
    low, high = PIXEL_SIZES
    if not low <= value <= high:  # also refuses nan
        raise InvalidInput(
            f"A pixel size of {value:g} A cannot be right; movies have {low:g} to {high:g} A. "
            "The microscope's log or the facility's staff can tell it."
        )
    return value


def _checked(path: Path, header: Header) -> MovieInfo:
    pixels = header.nx * header.ny
    if pixels > MOST_PIXELS or pixels * header.frames > MOST_MOVIE_PIXELS:
        raise InvalidInput(
            f"{path.name} announces {header.frames} frames of {header.nx} x {header.ny} pixels, more than "
            "any camera records: the file is damaged. Upload it again."
        )
    info = MovieInfo(
        path,
        header.format,
        header.nx,
        header.ny,
        header.frames,
        header.dtype,
        header.pixel_size,
        header.warnings,
    )
    size = header.pixel_size
    if size is None:
        return info
    try:
        check_pixel_size(size)
    except InvalidInput:
        said = f"The header says a pixel size of {size:g} A, which cannot be right; type it in the form."
        return replace(info, pixel_size=None, warnings=(*info.warnings, said))
    if size == 1:
        said = "The header says a pixel size of exactly 1 A; many programs write that for want of knowledge."
        return replace(info, warnings=(*info.warnings, said))
    return info


def _no_eer(name: str) -> str:
    return f"{name} is an EER movie, which is not handled yet. Convert it to TIFF (relion_convert_to_tiff)."
