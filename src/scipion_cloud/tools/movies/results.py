"""What an alignment by RELION found, read from the files in the `extra` folder of a Scipion run."""

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from scipion_cloud.errors import InvalidInput
from scipion_cloud.tools.movies import mrc
from scipion_cloud.tools.movies.files import open_plain
from scipion_cloud.tools.movies.star import Block, read_blocks

Doubles = NDArray[np.float64]

EARLY_DOSE = 4.0
"""Motion within the first e/A2 of this number is called early, as in RELION."""

PROTOCOL = "ProtRelionMotioncor"  # whose results these are
LAST_MOVED = "corrected_micrographs.star"
"""How the name of a movie's last file ends: Scipion moves the micrograph first and this one last."""

_MOST_STAR_BYTES = 16 << 20
_BELIEVABLE = 5_000.0  # px; RELION writes -9999 where it knows nothing
_COEFFICIENTS = 18  # of RELION's motion model, for each axis


@dataclass(frozen=True)
class MovieOutputs:
    """The files of one aligned movie. `stem` is the movie's name without its ending."""

    stem: str
    star: Path
    dose_weighted: Path | None
    unweighted: Path | None
    power_spectrum: Path | None
    log: Path | None

    @property
    def micrograph(self) -> Path:
        """The aligned micrograph to look at: dose-weighted if there is one."""
        found = self.dose_weighted or self.unweighted
        if found is None:
            raise InvalidInput(f"The movie {self.stem} has no aligned micrograph; run the alignment again.")
        return found


@dataclass(frozen=True)
class LocalMotion:
    """How patches move in addition to the whole field, on a grid.

    u: (nu,), v: (nv,) centres as fractions of the field, from 0 (left, bottom) to 1.
    x, y: (frames, nv, nu), A from where the patch is in the first frame; x to the right, y up.
    """

    u: Doubles
    v: Doubles
    x: Doubles
    y: Doubles


@dataclass(frozen=True)
class Motion:
    """How the specimen drifted.

    frames: (n,), counted from 1. x, y: (n,), where the specimen is in each frame, in A from where it was in
    the first of them; x to the right, y up (to higher rows of the MRC file). RELION stores the opposite sign.
    total, early, late: length of the path in A, None for no data; early and late add up to total.
    width, height: of the field, in A.
    """

    frames: NDArray[np.int64]
    x: Doubles
    y: Doubles
    total: float | None
    early: float | None
    late: float | None
    hot_pixels: int | None
    local: LocalMotion | None
    pixel_size: float
    width: float
    height: float


def scan_results(run_dir: Path, known: Iterable[MovieOutputs] = ()) -> list[MovieOutputs]:
    """Movies of a run whose results are complete now, by stem.

    A file that is still being moved into place is not complete. Pass the answer of the last call as `known`:
    what is in it is only looked for by name, so that a call for 3,000 movies takes milliseconds. Links that
    lead out of the folder are not followed, and nothing but plain files is opened.
    """
    extra = run_dir / "extra"
    if extra.is_symlink():
        return []
    try:
        with os.scandir(extra) as entries:
            names = {entry.name for entry in entries}
    except (FileNotFoundError, NotADirectoryError):
        return []
    before = {outputs.stem: outputs for outputs in known}
    found = []
    for name in names:
        if name.endswith(LAST_MOVED):
            stem = name.removesuffix(LAST_MOVED)
            outputs = before.get(stem)
            if outputs is None or outputs.micrograph.name not in names:
                outputs = _complete(extra, stem, names)
            if outputs is not None:
                found.append(outputs)
    return sorted(found, key=lambda outputs: outputs.stem)


def output_names(stem: str) -> tuple[str, ...]:
    """The names of all files that a movie may have in the `extra` folder; its last one comes last."""
    root = _root(stem)
    images = (f"{root}_aligned_mic_DW.mrc", f"{root}_aligned_mic.mrc", f"{root}_aligned_mic_PS.mrc")
    return (*images, f"{stem}.log", f"{stem}.star", f"{stem}{LAST_MOVED}")


