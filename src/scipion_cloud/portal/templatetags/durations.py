"""Times as people say them."""

from datetime import datetime

from django import template
from django.utils import timezone

register = template.Library()


@register.filter
def duration(seconds: float) -> str:
    """`45 s`, `3 min`, `2 h 10 min`, `6 d 3 h`."""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    minutes = round(seconds / 60)
    if minutes < 90:
        return f"{minutes} min"
    if minutes < 48 * 60:
        return _two(minutes // 60, "h", minutes % 60, "min")
    hours = round(minutes / 60)
    return _two(hours // 24, "d", hours % 24, "h")


def _two(big: int, unit: str, small: int, part: str) -> str:
    return f"{big} {unit} {small} {part}" if small else f"{big} {unit}"


@register.filter
def hours(value: float) -> str:
    """`0.4`, `12.5`, `1,204`."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}"


@register.filter
def duration_until(start: datetime, end: datetime | None) -> str:
    """How long from `start` to `end`, or until now."""
    return duration(((end or timezone.now()) - start).total_seconds())
