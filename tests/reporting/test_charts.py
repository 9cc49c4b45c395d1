"""Charts: numbers where they belong, what cannot be drawn left out, text escaped."""

from __future__ import annotations

import math
import re
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given, strategies as st

from ddoq.reporting.charts import BOTTOM, HEIGHT, LEFT, RIGHT, TOP, WIDTH, Axis, Line, line_chart, map_chart


def test_a_line_goes_from_corner_to_corner() -> None:
    line = Line([0.0, 1.0, 2.0, 3.0, 4.0], [0.0, math.nan, 1.0, math.inf, 2.0], "s0", "a")
    svg = line_chart([line], Axis(0, 4), Axis(0, 2), "x", "y", "title")
    (path,) = re.findall(r'd="M([^"]*)"', svg)
    assert path == f"{LEFT}.0 {HEIGHT - BOTTOM}.0L220.0 {(TOP + HEIGHT - BOTTOM) / 2}L{WIDTH - RIGHT}.0 {TOP}.0"
    log = line_chart(
        [Line([1, 10, 100], [0.0, 1.0, 10.0], "s0", "a")], Axis(1, 100, True), Axis(1, 10, True), "", "", ""
    )
    assert re.findall(r'd="M([^"]*)"', log) == [f"220.0 {HEIGHT - BOTTOM}.0L{WIDTH - RIGHT}.0 {TOP}.0"]  # 0 left out


@pytest.mark.parametrize("text", ["<b>", '" onload="x', "&", "'"])
def test_text_is_escaped(text: str) -> None:
    line = Line([0.0, 1.0], [0.0, 1.0], "s0", text)
    point = np.zeros((1, 2))
    for svg in (
        line_chart([line], Axis(0, 1), Axis(0, 1), text, text, text, (0.5, text)),
        map_chart([(point, "s0")], [(point, np.ones(1), "s0", text)], text),
    ):
        root = ElementTree.fromstring(svg)
        assert root.attrib["aria-label"] == text
        assert any(text in (element.text or "") for element in root.iter())
        assert not [name for element in root.iter() for name in element.attrib if name.startswith("on")]


def test_areas_of_points_are_their_weights() -> None:
    points = np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 2.0]])
    svg = map_chart([(points, "none")], [(points, np.array([0.25, 1.0, 1.75]), "s0", "a")], "title", side=1000)
    circles = [element.attrib for element in ElementTree.fromstring(svg).iter() if element.tag == "circle"]
    areas = np.array([float(circle["r"]) ** 2 for circle in circles])
    assert areas / areas[1] == pytest.approx([0.25, 1, 1.75], rel=0.02)
    x, y = ([float(circle[name]) for circle in circles] for name in ("cx", "cy"))
    assert (x[1] - x[0], y[0] - y[2]) == (pytest.approx((y[0] - y[2]) / 2), 976)  # one scale, y upwards


@given(st.floats(-1e9, 1e9), st.floats(1e-6, 1e9), st.booleans())
def test_ticks_are_on_the_axis(low: float, span: float, log: bool) -> None:
    low = abs(low) + 1e-6 if log else low
    axis = Axis.around([low, low + span], log=log)
    ticks = axis.ticks()
    assert len(ticks) <= 12
    assert all(-1e-6 <= axis.place(tick) <= 1 + 1e-6 for tick in ticks)


def test_an_axis_of_nothing_or_of_one_number() -> None:
    for values in ([], [5.0], [0.0, 0.0], [math.nan]):
        for options in ({}, {"log": True}, {"zero": True}):
            axis = Axis.around(values, **options)
            assert axis.low < axis.high
            assert axis.ticks()
