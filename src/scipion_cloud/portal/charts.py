"""Charts as plain numbers for SVG templates: where the points, ticks and lines go. No I/O."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from scipion_cloud.model import MovieState
from scipion_cloud.records.models import Movie


@dataclass(frozen=True)
class Tick:
    """A mark on an axis: its place in the drawing and what it says."""

    at: float
    label: str


@dataclass(frozen=True)
class Point:
    """A point of a chart in drawing units, with the words that tell its values."""

    x: float
    y: float
    label: str
    link: int = 0


@dataclass(frozen=True)
class DriftChart:
    """A trajectory in a square of 400 x 400 units, both axes in A on the same scale."""

    points: tuple[Point, ...]
    path: str
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]

    @property
    def start(self) -> Point:
        """The first frame."""
        return self.points[0]

    @property
    def end(self) -> Point:
        """The last frame."""
        return self.points[-1]


@dataclass(frozen=True)
class Arrow:
    """A patch's own motion, as a line in drawing units."""

    x1: float
    y1: float
    x2: float
    y2: float


@dataclass(frozen=True)
class LocalChart:
    """Arrows over the micrograph in a square of 400 x 400 units, drawn `scale` times longer than true."""

    arrows: tuple[Arrow, ...]
    longest: float  # A


@dataclass(frozen=True)
class TrendChart:
    """Motion of all movies in order, 1000 x 180 units."""

    total: tuple[Point, ...]
    early: tuple[Point, ...]
    late: tuple[Point, ...]
    y_ticks: tuple[Tick, ...]


def nice_step(span: float, ticks: int = 5) -> float:
    """A step of 1, 2 or 5 times a power of ten that divides `span` into about `ticks` parts."""
    raw = max(span, 1e-6) / ticks
    power = 10.0 ** math.floor(math.log10(raw))
    return next(power * k for k in (1, 2, 5, 10) if power * k >= raw * 0.999)


def _ticks(low: float, high: float, place: "Scale") -> tuple[Tick, ...]:
    step = nice_step(high - low)
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return tuple(Tick(round(place(i * step), 1), f"{i * step:g}") for i in range(first, last + 1))


@dataclass(frozen=True)
class Scale:
    """A linear map from values to drawing units."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        """The place of a value."""
        return self.start + (value - self.low) / (self.high - self.low) * (self.end - self.start)


def drift_chart(drift: Sequence[Sequence[float]]) -> DriftChart:
    """The trajectory of [[x, y], ...] in A, one pair a frame, on one scale, so that its shape is true."""
    xs, ys = [p[0] for p in drift], [p[1] for p in drift]
    half = max(max(xs) - min(xs), max(ys) - min(ys), 0.5) * 0.58
    cx, cy = (max(xs) + min(xs)) / 2, (max(ys) + min(ys)) / 2
    across, up = Scale(cx - half, cx + half, 48, 392), Scale(cy - half, cy + half, 352, 8)
    points = tuple(
        Point(round(across(x), 1), round(up(y), 1), f"Frame {i}: {x:.2f}, {y:.2f} Å")
        for i, (x, y) in enumerate(zip(xs, ys, strict=True), start=1)
    )
    return DriftChart(
        points=points,
        path=_path(points),
        x_ticks=_ticks(across.low, across.high, across),
        y_ticks=_ticks(up.low, up.high, up),
    )


def local_chart(local: Iterable[Sequence[float]]) -> LocalChart:
    """Arrows for [[x, y, dx, dy], ...]: place as a fraction from the lower left, motion in A."""
    rows = list(local)
    longest = max((math.hypot(r[2], r[3]) for r in rows), default=0.0)
    scale = 60 / longest if longest else 0.0
    arrows = tuple(
        Arrow(
            round(400 * x, 1),
            round(400 * (1 - y), 1),
            round(400 * x + dx * scale, 1),
            round(400 * (1 - y) - dy * scale, 1),
        )
        for x, y, dx, dy in rows
    )
    return LocalChart(arrows, longest)


def motion_trend(movies: Sequence[Movie]) -> TrendChart:
    """Total, early and late motion of the finished movies, in the order of the set."""
    done = [m for m in movies if m.state == MovieState.DONE and m.total is not None]
    highest = max((m.total or 0 for m in done), default=1.0) or 1.0
    across = Scale(1, max(m.index for m in movies) + 1e-6, 46, 990)
    up = Scale(0, highest * 1.08, 158, 8)

    def series(name: str) -> tuple[Point, ...]:
        return tuple(
            Point(round(across(m.index), 1), round(up(value), 1), f"{m.name}: {value:.1f} Å", m.index)
            for m in done
            if (value := getattr(m, name)) is not None
        )

    return TrendChart(series("total"), series("early"), series("late"), _ticks(0, up.high, up))


def _path(points: Sequence[Point]) -> str:
    return "M" + " L".join(f"{p.x} {p.y}" for p in points)
