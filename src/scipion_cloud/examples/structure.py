"""Projections of a real structure: the 70S ribosome of PDB entry 4V5A (see data/README.md)."""

from functools import lru_cache
from importlib.resources import files

import numpy as np
from numpy.typing import NDArray
from scipy import fft
from scipy.spatial.transform import Rotation

from scipion_cloud.examples.optics import Floats, frequencies

DIAMETER = 300.0
"""A sphere of this diameter (A) holds the ribosome."""

VOLT_A2 = 47.878
"""Projected potential (V A2) of a scatterer of length 1 A: h^2 / (2 pi m e)."""

# Electron scattering lengths at zero angle (A) and displaced solvent (A3) of C, N, O, P, S, each with the
# hydrogen that the structure leaves out: 1.1 for a carbon, 0.5 for a nitrogen on average.
_H_LENGTH, _H_VOLUME = 0.529, 5.15
_HYDROGENS = np.array([1.1, 0.5, 0.0, 0.0, 0.0])
_LENGTHS = np.array([2.509, 2.211, 1.983, 5.488, 5.161]) + _H_LENGTH * _HYDROGENS
_VOLUMES = np.array([16.44, 2.49, 9.13, 5.73, 19.86]) + _H_VOLUME * _HYDROGENS
_B_ATOM = 40.0  # A2
_B_SOLVENT = 90.0  # A2: displaced solvent has no sharp atoms

WATER_DENSITY = 0.0314
"""Molecules per A3 in vitreous ice."""
WATER_LENGTH = 1.983 + 2 * _H_LENGTH
"""Scattering length (A) of a water molecule."""


@lru_cache(maxsize=1)
def _atoms() -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """Coordinates (A) about their centre, (n, 3), and the index of each atom's element, (n,)."""
    with (files(__package__) / "data" / "ribosome-70S.npz").open("rb") as stream, np.load(stream) as data:
        xyz = data["xyz"].T.astype(np.float32) * np.float32(0.25)
        element = data["element"]
    return xyz - (xyz.max(0) + xyz.min(0)) / 2, element


def orientations(count: int, seed: int) -> Rotation:
    """`count` random orientations: each takes the structure's axes to the image's x, y and the beam."""
    return Rotation.from_quat(np.random.default_rng([seed, count]).normal(size=(count, 4)))


@lru_cache(maxsize=4)
def projections(count: int, pixel_size: float, seed: int) -> list[Floats]:
    """Projected potentials (V A) of the ribosome, less the ice that it displaces, at `orientations`.

    Returns `count` square images of DIAMETER a side.
    """
    xyz, element = _atoms()
    turns = orientations(count, seed).as_matrix().astype(np.float32)
    side = int(fft.next_fast_len(int(np.ceil(DIAMETER / pixel_size)) + 8, real=True))
    s = frequencies((side, side), pixel_size)
    # The atoms are spread over four pixels with bilinear weights; this takes that blur out again.
    sharpen = 1 / (np.sinc(np.fft.fftfreq(side))[:, None] * np.sinc(np.fft.rfftfreq(side))[None, :]) ** 2
    area = pixel_size**2
    ice = WATER_DENSITY * WATER_LENGTH
    of_atoms = (sharpen * np.exp(-_B_ATOM / 4 * s**2) * VOLT_A2 / area).astype(np.float32)
    of_solvent = (sharpen * np.exp(-_B_SOLVENT / 4 * s**2) * VOLT_A2 * ice / area).astype(np.float32)
    images = []
    for turn in turns:
        where = xyz @ turn[:2].T / np.float32(pixel_size) + np.float32(side / 2)
        atoms = fft.rfft2(_spread(where, _LENGTHS[element], side))
        solvent = fft.rfft2(_spread(where, _VOLUMES[element], side))
        images.append(fft.irfft2(atoms * of_atoms - solvent * of_solvent, s=(side, side)))
    return images


def _spread(where: Floats, weights: NDArray[np.float64], side: int) -> Floats:
    """Add point weights at `where` (n, 2; x and y in pixels) to an image of `side` x `side` pixels."""
    corner = np.floor(where).astype(np.intp)
    x, y = (where - corner).T
    first = corner[:, 1] * side + corner[:, 0]
    image = np.zeros(side * side)
    for dy, wy in ((0, 1 - y), (1, y)):
        for dx, wx in ((0, 1 - x), (1, x)):
            image += np.bincount(first + dy * side + dx, weights * wy * wx, minlength=side * side)
    return image.reshape(side, side).astype(np.float32)
