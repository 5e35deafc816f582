"""Sizes and times as people say them."""

_UNITS = (("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3))


def size_words(size: float) -> str:
    """Bytes, as `1.2 GB`."""
    unit, scale = next(((u, s) for u, s in _UNITS if size >= s), ("bytes", 1.0))
    value = size / scale
    return f"{value:.0f} {unit}" if value >= 10 or scale == 1.0 else f"{value:.1f} {unit}"


def time_words(seconds: float) -> str:
    """A time, as `3 min`."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"
