"""Times as people say them."""

from datetime import datetime

from django import template
from django.utils import timezone

register = template.Library()


@register.filter
def duration(seconds: float) -> str:
    """`45 s`, `3 min`, `2 h 10 min`."""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    minutes = round(seconds / 60)
    if minutes < 90:
        return f"{minutes} min"
    return f"{minutes // 60} h {minutes % 60} min"


@register.filter
def duration_until(start: datetime, end: datetime | None) -> str:
    """How long from `start` to `end`, or until now."""
    return duration(((end or timezone.now()) - start).total_seconds())
