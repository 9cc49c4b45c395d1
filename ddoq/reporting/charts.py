"""Charts as SVG text, drawn by hand: colours are classes of the page's style sheet, so that they follow light and dark.

A chart is 400 units wide, about a phone's page: its letters keep their size there and grow little on a desk. Whatever
text comes in is escaped.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

import numpy as np
from numpy.typing import NDArray

WIDTH, HEIGHT = 400, 280
LEFT, RIGHT, TOP, BOTTOM = 52, 12, 30, 42  # margins
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Line:
    """A curve: (x, y) pairs, a class of the style sheet such as "s0", and its name, shown on the line by a pointer."""

    x: Sequence[float]
    y: Sequence[float]
    style: str
    name: str
    marks: bool = False


@dataclass(frozen=True)
class Axis:
    """The numbers between `low` and `high`, on a linear or logarithmic scale, as places between 0 and 1."""

    low: float
    high: float
    log: bool = False

    @classmethod
    def around(cls, values: Sequence[float], log: bool = False, zero: bool = False) -> Axis:
        """An axis for some numbers, those that are not finite (or not positive, if logarithmic) left aside.

        >>> Axis.around([1.0, 3.0], zero=True)
        Axis(low=0.0, high=3.12, log=False)
        """
        seen = [value for value in values if math.isfinite(value) and (value > 0 or not log)] or [1.0]
        low, high = min(seen), max(seen)
        is_single = high - low <= 1e-9 * abs(high)  # number, but for rounding
        if log:
            spare = 1.5 if is_single else (high / low) ** 0.04
            return cls(low / spare, high * spare, True)
        spare = 0.04 * (abs(high) or 1.0) if is_single or zero else 0.04 * (high - low)
        return cls(0.0 if zero else low - spare, high + spare)

    def place(self, value: float) -> float:
        """Where a number is."""
        if self.log:
            return (math.log(value) - math.log(self.low)) / (math.log(self.high) - math.log(self.low))
        return (value - self.low) / (self.high - self.low)

    def ticks(self) -> list[float]:
        """Round numbers on the axis, about three to six.

        >>> Axis(0, 52).ticks(), Axis(0.9, 120, log=True).ticks()
        ([0.0, 10.0, 20.0, 30.0, 40.0, 50.0], [1.0, 10.0, 100.0])
        """
        if self.log:
            for digits in ((1,), (1, 3), (1, 2, 5), (1, 1.5, 2, 3, 4, 5, 6, 8)):
                powers = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
                values = [digit * 10.0**power for power in powers for digit in digits]
                values = [value for value in values if self.low <= value <= self.high]
                if len(values) >= 3:
                    return values[:: math.ceil(len(values) / 6)]
            return Axis(self.low, self.high).ticks()
        step = 10.0 ** math.floor(math.log10((self.high - self.low) / 3))
        step *= next(factor for factor in (5, 2, 1) if (self.high - self.low) / (step * factor) >= 3 or factor == 1)
        first = math.ceil(self.low / step - 1e-9)
        return [i * step + 0.0 for i in range(first, math.floor(self.high / step + 1e-9) + 1)]


def line_chart(
    lines: Sequence[Line],
    x: Axis,
    y: Axis,
    x_label: str,
    y_label: str,
    title: str,
    mark: tuple[float, str] | None = None,
) -> str:
    """Curves over one x axis; `mark` is a dashed vertical line with a text."""
    right, bottom = WIDTH - RIGHT, HEIGHT - BOTTOM

    def px(value: float) -> float:
        return LEFT + x.place(value) * (right - LEFT)

    def py(value: float) -> float:
        return bottom - y.place(value) * (bottom - TOP)

    parts = []
    for value in y.ticks():
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{right}" y1="{py(value):.1f}" y2="{py(value):.1f}"/>')
        parts.append(f'<text x="{LEFT - 7}" y="{py(value) + 4:.1f}" text-anchor="end">{_number(value)}</text>')
    for value in x.ticks():
        parts.append(f'<text x="{px(value):.1f}" y="{bottom + 17}" text-anchor="middle">{_number(value)}</text>')
    parts.append(f'<line class="axis" x1="{LEFT}" x2="{right}" y1="{bottom}" y2="{bottom}"/>')
    parts.append(f'<text x="{(LEFT + right) / 2}" y="{HEIGHT - 7}" text-anchor="middle">{escape(x_label)}</text>')
    parts.append(f'<text x="2" y="13">{escape(y_label)}</text>')  # turned, beside its numbers, it would run into them
    if mark is not None and x.low <= mark[0] <= x.high:
        at, side = px(mark[0]), "end" if px(mark[0]) > WIDTH / 2 else "start"
        parts.append(f'<line class="mark" x1="{at:.1f}" x2="{at:.1f}" y1="{TOP}" y2="{bottom}"/>')
        shift = -6 if side == "end" else 6
        parts.append(f'<text x="{at + shift:.1f}" y="{TOP + 11}" text-anchor="{side}">{escape(mark[1])}</text>')
    for line in lines:
        shown = [(px(a), py(b)) for a, b in zip(line.x, line.y, strict=True) if _drawn(a, x) and _drawn(b, y)]
        path = "L".join(f"{a:.1f} {b:.1f}" for a, b in shown)
        if path:
            parts.append(f'<path class="line {line.style}" d="M{path}"><title>{escape(line.name)}</title></path>')
        if line.marks:
            parts += [f'<circle class="dot {line.style}" cx="{a:.1f}" cy="{b:.1f}" r="3"/>' for a, b in shown]
    return _svg(WIDTH, HEIGHT, title, parts)


def map_chart(
    clouds: Sequence[tuple[Floats, str]],
    points: Sequence[tuple[Floats, Floats, str, str]],
    title: str,
    side: int = WIDTH,
) -> str:
    """Clouds of dots (n, 2), each with its class of the style sheet, and points (k, 2) on them with the areas of their
    weights (k,), mean 1, a class and a name.
    """
    together = np.concatenate([cloud for cloud, _ in clouds] + [coordinates for coordinates, *_ in points])
    low, high = together.min(axis=0), together.max(axis=0)
    scale = (side - 24) / max(float((high - low).max()), 1e-12)
    middle = (low + high) / 2

    def placed(xy: Floats) -> Floats:
        moved: Floats = (xy - middle) * scale * [1, -1] + side / 2
        return moved

    parts = []
    for cloud, style in clouds:  # strokes of no length with round ends are dots, of a dozen bytes each
        path = "".join(f"M{a:.1f} {b:.1f}h0" for a, b in placed(cloud))
        parts.append(f'<path class="cloud {style}" d="{path}"/>')
    largest = max((float(weights.max()) for _, weights, *_ in points), default=1.0) or 1.0
    radius = min(side / 45, side / 18 / math.sqrt(largest))  # of weight 1
    for coordinates, weights, style, name in points:
        for (a, b), weight in zip(placed(coordinates), weights, strict=True):
            r = max(radius * math.sqrt(weight), 1.2)
            tip = f"<title>{escape(name)}: {weight:.2f}</title>"
            parts.append(f'<circle class="point {style}" cx="{a:.1f}" cy="{b:.1f}" r="{r:.1f}">{tip}</circle>')
    return _svg(side, side, title, parts)


def _svg(width: int, height: int, title: str, parts: Sequence[str]) -> str:
    head = f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="{escape(title)}">'
    return "".join([head, *parts, "</svg>"])


def _drawn(value: float, axis: Axis) -> bool:
    return math.isfinite(value) and (value > 0 or not axis.log)


def _number(value: float) -> str:
    """A tick in few letters.

    >>> [_number(value) for value in (0, 0.05, 2.0, 1500, 200000)]
    ['0', '0.05', '2', '1,500', '2e5']
    """
    if value and not 1e-3 <= abs(value) < 1e5:
        return f"{value:.0e}".replace("e+0", "e").replace("e-0", "e-").replace("e+", "e")
    return f"{value:,.10g}" if value == int(value) else f"{value:.4g}"
