"""What the readers of all formats find."""

from dataclasses import dataclass

LARGEST = 65_536
"""Most columns or rows (px) that a header is believed."""
MOST_FRAMES = 20_000
"""Most frames that a header is believed."""
MOST_PIXELS = 2**28
"""Most pixels of a frame that a header is believed: a small compressed file can announce any size."""
MOST_MOVIE_PIXELS = 2**35
"""Most pixels of all frames together."""


@dataclass(frozen=True)
class Header:
    """The contents of a file as its header tells them; sizes in pixels, pixel_size in A or None."""

    format: str
    nx: int
    ny: int
    frames: int
    dtype: str
    pixel_size: float | None
    compression: int = 1  # TIFF's number
    warnings: tuple[str, ...] = ()
