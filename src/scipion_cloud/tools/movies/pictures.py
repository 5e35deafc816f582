"""Pictures of one movie before and after its alignment, small enough for a page."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import fft, ndimage

from scipion_cloud.tools.movies.frames import Floats, mean_frame, read_gain, read_image
from scipion_cloud.tools.movies.results import MovieOutputs

Bytes = NDArray[np.uint8]

_THUMBNAIL = 256  # px
_VIEW = 1024  # px
_SPECTRUM = 384  # px
_TILE_A = 768.0  # A: power spectra of tiles of about this size show Thon rings smoothly
_MOST_TILES = 36
_SMOOTH_A = 5.0  # A: shot noise finer than this is taken off the views
_SIGMAS = 3.0  # contrast window of the views
_SPECTRUM_WINDOW = (-2.5, 4.5)  # in units of the noise
_FINEST_A = 6.0  # A at the edge of the power spectra


@dataclass(frozen=True)
class Pictures:
    """The files made of one movie. Rows run from the top (y up in the picture, as in the drift).

    spectrum_edge: resolution (A) at the middle of an edge of the power spectra.
    """

    before: Path
    after: Path
    spectrum_before: Path
    spectrum_after: Path
    spectrum_edge: float


def make_thumbnail(outputs: MovieOutputs, folder: Path, pixel_size: float) -> Path:
    """Make `thumb.webp` of the micrograph (of this pixel size, A) in `folder`: little work."""
    folder.mkdir(parents=True, exist_ok=True)
    small = _shrunk(_view(_relative(read_image(outputs.micrograph)), pixel_size), _THUMBNAIL)
    _save(_grey(small, _window(small)), folder / "thumb.webp")
    return folder / "thumb.webp"


def make_pictures(
    movie: Path,
    gain: Path | None,
    outputs: MovieOutputs,
    folder: Path,
    *,
    pixel_size: float,
    gain_rotation: int = 0,
    gain_flip: int = 0,
) -> Pictures:
    """Make the large pictures of an aligned movie in `folder` (made if missing).

    pixel_size: of the movie, in A. Both views have one contrast window, and both spectra one grey scale:
    what differs is the alignment. Memory: a few frames. Raises InvalidInput if a file cannot be read.
    """
    reference = read_gain(gain, gain_rotation, gain_flip) if gain else None
    after = _relative(read_image(outputs.micrograph))
    before = _relative(_mended(mean_frame(movie, reference), reference))
    binning = before.shape[1] / after.shape[1]
    folder.mkdir(parents=True, exist_ok=True)
    pictures = Pictures(
        before=folder / "before.webp",
        after=folder / "after.webp",
        spectrum_before=folder / "psd_before.webp",
        spectrum_after=folder / "psd_after.webp",
        spectrum_edge=max(_FINEST_A, 2 * pixel_size * binning),
    )
    views = [_view(before, pixel_size), _view(after, pixel_size * binning)]
    window = _window(views[1])
    for view, path in zip(views, (pictures.before, pictures.after), strict=True):
        _save(_grey(view, window), path)
    spectra = [
        power_spectrum(before, pixel_size, pictures.spectrum_edge),
        power_spectrum(after, pixel_size * binning, pictures.spectrum_edge),
    ]
    for spectrum, path in zip(spectra, (pictures.spectrum_before, pictures.spectrum_after), strict=True):
        _save(_grey(spectrum, _SPECTRUM_WINDOW), path)
    return pictures


def power_spectrum(image: Floats, pixel_size: float, edge: float) -> Floats:
    """Power spectrum of an image, its centre in the middle, from -1/edge to 1/edge (1/A).

    The logarithm of the mean over tiles, less its smooth radial fall, in units of its noise: Thon rings stand
    out by a few units. Returns (_SPECTRUM, _SPECTRUM).
    """
    side = min(int(fft.next_fast_len(int(_TILE_A / pixel_size))), *image.shape)
    window = np.hanning(side).astype(np.float32)
    taper = window[:, None] * window[None, :]
    starts = _tile_starts(image.shape, side)
    power = np.zeros((side, side // 2 + 1), np.float32)
    for y, x in starts:
        tile = image[y : y + side, x : x + side]
        spectrum = fft.rfft2((tile - tile.mean()) * taper)
        power += spectrum.real**2 + spectrum.imag**2
    reach = min(int(side * pixel_size / edge), side // 2 - 1)
    half = np.fft.fftshift(power, axes=0)[side // 2 - reach : side // 2 + reach + 1, : reach + 1]
    flat = _flattened(np.log(half + np.float32(1e-20)), reach)
    whole = np.concatenate([flat[::-1, :0:-1], flat], axis=1)
    picture = Image.fromarray(whole).resize((_SPECTRUM, _SPECTRUM), Image.Resampling.BICUBIC)
    return np.array(picture, dtype=np.float32)


def _flattened(log_power: Floats, reach: int) -> Floats:
    """Take off the smooth radial fall; scale by the scatter near the edge, which is noise."""
    y, x = np.ogrid[-reach : reach + 1, : reach + 1]
    radius = np.hypot(y, x)
    ring = radius.astype(np.intp)
    number = np.bincount(ring.ravel())
    profile = np.bincount(ring.ravel(), log_power.ravel()) / np.maximum(number, 1)
    # Wider than a Thon ring, so that rings stay.
    smooth = ndimage.uniform_filter1d(profile, max(reach // 6, 3), mode="nearest")
    flat: Floats = log_power - smooth[ring].astype(np.float32)
    flat[radius < reach / 12] = 0
    flat /= np.float32(flat[radius > 0.85 * reach].std() or 1)
    return flat


def _tile_starts(shape: tuple[int, ...], side: int) -> list[tuple[int, int]]:
    """Corners of tiles that overlap by half, or less if they would be more than _MOST_TILES."""
    axes = []
    for length in shape:
        number = min(2 * (length // side) - 1 if length > side else 1, int(_MOST_TILES**0.5))
        axes.append(np.linspace(0, length - side, max(number, 1)).astype(int))
    return [(int(y), int(x)) for y in axes[0] for x in axes[1]]


def _mended(image: Floats, gain: Floats | None) -> Floats:
    """Replace what single broken pixels say, in place: dead ones and those far off the rest."""
    sample = image[::8, ::8]
    centre, reach = float(np.median(sample)), 8 * float(sample.std())
    wrong = (image < centre - reach) | (image > centre + reach)
    if gain is not None:
        wrong |= gain == 0
    image[wrong] = centre
    return image


def _relative(image: Floats) -> Floats:
    """Contrast relative to the mean: RELION's sums and averages of frames then have one scale."""
    mean = float(image.mean())
    if not np.isfinite(mean):
        image = np.nan_to_num(image)
        mean = float(image.mean())
    image -= np.float32(mean)
    if mean > 0:
        image /= np.float32(mean)
    return image


