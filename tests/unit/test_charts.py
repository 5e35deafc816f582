"""Charts: values land where they belong in the drawing."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scipion_cloud.model import MovieState
from scipion_cloud.portal.charts import drift_chart, local_chart, motion_trend, nice_step
from scipion_cloud.records.models import Movie

coordinates = st.floats(-500, 500, allow_nan=False).map(lambda value: round(value, 3))


@given(st.lists(st.tuples(coordinates, coordinates), min_size=1, max_size=60))
def test_drift_fills_its_square_on_one_scale(drift: list[tuple[float, float]]) -> None:
    chart = drift_chart(drift)
    assert len(chart.points) == len(drift)
    assert all(48 <= p.x <= 392 and 8 <= p.y <= 352 for p in chart.points)
    scale = 344 / (2 * 0.58 * max(*(max(c) - min(c) for c in zip(*drift, strict=True)), 0.5))
    for place, value in zip(chart.points, drift, strict=True):
        assert place.x - chart.start.x == pytest.approx((value[0] - drift[0][0]) * scale, abs=0.3)
        assert place.y - chart.start.y == pytest.approx(-(value[1] - drift[0][1]) * scale, abs=0.3)
    assert all(48 <= tick.at <= 392 for tick in chart.x_ticks)
    assert chart.end.label.startswith(f"Frame {len(drift)}:")


@given(st.floats(1e-3, 1e6))
def test_steps_are_round_numbers(span: float) -> None:
    step = nice_step(span)
    assert round(step / 10 ** math.floor(math.log10(step) + 1e-9), 6) in (1, 2, 5)
    assert 2 <= span / step <= 5.01


def test_arrows_point_up_where_the_patch_went_up() -> None:
    chart = local_chart([[0.25, 0.75, 0.0, 3.0], [0.5, 0.5, -1.0, 0.0]])
    up, left = chart.arrows
    assert (up.x1, up.y1) == (100, 100)
    assert up.x2 == up.x1
    assert up.y2 == up.y1 - 60  # the longest, enlarged
    assert left.x2 == left.x1 - 20
    assert chart.longest == 3
    assert local_chart([]).longest == 0


def test_the_trend_leaves_out_what_has_no_number() -> None:
    done = MovieState.DONE.value
    movies = [
        Movie(index=1, name="a", state=done, total=10.0, early=4.0, late=6.0),
        Movie(index=2, name="b", state=done, total=None),
        Movie(index=3, name="c"),
        Movie(index=4, name="d", state=done, total=20.0, early=None, late=1.0),
    ]
    chart = motion_trend(movies)
    assert [p.link for p in chart.total] == [1, 4]
    assert [p.link for p in chart.early] == [1]
    assert chart.total[0].y > chart.total[1].y  # more motion is higher up
    assert chart.y_ticks[0].label == "0"
