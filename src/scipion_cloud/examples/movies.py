"""Movies of ribosomes in vitreous ice, with everything known about them in `truth.json`.

Orientation: row 0 of an array is the bottom of the picture (y up), as MRC files have it. TIFF files store the
top row first, so they are written upside down; RELION reads them so. The gain reference is an MRC file and
fits movies of both kinds as it is.
"""

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import mrcfile
import numpy as np
import tifffile
from numpy.typing import NDArray
from PIL import Image
from scipy import fft

from scipion_cloud.errors import InvalidInput
from scipion_cloud.examples import optics, structure
from scipion_cloud.examples.detector import Camera, count, ideal_camera, real_camera
from scipion_cloud.examples.motion import Drift, make_drift
from scipion_cloud.examples.optics import Floats

Format = Literal["tiff", "mrc", "mrcs"]
Report = Callable[[int, int], None]

_VIEWS = 32  # projections, each used in four in-plane rotations
_SPACING = 250.0  # A between the centres of neighbouring particles, at least
_ENVELOPE_B = 60.0  # A2
_ICE_STRUCTURE = 0.06  # structure factor of water at low resolution: it is nearly incompressible
_MESH = 12  # the local motion is exact at this many points a side and bilinear between

SIGN = (
    "drift_A is where the specimen is in each frame, in A from where it was in the first: x to the right, "
    "y up (towards higher rows of an MRC file, earlier rows of a TIFF file). Programs that store the shift "
    "that brings a frame back, as RELION does, give the opposite sign."
)


@dataclass(frozen=True)
class MovieSpec:
    """How the movies are taken. Raises InvalidInput where a value makes no sense."""

    size: int = 1024  # px, square
    frames: int = 16
    pixel_size: float = 1.5  # A
    format: Format = "tiff"
    gain: bool = True  # an unequal camera and its gain reference
    dose_per_frame: float = 1.25  # e/A2
    voltage: float = 300.0  # kV
    cs: float = 2.7  # mm
    amplitude_contrast: float = 0.1
    defocus: tuple[float, float] = (15_000.0, 25_000.0)  # A, underfocus; drawn for each movie
    drift: tuple[float, float] = (12.0, 28.0)  # A over the whole movie; drawn for each movie
    local_drift: float = 4.0  # A, of corners against the centre
    ice: float = 350.0  # A, thickness

    def __post_init__(self) -> None:
        for name, low, high in (
            ("size", 64, 16_384),
            ("frames", 2, 2_000),
            ("pixel_size", 0.2, 10),
            ("dose_per_frame", 0.01, 100),
            ("voltage", 60, 400),
            ("cs", 0, 10),
            ("amplitude_contrast", 0, 0.5),
            ("local_drift", 0, 100),
            ("ice", 0, 5_000),
        ):
            value = getattr(self, name)
            if not low <= value <= high:
                raise InvalidInput(f"{name} of example movies is {value}; it must be from {low} to {high}.")
        for name, high in (("defocus", 100_000), ("drift", 200)):
            least, most = getattr(self, name)
            if not 0 <= least <= most <= high:
                raise InvalidInput(
                    f"{name} of example movies is {least} to {most}; it must be within 0 and {high} A."
                )
        if self.format not in ("tiff", "mrc", "mrcs"):
            raise InvalidInput(
                f"Example movies cannot be written as '{self.format}'; choose tiff, mrc or mrcs."
            )


def write_movies(
    folder: Path, number: int, spec: MovieSpec | None = None, seed: int = 1, report: Report | None = None
) -> list[Path]:
    """Write `number` movies, `gain.mrc` and `truth.json` into `folder` (made if missing).

    The same spec and seed give the same files; movie n does not depend on `number`. A file gets its name only
    when it is whole. `report(done, total)` is called after each frame. Returns the paths of the movies.
    """
    spec = spec or MovieSpec()
    if number < 1:
        raise InvalidInput("Ask for one example movie at least.")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as e:
        raise InvalidInput(f"The folder {folder} cannot be made: {e.strerror}. Choose another one.") from e
    rng = np.random.default_rng([seed, 0])
    camera = real_camera(rng, spec.size) if spec.gain else ideal_camera(spec.size)
    truth: dict[str, object] = {"sign": SIGN, "seed": seed, "spec": asdict(spec), "gain": None, "movies": []}
    if spec.gain:
        truth["gain"] = "gain.mrc"
        _write_whole(folder / "gain.mrc", lambda part: _write_image(part, camera.gain, spec.pixel_size))
    width = max(3, len(str(number)))
    movies, records = [], []
    for n in range(1, number + 1):
        path = folder / f"ribosome_{n:0{width}d}.{spec.format}"
        movie = Movie(spec, camera, np.random.default_rng([seed, n]), seed)

        def tell(frame: int, before: int = (n - 1) * spec.frames) -> None:
            if report:
                report(before + frame, number * spec.frames)

        _write_whole(path, partial(_write_movie, movie=movie, tell=tell))
        movies.append(path)
        records.append({"file": path.name, **movie.truth()})
    truth["movies"] = records
    _write_whole(folder / "truth.json", lambda part: part.write_text(json.dumps(truth, indent=1) + "\n"))
    return movies