def _view(image: Floats, pixel_size: float) -> Floats:
    """At most _VIEW pixels a side, with shot noise finer than _SMOOTH_A smoothed away."""
    view = _shrunk(image, _VIEW)
    sigma = _SMOOTH_A / 2 / (pixel_size * image.shape[1] / view.shape[1])
    if sigma > 0.4:  # less than that changes nothing
        ndimage.gaussian_filter(view, sigma, output=view, truncate=3)
    return view


def _shrunk(image: Floats, most: int) -> Floats:
    """Average over blocks of pixels until no side has more than `most`."""
    scale = max(image.shape) / most
    if scale <= 1:
        return image.copy()
    size = (max(round(image.shape[1] / scale), 1), max(round(image.shape[0] / scale), 1))
    return np.array(Image.fromarray(image).resize(size, Image.Resampling.BOX), dtype=np.float32)


def _window(view: Floats) -> tuple[float, float]:
    centre, scatter = float(view.mean()), float(view.std()) or 1.0
    return centre - _SIGMAS * scatter, centre + _SIGMAS * scatter


def _grey(image: Floats, window: tuple[float, float]) -> Bytes:
    """0 to 255 over the window, top row first."""
    low, high = window
    grey = (image[::-1] - np.float32(low)) * np.float32(255 / (high - low))
    return np.array(np.clip(grey, 0, 255), dtype=np.uint8)


def _save(grey: Bytes, path: Path) -> None:
    Image.fromarray(grey).save(path, "WEBP", quality=88, method=2)
