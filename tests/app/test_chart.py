"""Curves as SVG: round ticks, broken lines, points where they belong, words for those who cannot see them."""

import math
import xml.etree.ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app import chart
from app.chart import can_be_drawn, line_chart, linear_ticks, log_ticks

SVG = "{http://www.w3.org/2000/svg}"


def parse(svg: str) -> ET.Element:
    return ET.fromstring(svg.replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ', 1))


@pytest.mark.parametrize(
    ("low", "high", "ticks"),
    [
        (0.8, 0.96, [0.8, 0.85, 0.9, 0.95, 1.0]),  # (0.96 - 0.8) / 4 = 0.04, and the next round number is 0.05
        (0, 4, [0, 1, 2, 3, 4]),
        (-3, 12, [-5, 0, 5, 10, 15]),
        (1, 1, [0.9, 0.95, 1.0, 1.05, 1.1]),  # a constant gets room on both sides
    ],
)
def test_ticks_are_round(low, high, ticks):
    assert linear_ticks(low, high) == ticks


@pytest.mark.parametrize(("low", "high", "ticks"), [(0.002, 0.3, [0.001, 0.01, 0.1, 1]), (1, 1, [1, 10])])
def test_logarithmic_ticks_are_powers_of_ten(low, high, ticks):
    assert log_ticks(low, high) == ticks


@given(st.floats(-1e6, 1e6), st.floats(1e-6, 1e6))
def test_ticks_enclose_what_is_shown(low, width):
    ticks = linear_ticks(low, low + width)
    slack = 1e-6 * width + 1e-9 * abs(low)
    assert ticks[0] <= low + slack and ticks[-1] >= low + width - slack
    assert 3 <= len(ticks) <= 8


def test_points_stand_at_their_step_and_value():
    """Four steps, 0 to 4: the ticks are 0 to 4, so 1 stands a quarter of the way up; step 3 three eighths past half."""
    svg = parse(line_chart("tau", {"tau": [0, 4, 1, None]}))
    width, height = chart.WIDTH - chart.LEFT - chart.RIGHT, chart.HEIGHT - chart.TOP - chart.BOTTOM
    points = [(float(c.get("cx")), float(c.get("cy"))) for c in svg.iter(SVG + "circle")]
    assert len(points) == 3
    assert points[2] == pytest.approx((chart.LEFT + 2.5 / 4 * width, chart.TOP + 3 / 4 * height), abs=0.06)


def test_a_gap_breaks_the_line():
    svg = parse(line_chart("rms", {"prior": [1, 2, None, 3, 4]}))
    (line,) = [path.get("d") for path in svg.iter(SVG + "path") if path.get("fill") == "none"]
    assert (line.count("M"), line.count("L")) == (2, 2)


def test_a_logarithmic_axis_leaves_out_what_it_cannot_show():
    svg = parse(line_chart("rms", {"noise": [0.1, 0, 10]}, log=True))
    assert len(list(svg.iter(SVG + "circle"))) == 2
    middle = math.sqrt(0.1 * 10)  # half-way up on this axis
    heights = [
        float(c.get("cy")) for c in parse(line_chart("r", {"n": [0.1, middle, 10]}, log=True)).iter(SVG + "circle")
    ]
    assert heights[1] == pytest.approx((heights[0] + heights[2]) / 2, abs=0.11)


def test_title_description_legend_and_shade():
    svg = parse(line_chart("a <b>", {"prior & co": [0.5, 1], "noise": [None, 2]}, shaded=1))
    assert svg.find(SVG + "title").text == "a <b>"
    assert svg.find(SVG + "desc").text == "prior & co: 0.5 at step 1, 1 at step 2. noise: 2 at step 2, 2 at step 2."
    words = [text.text for text in svg.iter(SVG + "text")]
    assert {"a <b>", "prior & co", "noise", "DDIM step", "1", "2"} <= set(words)
    shade = svg.find(SVG + "rect")
    assert float(shade.get("width")) == pytest.approx((chart.WIDTH - chart.LEFT - chart.RIGHT) / 2, abs=0.1)


@pytest.mark.parametrize("curve", [[], [None, None]])
def test_a_chart_of_nothing_is_an_error(curve):
    assert not can_be_drawn(curve)
    with pytest.raises(ValueError, match="the chart 'tau' has no value to show"):
        line_chart("tau", {"tau": curve})


def test_zeros_alone_cannot_be_drawn_on_a_logarithmic_axis():
    assert can_be_drawn([0.0, None]) and not can_be_drawn([0.0, None], log=True)
