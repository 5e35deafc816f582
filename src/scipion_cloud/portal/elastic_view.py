"""Elastic nodes in the words and numbers of their page. No I/O."""

from dataclasses import dataclass
from datetime import datetime

from scipion_cloud.cluster.history import Event, NodesNow

WIDTH, HEIGHT = 640.0, 120.0  # units of the drawing
EVENTS = 8


@dataclass(frozen=True)
class ElasticView:
    """How nodes came and went, and what that saved."""

    there: str  # path of the nodes that were there
    at_work: str  # path of those of them that had jobs
    most: int  # nodes that were there at a time
    began: datetime
    days: str  # how long ago that is, in words
    used: float  # h of nodes
    busy: float
    saved: float
    price: float  # of a node, an hour
    cost: float
    cost_saved: float
    events: tuple[Event, ...]

    @classmethod
    def of(cls, seen: NodesNow | None) -> "ElasticView | None":
        """From the history; None if there is none yet."""
        if seen is None or seen.began is None or not seen.timeline:
            return None
        most = max(1, *(point.on for point in seen.timeline))
        span = max(1.0, (seen.until - seen.began).total_seconds())
        times = [WIDTH * (point.at - seen.began).total_seconds() / span for point in seen.timeline]
        hours = span / 3600
        return cls(
            there=_steps(times, [point.on / most for point in seen.timeline]),
            at_work=_steps(times, [point.busy / most for point in seen.timeline]),
            most=most,
            began=seen.began,
            days=f"{hours / 24:.0f} days" if hours >= 48 else "day" if hours >= 24 else f"{hours:.0f} h",
            used=seen.hours_used,
            busy=seen.hours_busy,
            saved=seen.hours_saved,
            price=seen.price_per_hour,
            cost=seen.cost,
            cost_saved=seen.saved,
            events=seen.events[:EVENTS],
        )


def _steps(times: list[float], shares: list[float]) -> str:
    """An area whose height is `shares[i]` of the drawing's from `times[i]` to the next time."""
    path = [f"M0 {HEIGHT:g}"]
    for start, end, share in zip(times, [*times[1:], WIDTH], shares, strict=True):
        top = HEIGHT - share * (HEIGHT - 4)
        path.append(f"L{start:.1f} {top:.1f} L{end:.1f} {top:.1f}")
    return " ".join([*path, f"L{WIDTH:g} {HEIGHT:g}Z"])
