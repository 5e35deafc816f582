"""The plot of a movie's global shifts, drawn in milliseconds.

The RELION plugin draws its own with matplotlib, again at each change of its axes: 0.3 s of CPU per movie and
more, which on small movies is a tenth of the alignment itself. This one shows the same.
"""

import math

from PIL import Image, ImageDraw, ImageFont

_SIZE = (600, 400)  # pixels, as the plugin's
_BOX = (72, 64, 528, 336)  # left, top, right, bottom of the axes
_LABELS = 10  # frames with a number beside them
_INK, _GRID, _LINE, _DOT, _START = "#202020", "#d8d8d8", "#1f77b4", "#e0a800", "#d62728"


class ShiftPlot:
    """Stands in for Scipion's Plotter, as far as the RELION plugin uses it."""

    def __init__(self, shifts_x, shifts_y, first: int, pixel_size: float) -> None:
        """Plot shifts in pixels of the movie, frame `first` being the first; `pixel_size` in A."""
        self._image = Image.new("RGB", _SIZE, "white")
        self._draw = ImageDraw.Draw(self._image)
        self._font = ImageFont.load_default(size=12)
        across, up = _limits(shifts_x), _limits(shifts_y)
        left, top, right, bottom = _BOX

        def place(x: float, y: float) -> tuple:
            return (
                left + (x - across[0]) / (across[1] - across[0]) * (right - left),
                bottom - (y - up[0]) / (up[1] - up[0]) * (bottom - top),
            )

        for value in _ticks(*across):
            x = place(value, up[0])[0]
            self._draw.line((x, top, x, bottom), _GRID)
            self._text((x, bottom + 6), f"{value:g}", "mt")
        for value in _ticks(*up):
            y = place(across[0], value)[1]
            self._draw.line((left, y, right, y), _GRID)
            self._text((left - 6, y), f"{value:g}", "rm")
        for value in _ticks(across[0] * pixel_size, across[1] * pixel_size):
            self._text((place(value / pixel_size, 0)[0], top - 6), f"{value:g}", "mb")
        for value in _ticks(up[0] * pixel_size, up[1] * pixel_size):
            self._text((right + 6, place(0, value / pixel_size)[1]), f"{value:g}", "lm")
        self._draw.rectangle(_BOX, outline=_INK)
        self._text((300, 372), "Shift x (px)", "mm")
        self._text((300, 34), "Shift x (A)", "mm")
        self._text((300, 12), "Global frame alignment", "mm")
        self._text((4, top - 20), "Shift y (px)", "lm")
        self._text((596, top - 20), "Shift y (A)", "rm")
        self._track([place(x, y) for x, y in zip(shifts_x, shifts_y, strict=True)], first)

    def _track(self, points: list, first: int) -> None:
        if len(points) > 1:
            self._draw.line(points, _LINE, width=2, joint="curve")
        for i, (x, y) in enumerate(points):
            radius, colour = (5, _START) if i == 0 else (3, _DOT)
            self._draw.ellipse((x - radius, y - radius, x + radius, y + radius), colour)
        for i in range(0, len(points), max(1, math.ceil(len(points) / _LABELS))):
            self._text((points[i][0] + 5, points[i][1] - 5), str(first + i), "lb")

    def _text(self, at: tuple, words: str, anchor: str) -> None:
        self._draw.text(at, words, _INK, self._font, anchor)

    def savefig(self, file: str) -> None:
        """Write the plot as PNG."""
        self._image.save(file, "PNG", compress_level=1)

    def close(self) -> None:
        """Nothing is kept open."""


def _limits(values) -> tuple:
    """The range of the values with a margin; a still specimen is not blown up without end."""
    low, high = min(values, default=0.0), max(values, default=0.0)
    margin = max((high - low) * 0.06, 0.05)
    return low - margin, high + margin


def _ticks(low: float, high: float) -> list:
    """Round values between the limits, about five."""
    raw = (high - low) / 5
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(power * k for k in (1, 2, 5, 10) if power * k >= raw * 0.999)
    return [round(i * step, 10) for i in range(math.ceil(low / step), math.floor(high / step) + 1)]
