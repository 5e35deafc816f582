"""A known drift: large in the first frames, smooth, and a little different over the field of view."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Doubles = NDArray[np.float64]

_BURST_FRAMES = 3.0  # the specimen settles within a few frames after the beam comes on


@dataclass(frozen=True)
class Drift:
    """Where the specimen is in each frame, in A from where it was in the first; x to the right, y up.

    The whole field moves by `x`, `y` (frames,). A point at (u, v), fractions of the field from -0.5 to 0.5,
    moves in addition by `settled[t] * terms(u, v) @ local[axis]`; that addition has no mean over the field.
    """

    x: Doubles
    y: Doubles
    settled: Doubles
    local: Doubles  # (2, 5)

    def local_at(self, u: Doubles, v: Doubles, frame: int) -> tuple[Doubles, Doubles]:
        """The local addition (A) at the points (u, v) in `frame` (from 0)."""
        terms = _terms(u, v)
        return self.settled[frame] * (terms @ self.local[0]), self.settled[frame] * (terms @ self.local[1])


def make_drift(rng: np.random.Generator, frames: int, total: tuple[float, float], local: float) -> Drift:
    """A random drift over a distance within `total` (A); corners move by up to `local` A in addition."""
    t = np.arange(frames) / max(frames - 1, 1)
    settled = 1 - np.exp(-np.arange(frames) / _BURST_FRAMES)
    settled /= settled[-1] or 1
    distance = rng.uniform(*total)
    angle = rng.uniform(0, 2 * np.pi)
    bend = angle + rng.uniform(-1, 1) + rng.uniform(-0.6, 0.6) * t
    along = 0.6 * distance * settled
    creep = 0.4 * distance * t
    coefficients = rng.normal(size=(2, 5))
    corners = _terms(np.array([-0.5, 0.5, -0.5, 0.5]), np.array([-0.5, -0.5, 0.5, 0.5]))
    largest = np.abs(corners @ coefficients.T).max()
    return Drift(
        along * np.cos(angle) + creep * np.cos(bend),
        along * np.sin(angle) + creep * np.sin(bend),
        settled,
        coefficients * (local / largest),
    )


def _terms(u: Doubles, v: Doubles) -> Doubles:
    return np.stack([u, v, u * u - 1 / 12, v * v - 1 / 12, u * v], axis=-1)