def read_motion(outputs: MovieOutputs, grid: tuple[int, int] = (5, 5)) -> Motion:
    """The drift that RELION found, with its local part at `grid` (columns, rows) patches.

    Frames for which RELION knows nothing are left out. Raises InvalidInput if the file cannot be understood.
    """
    blocks = _read(outputs.star)
    try:
        general, shifts = blocks["general"], blocks["global_shift"]
        pixel_size = _number(general, "rlnMicrographOriginalPixelSize")
        columns, rows = _number(general, "rlnImageSizeX"), _number(general, "rlnImageSizeY")
        frames = shifts.numbers("rlnMicrographFrameNumber")
        # A shift brings the frame back: the specimen went the other way.
        x, y = -shifts.numbers("rlnMicrographShiftX"), -shifts.numbers("rlnMicrographShiftY")
        local = blocks.get("local_motion_model")
        model = local.numbers("rlnMotionModelCoeff") if local else None
    except (KeyError, ValueError) as e:
        raise InvalidInput(f"{outputs.star.name} lacks {e}: align {outputs.stem} again.") from e
    if not all(np.isfinite(value) and value > 0 for value in (pixel_size, columns, rows)):
        raise InvalidInput(f"{outputs.star.name} tells no sizes: align {outputs.stem} again.")
    good = np.isfinite(frames) & (np.hypot(x, y) < _BELIEVABLE)  # nan compares false
    frames, x, y = frames[good], x[good] * pixel_size, y[good] * pixel_size
    if len(x):
        x, y = x - x[0], y - y[0]
    total, early, late = _path(frames, x, y, general) if good.all() and len(x) > 1 else (None, None, None)
    hot = blocks.get("hot_pixels")
    return Motion(
        frames.astype(np.int64),
        x,
        y,
        total,
        early,
        late,
        len(hot.rows) if hot else None,
        _local(model, frames - _number(general, "rlnMicrographStartFrame", 1), grid, pixel_size),
        pixel_size,
        columns * pixel_size,
        rows * pixel_size,
    )


def _complete(extra: Path, stem: str, names: set[str]) -> MovieOutputs | None:
    """The outputs of a movie, or None if a file of them is missing or not whole."""
    weighted, unweighted, spectrum, log, star, last = (
        extra / name if name in names else None for name in output_names(stem)
    )
    if star is None or last is None:
        return None
    outputs = MovieOutputs(stem, star, weighted, unweighted, spectrum, log)
    images = [image for image in (outputs.dose_weighted, outputs.unweighted) if image]
    if not images or not all(map(_is_whole, images)):
        return None
    return outputs if _has_content(outputs.star) and _has_content(last) else None


def _root(stem: str) -> str:
    """How Scipion begins the names of a movie's micrographs: less a second ending of 3 or 4 letters."""
    if len(stem) > 5 and "." in (stem[-4], stem[-5]):
        return os.path.splitext(stem)[0]  # noqa: PTH122 - Scipion's rule, to the letter
    return stem


def _is_whole(image: Path) -> bool:
    """True if an MRC file has all the bytes that its header announces."""
    try:
        with open_plain(image, image.parent) as file:
            expected = mrc.image_bytes(file.read(0, mrc.HEADER_BYTES))
            return expected is not None and file.size >= expected
    except InvalidInput:
        return False


def _has_content(path: Path) -> bool:
    try:
        with open_plain(path, path.parent):
            return True
    except InvalidInput:
        return False


def _read(path: Path) -> Mapping[str, Block]:
    with open_plain(path, path.parent) as file:
        if file.size > _MOST_STAR_BYTES:
            raise InvalidInput(f"{path.name} is too large to be RELION's. Align the movie again.")
        return read_blocks(file.read(0, file.size).decode(errors="replace"))


def _number(block: Block, label: str, default: float | None = None) -> float:
    if default is not None and label not in block.labels:
        return default
    return float(block.numbers(label)[0])


def _path(
    frames: Doubles, x: Doubles, y: Doubles, general: Block
) -> tuple[float, float | None, float | None]:
    """Length of the path in A: total, early, late. Without a dose nobody knows what is early."""
    steps = np.hypot(np.diff(x), np.diff(y))
    total = float(steps.sum())
    dose = _number(general, "rlnMicrographDoseRate", 0)
    before = max(_number(general, "rlnMicrographPreExposure", 0), 0)
    if not dose > 0:
        return total, None, None
    early = float(steps[frames[1:] <= (EARLY_DOSE - before) / dose].sum())
    return total, early, total - early


def _local(model: Doubles | None, t: Doubles, grid: tuple[int, int], pixel_size: float) -> LocalMotion | None:
    """Evaluate RELION's polynomial (third order in time, second in place) at the centres of a grid.

    t: frames from the first one. The model's coordinates run from -0.5 to 0.5 over the field.
    """
    if model is None or len(model) != 2 * _COEFFICIENTS or not np.isfinite(model).all() or not len(t):
        return None
    u, v = ((np.arange(n) + 0.5) / n for n in grid)
    x, y = np.meshgrid(u - 0.5, v - 0.5)
    terms = np.stack([np.ones_like(x), x, x * x, y, y * y, x * y])  # (6, nv, nu)
    times = np.stack([t, t**2, t**3], axis=-1)  # (frames, 3)
    shifts = np.einsum("aij,ti,jvu->atvu", model.reshape(2, 6, 3).transpose(0, 2, 1), times, terms)
    drift = -(shifts - shifts[:, :1]) * pixel_size
    if np.abs(drift).max() > _BELIEVABLE:
        return None
    return LocalMotion(u, v, drift[0], drift[1])
