"""A counting camera: pixels of unequal sensitivity, a few broken ones, and shot noise."""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy.special import pdtr

from scipion_cloud.examples.optics import Floats

_LEVELS, _STEPS = 256, 8192


@dataclass(frozen=True)
class Camera:
    """What each pixel makes of an electron.

    sensitivity: (rows, columns), counts per electron, 0 for a dead pixel.
    hot: flat indices of pixels that fire in every frame.
    """

    sensitivity: Floats
    hot: NDArray[np.intp]

    @property
    def gain(self) -> Floats:
        """The gain reference: it multiplies frames; its mean is 1 over live pixels, 0 marks dead ones."""
        alive = self.sensitivity > 0
        gain: Floats = np.divide(1, self.sensitivity, out=np.zeros_like(self.sensitivity), where=alive)
        gain /= gain[alive].mean()
        return gain


def ideal_camera(size: int) -> Camera:
    """A camera of `size` x `size` equal pixels."""
    return Camera(np.ones((size, size), np.float32), np.empty(0, np.intp))


def real_camera(rng: np.random.Generator, size: int) -> Camera:
    """A camera with columns, read-out blocks and single pixels of unequal sensitivity, dead and hot ones.

    The upper left quarter is a little less sensitive: a flipped or turned reference is seen to be wrong.
    """
    columns = rng.normal(1, 0.04, size)
    edges = np.linspace(0, size, 9).astype(int)
    blocks = np.repeat(np.repeat(rng.normal(1, 0.02, (8, 8)), np.diff(edges), 0), np.diff(edges), 1)
    sensitivity = columns[None, :] * blocks * rng.normal(1, 0.03, (size, size))
    sensitivity[size // 2 :, : size // 2] *= 0.93  # row 0 is at the bottom
    broken = rng.choice(size * size, max(4, size * size // 40_000), replace=False)
    dead, hot = np.array_split(broken, 2)
    sensitivity.flat[dead] = 0
    sensitivity[sensitivity > 0] /= sensitivity[sensitivity > 0].mean()
    return Camera(np.clip(sensitivity, 0, None).astype(np.float32), hot)


def count(rng: np.random.Generator, electrons: Floats, camera: Camera, mean: float) -> NDArray[np.uint16]:
    """Counts of one frame; `electrons` is the expected number in each pixel, `mean` about their mean.

    Poisson deviates from a table of 256 rates and 8192 steps of probability: five times quicker than
    drawing them one by one, with a mean that is right to 0.1 %.
    """
    rate = electrons * camera.sensitivity
    rate *= np.float32((_LEVELS - 1) / (3 * mean))
    np.clip(rate, 0, _LEVELS - 1, out=rate)
    rate += np.float32(0.5)
    index = rate.astype(np.int32)
    index *= _STEPS
    index += rng.integers(0, _STEPS, electrons.shape, dtype=np.uint16)
    counts = _poisson_table(mean).take(index, mode="clip")
    counts.flat[camera.hot] = np.uint16(min(40 * mean + 20, 60_000))
    return counts


@lru_cache(maxsize=1)
def _poisson_table(mean: float) -> NDArray[np.uint16]:
    """Quantiles of Poisson distributions, flat: for each of the rates from 0 to 3 * mean, _STEPS of them."""
    rates = np.linspace(0, 3 * mean, _LEVELS)
    most = int(3 * mean + 8 * np.sqrt(3 * mean) + 10)
    probability = (np.arange(_STEPS) + 0.5) / _STEPS
    rows = [np.searchsorted(pdtr(np.arange(most), rate), probability) for rate in rates]
    return np.concatenate(rows).astype(np.uint16)
