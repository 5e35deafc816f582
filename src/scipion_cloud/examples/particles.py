"""Single particles as RELION 3.1 reads them: a stack, and a STAR file with the true orientations.

Matter is white, as RELION wants it; the background has mean 0 and standard deviation 1.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import mrcfile
import numpy as np
from numpy.typing import NDArray
from scipy import fft
from scipy.ndimage import shift
from scipy.spatial.transform import Rotation

from scipion_cloud.errors import InvalidInput
from scipion_cloud.examples import optics, structure
from scipion_cloud.examples.optics import Floats

Report = Callable[[int, int], None]
STACK, STAR = "particles.mrcs", "particles.star"
_COLUMNS = (
    "rlnImageName", "rlnMicrographName", "rlnCoordinateX", "rlnCoordinateY", "rlnAngleRot", "rlnAngleTilt",
    "rlnAnglePsi", "rlnOriginXAngst", "rlnOriginYAngst", "rlnDefocusU", "rlnDefocusV", "rlnDefocusAngle",
    "rlnOpticsGroup", "rlnRandomSubset",
)  # fmt: skip
_PER_MICROGRAPH = 20  # particles
_VIEWS = 32  # projections, each used in four in-plane rotations


@dataclass(frozen=True)
class ParticleSpec:
    """How the particles are taken. Raises InvalidInput where a value makes no sense."""

    pixel_size: float = 6.0  # A
    snr: float = 0.1  # variance of the signal inside the particle to that of the noise
    offset: float = 6.0  # A; standard deviation of a particle's place in its box
    defocus: tuple[float, float] = (12_000.0, 28_000.0)  # A, underfocus; drawn for each micrograph
    voltage: float = 300.0  # kV
    cs: float = 2.7  # mm
    amplitude_contrast: float = 0.1

    def __post_init__(self) -> None:
        for name, low, high in (("pixel_size", 1, 20), ("snr", 1e-4, 1e4), ("offset", 0, 50)):
            value = getattr(self, name)
            if not low <= value <= high:
                raise InvalidInput(
                    f"{name} of example particles is {value}; it must be from {low} to {high}."
                )


def write_particles(
    folder: Path,
    number: int,
    spec: ParticleSpec | None = None,
    seed: int = 1,
    report: Report | None = None,
) -> Path:
    """Write `number` ribosomes as `particles.mrcs` and `particles.star` into `folder` (made if missing).

    The STAR file says where each particle is and how it is turned; it appears last, when all is there.
    The same spec, number and seed give the same files. Returns the STAR file's path. Raises InvalidInput.
    """
    spec = spec or ParticleSpec()
    if number < 2:
        raise InvalidInput("Ask for two example particles at least.")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return _write(folder, number, spec, seed, report)
    except OSError as e:
        raise InvalidInput(f"Particles cannot be written to {folder}: {e.strerror or e}.") from e


def _write(folder: Path, number: int, spec: ParticleSpec, seed: int, report: Report | None) -> Path:
    rng = np.random.default_rng([seed, number])
    count = min(number, _VIEWS)
    views = structure.projections(count, spec.pixel_size, seed)
    turns = structure.orientations(count, seed)
    box = views[0].shape[0]
    s = optics.frequencies((box, box), spec.pixel_size)
    inside = _disc(box, structure.DIAMETER / 2 / spec.pixel_size)
    noise = float(np.std([v[inside] for v in views])) / spec.snr**0.5
    rows, defocus = [], 0.0
    part = folder / f".{STACK}.part"
    with mrcfile.new_mmap(part, (number, box, box), mrc_mode=2, overwrite=True) as mrc:
        mrc.set_image_stack()
        mrc.voxel_size = spec.pixel_size
        for n in range(number):
            which, quarters = n % count, n // count % 4
            view = _quarter_turned(views[which], quarters)
            turn = Rotation.from_euler("z", -90 * quarters, degrees=True) * turns[which]
            # passive ZYZ angles of the inverse turn, as RELION has them
            angles = turn.inv().as_euler("ZYZ", degrees=True)
            if n % _PER_MICROGRAPH == 0:
                defocus = float(rng.uniform(*spec.defocus))
            x, y = rng.normal(scale=spec.offset, size=2)
            moved = shift(view, (y / spec.pixel_size, x / spec.pixel_size), order=1)
            # white: the sign of the contrast is turned, as extraction does
            transfer = -optics.contrast_transfer(s, defocus, spec.voltage, spec.cs, spec.amplitude_contrast)
            seen = fft.irfft2(fft.rfft2(moved) * transfer, s=(box, box))
            image = (seen + rng.normal(scale=noise, size=seen.shape)).astype(np.float32)
            mrc.data[n] = (image - image[~inside].mean()) / image[~inside].std()
            rows.append(_row(n, angles, (x, y), defocus, rng))
            if report:
                report(n + 1, number)
        mrc.update_header_stats()
    part.replace(folder / STACK)
    text = _optics_table(spec, box) + _table("particles", _COLUMNS, rows)
    part = folder / f".{STAR}.part"
    part.write_text(text)
    return part.replace(folder / STAR)


def _quarter_turned(view: Floats, quarters: int) -> Floats:
    """Turned by -90 degrees (y up) about the pixel in the middle, so many times."""
    for _ in range(quarters):
        view = np.roll(np.rot90(view), 1 - view.shape[0] % 2, axis=0)
    return view


def _row(
    n: int, angles: NDArray[np.float64], at: tuple[float, float], defocus: float, rng: np.random.Generator
) -> tuple[str, ...]:
    place = rng.uniform(100, 3900, size=2)  # px, in a micrograph that is not there
    numbers = (*place, *angles, -at[0], -at[1], defocus, defocus, 0.0)  # RELION notes the way back
    micrograph = f"micrograph_{n // _PER_MICROGRAPH + 1:03d}.mrc"
    return (f"{n + 1:06d}@{STACK}", micrograph, *(f"{v:.4f}" for v in numbers), "1", str(n % 2 + 1))


def _optics_table(spec: ParticleSpec, box: int) -> str:
    columns = {
        "rlnOpticsGroupName": "opticsGroup1", "rlnOpticsGroup": "1",
        "rlnMicrographOriginalPixelSize": f"{spec.pixel_size:.4f}", "rlnVoltage": f"{spec.voltage:.1f}",
        "rlnSphericalAberration": f"{spec.cs:.2f}", "rlnAmplitudeContrast": f"{spec.amplitude_contrast:.3f}",
        "rlnImagePixelSize": f"{spec.pixel_size:.4f}", "rlnImageSize": str(box),
        "rlnImageDimensionality": "2",
    }  # fmt: skip
    return _table("optics", tuple(columns), [tuple(columns.values())])


def _table(name: str, columns: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    head = "".join(f"_{column} #{i}\n" for i, column in enumerate(columns, 1))
    return f"\ndata_{name}\n\nloop_\n{head}" + "".join(f"{' '.join(row)}\n" for row in rows) + "\n"


def _disc(box: int, radius: float) -> NDArray[np.bool_]:
    y, x = np.indices((box, box)) - box / 2
    found: NDArray[np.bool_] = np.hypot(x, y) < radius
    return found
