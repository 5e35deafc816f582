"""The drift of a movie as a drawing: pure numbers for the SVG of a page."""

from dataclasses import dataclass

import numpy as np

from scipion_cloud.tools.movies.results import Motion

SIDE = 100.0
"""Side of the square that the drawing fills, in its own units."""
_MARGIN = 6.0
_LEAST_A = 2.0  # a still specimen is not blown up further than this


@dataclass(frozen=True)
class Tick:
    """A tick of an axis: its place in the drawing and its value in A."""

    at: float
    label: str


@dataclass(frozen=True)
class Arrow:
    """How one patch moved from the first frame to the last, in units of the drawing."""

    x1: float
    y1: float
    x2: float
    y2: float
    length: float  # A


@dataclass(frozen=True)
class Trajectory:
    """The path of the specimen in a square of SIDE x SIDE, y down as in SVG; both axes have one scale.

    path: data of an SVG path through the frames. points: (x, y) of each frame. start, end: first and last.
    """

    path: str
    points: tuple[tuple[float, float], ...]
    start: tuple[float, float]
    end: tuple[float, float]
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]


def trajectory_points(motion: Motion) -> Trajectory | None:
    """The drift as a drawing, or None for no data."""
    if not len(motion.x):
        return None
    low = np.array([motion.x.min(), motion.y.min()])
    high = np.array([motion.x.max(), motion.y.max()])
    extent = max(float((high - low).max()), _LEAST_A)
    centre = (low + high) / 2
    scale = (SIDE - 2 * _MARGIN) / extent
    xs = SIDE / 2 + (motion.x - centre[0]) * scale
    ys = SIDE / 2 - (motion.y - centre[1]) * scale
    points = tuple((round(float(x), 2), round(float(y), 2)) for x, y in zip(xs, ys, strict=True))
    step = _step(extent)

    def ticks(middle: float, sign: int) -> tuple[Tick, ...]:
        reach = SIDE / 2 / scale
        first, last = np.ceil((middle - reach) / step), np.floor((middle + reach) / step)
        values = np.arange(first, last + 1) * step
        return tuple(
            Tick(round(float(SIDE / 2 + sign * (value - middle) * scale), 2), f"{value + 0.0:g}")
            for value in values
        )

    return Trajectory(
        "M" + " L".join(f"{x:g},{y:g}" for x, y in points),
        points,
        points[0],
        points[-1],
        ticks(float(centre[0]), 1),
        ticks(float(centre[1]), -1),
    )


def patch_arrows(motion: Motion, longest: float = 0.5) -> tuple[tuple[Arrow, ...], float]:
    """Arrows of the local motion over the field, and how many times it is drawn larger than life.

    The longer side of the field has length SIDE; the longest arrow takes `longest` of the distance between
    neighbouring patches. Empty if there is no local model.
    """
    local = motion.local
    if local is None:
        return (), 1.0
    field = max(motion.width, motion.height)
    dx, dy = local.x[-1], local.y[-1]
    most = float(np.hypot(dx, dy).max())
    spacing = min(motion.width / len(local.u), motion.height / len(local.v))
    larger = longest * spacing / most if most > 0 else 1.0
    unit = SIDE / field
    arrows = []
    for row, v in enumerate(local.v):
        for column, u in enumerate(local.u):
            x, y = u * motion.width * unit, (1 - v) * motion.height * unit
            mx, my = float(dx[row, column]), float(dy[row, column])
            ends = (x, y, x + mx * larger * unit, y - my * larger * unit)
            x1, y1, x2, y2 = (round(float(end), 2) for end in ends)
            arrows.append(Arrow(x1, y1, x2, y2, round(float(np.hypot(mx, my)), 2)))
    return tuple(arrows), larger


def _step(extent: float) -> float:
    """A round distance of ticks that gives about four of them over `extent`."""
    power = 10.0 ** np.floor(np.log10(extent / 4))
    return float(next(factor * power for factor in (1, 2, 5, 10) if factor * power >= extent / 5))
