"""The plot of a movie's global shifts, drawn once.

The RELION plugin's own plot is drawn again at each change of its axes: about 0.3 s of CPU per movie, which on
small movies is as much as the alignment itself. This one shows the same in a fraction of the time.
"""

from math import ceil

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

_SIZE = (6, 4)  # inches at 100 dpi, as the plugin's
_LABELS = 10  # frames with a number beside them


class ShiftPlot:
    """Stands in for Scipion's Plotter, as far as the RELION plugin uses it."""

    def __init__(self, shifts_x, shifts_y, first: int, pixel_size: float) -> None:
        """Plot shifts in pixels of the movie, frame `first` being the first; `pixel_size` in A."""
        self.figure = Figure(figsize=_SIZE, dpi=100)
        FigureCanvasAgg(self.figure)
        axes = self.figure.add_axes((0.13, 0.14, 0.73, 0.66))
        axes.plot(shifts_x, shifts_y, "-", color="tab:blue")
        axes.plot(shifts_x, shifts_y, "o", color="gold", markersize=5)
        axes.plot(shifts_x[:1], shifts_y[:1], "ro", markersize=9)
        step = max(1, ceil(len(shifts_x) / _LABELS))
        for i in range(0, len(shifts_x), step):
            axes.annotate(str(first + i), (shifts_x[i], shifts_y[i]), (3, 3), textcoords="offset points")
        axes.locator_params(nbins=5)
        axes.grid(True, alpha=0.4)
        axes.set_xlabel("Shift x (px)")
        axes.set_ylabel("Shift y (px)")
        scale = (lambda px: px * pixel_size, lambda angstrom: angstrom / pixel_size)
        axes.secondary_xaxis("top", functions=scale).set_xlabel("Shift x (Å)")
        axes.secondary_yaxis("right", functions=scale).set_ylabel("Shift y (Å)")
        self.figure.suptitle("Global frame alignment", fontsize=11)

    def savefig(self, file: str) -> None:
        """Write the plot as PNG."""
        self.figure.savefig(file)

    def close(self) -> None:
        """Nothing is kept open."""