class Movie:
    """One exposure; its frames are made one by one."""

    def __init__(self, spec: MovieSpec, camera: Camera, rng: np.random.Generator, seed: int) -> None:
        self.spec = spec
        self._camera = camera
        self._rng = rng
        self.defocus = float(rng.uniform(*spec.defocus))
        self.drift: Drift = make_drift(rng, spec.frames, spec.drift, spec.local_drift)
        reach = max(np.abs(self.drift.x).max(), np.abs(self.drift.y).max()) + 3 * spec.local_drift
        self._margin = int(np.ceil(reach / spec.pixel_size)) + 8
        side = fft.next_fast_len(spec.size + 2 * self._margin, real=True)
        self._shape = (side, side)
        self._s = optics.frequencies(self._shape, spec.pixel_size)
        self.particles = 0
        self._spectrum = self._contrast(self._specimen(seed))

    def truth(self) -> dict[str, object]:
        """What a program that works on this movie should find, fit for JSON."""
        drift = self.drift
        return {
            "defocus_A": round(self.defocus, 1),
            "particles": self.particles,
            "drift_A": {"x": drift.x.round(4).tolist(), "y": drift.y.round(4).tolist()},
            "local_drift": {
                "terms": "u, v, u^2 - 1/12, v^2 - 1/12, u v; u and v from -0.5 to 0.5 over the field, v up",
                "settled": drift.settled.round(6).tolist(),
                "x_A": drift.local[0].round(6).tolist(),
                "y_A": drift.local[1].round(6).tolist(),
            },
        }

    def frame(self, index: int) -> NDArray[np.uint16]:
        """Counts of frame `index` (from 0), (size, size), row 0 at the bottom."""
        spec = self.spec
        seen = optics.damage(self._s, spec.dose_per_frame * (index + 0.5), spec.voltage)
        still = fft.irfft2(self._spectrum * seen, s=self._shape)
        mean = spec.dose_per_frame * spec.pixel_size**2
        electrons = self._moved(still, index)
        electrons += 1
        electrons *= np.float32(mean)
        return count(self._rng, electrons, self._camera, mean)

    def _specimen(self, seed: int) -> Floats:
        """The phase (rad) that ribosomes and ice give to the electron wave."""
        spec, rng, side = self.spec, self._rng, self._shape[0]
        views = structure.projections(_VIEWS, spec.pixel_size, seed)
        box = views[0].shape[0]
        canvas = np.zeros((side + 2 * box, side + 2 * box), np.float32)
        for x, y in _places(rng, side, _SPACING / spec.pixel_size):
            view = np.rot90(views[rng.integers(len(views))], int(rng.integers(4)))
            left, low = x + box // 2, y + box // 2
            canvas[low : low + box, left : left + box] += view
            inside = self._margin <= min(x, y) and max(x, y) < self._margin + spec.size
            self.particles += inside
        sigma = optics.interaction(spec.voltage)
        phase: Floats = np.float32(sigma) * canvas[box : box + side, box : box + side]
        molecules = structure.WATER_DENSITY * spec.ice * spec.pixel_size**2 * _ICE_STRUCTURE
        molecule = sigma * structure.VOLT_A2 * structure.WATER_LENGTH / spec.pixel_size**2
        phase += rng.standard_normal(self._shape, dtype=np.float32) * np.float32(
            np.sqrt(molecules) * molecule
        )
        return phase

    def _contrast(self, phase: Floats) -> NDArray[np.complex64]:
        """Spectrum of the relative contrast that the microscope makes of `phase`, no mean."""
        spec, s = self.spec, self._s
        transfer = optics.contrast_transfer(s, self.defocus, spec.voltage, spec.cs, spec.amplitude_contrast)
        transfer *= np.float32(2) * np.exp(np.float32(-_ENVELOPE_B / 4) * s * s)
        spectrum: NDArray[np.complex64] = fft.rfft2(phase) * transfer
        spectrum[0, 0] = 0
        return spectrum

    def _moved(self, still: Floats, index: int) -> Floats:
        """The field of view of frame `index`: `still`, moved by the drift, without its margin."""
        size, margin = self.spec.size, self._margin
        edges = np.linspace(0, size, _MESH + 1).astype(int)
        fraction = edges / size - 0.5
        v, u = np.meshgrid(fraction, fraction, indexing="ij")
        local_x, local_y = self.drift.local_at(u, v, index)
        x = margin + edges[None, :] - (self.drift.x[index] + local_x) / self.spec.pixel_size
        y = margin + edges[:, None] - (self.drift.y[index] + local_y) / self.spec.pixel_size
        mesh = []
        for j in range(_MESH):
            for i in range(_MESH):
                corners = [(j, i), (j + 1, i), (j + 1, i + 1), (j, i + 1)]
                quad = tuple(float(axis[c]) for c in corners for axis in (x, y))
                mesh.append(((int(edges[i]), int(edges[j]), int(edges[i + 1]), int(edges[j + 1])), quad))
        image = Image.fromarray(still)
        moved = image.transform((size, size), Image.Transform.MESH, mesh, Image.Resampling.BICUBIC)
        return np.array(moved, dtype=np.float32)


def _places(rng: np.random.Generator, side: int, spacing: float) -> list[tuple[int, int]]:
    """Random points of a square, no two nearer than `spacing`; about half of what would fit at best."""
    places: list[tuple[int, int]] = []
    for x, y in rng.integers(0, side, (int(4 * (side / spacing) ** 2) + 1, 2)):
        if all((x - a) ** 2 + (y - b) ** 2 >= spacing**2 for a, b in places):
            places.append((int(x), int(y)))
    return places


def _write_whole(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` fill a file beside `path`, then name it. Raises InvalidInput if the disk refuses."""
    part = path.with_name(f".{path.name}.part")
    try:
        write(part)
        part.replace(path)
    except OSError as e:
        raise InvalidInput(
            f"{path} cannot be written: {e.strerror or e}. Free some space or choose another folder."
        ) from e
    finally:
        part.unlink(missing_ok=True)


def _write_image(path: Path, image: Floats, pixel_size: float) -> None:
    with mrcfile.new(path) as mrc:
        mrc.set_data(image)
        mrc.voxel_size = pixel_size


def _write_movie(path: Path, movie: Movie, tell: Callable[[int], None]) -> None:
    spec = movie.spec
    few = spec.dose_per_frame * spec.pixel_size**2 < 20  # e per pixel: no count reaches 127
    if spec.format == "tiff":
        per_cm = (round(1e8 / spec.pixel_size), 1)
        with tifffile.TiffWriter(path) as tiff:
            for n in range(spec.frames):
                tiff.write(
                    _clipped(movie.frame(n), np.uint8 if few else np.uint16)[::-1],
                    compression="lzw",
                    photometric="minisblack",
                    resolution=(per_cm, per_cm),
                    resolutionunit="CENTIMETER",
                    software="Scipion Cloud example",
                    metadata=None,
                )
                tell(n + 1)
        return
    # MRC mode 0 is signed; mode 6 holds larger counts.
    shape = (spec.frames, spec.size, spec.size)
    with mrcfile.new_mmap(path, shape, mrc_mode=0 if few else 6) as mrc:
        mrc.set_image_stack()
        mrc.voxel_size = spec.pixel_size
        for n in range(spec.frames):
            mrc.data[n] = _clipped(movie.frame(n), mrc.data.dtype.type)
            tell(n + 1)
        mrc.update_header_stats()


def _clipped(counts: NDArray[np.uint16], kind: type[np.integer]) -> NDArray[np.integer]:
    return np.minimum(counts, np.iinfo(kind).max).astype(kind)
