"""Charts of a pod over time: for a terminal, and as SVG.

In: moments and values. Out: text. A few lines of our own are enough here; a plotting library would be a dependency of
every consumer in production.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import isnan
from xml.sax.saxutils import escape

BLOCKS = " ▁▂▃▄▅▆▇█"
ROWS = 6
LABEL = 10
WIDTH, HEIGHT = 720, 200
LEFT, RIGHT, TOP, BOTTOM = 80, 16, 34, 30
STYLE = "font-family: sans-serif; font-size: 12px"


@dataclass(frozen=True, slots=True)
class Chart:
    """One line over time; nan values are left out."""

    title: str
    seconds: Sequence[float]
    values: Sequence[float]

    @property
    def highest(self) -> float:
        """The highest value, at least 0."""
        return max((value for value in self.values if not isnan(value)), default=0.0)


def number(value: float) -> str:
    """A number in a readable form."""
    return f"{value:,.0f}" if value >= 100 or value == int(value) else f"{value:.3g}"


def terminal_chart(chart: Chart) -> str:
    """A chart of block characters, a column for each value."""
    highest = chart.highest or 1.0
    steps = [0 if isnan(value) else round(value / highest * ROWS * 8) for value in chart.values]
    lines = [chart.title]
    for row in reversed(range(ROWS)):
        label = number(highest) if row == ROWS - 1 else "0" if row == 0 else ""
        blocks = "".join(BLOCKS[min(8, max(0, step - 8 * row))] for step in steps)
        lines.append(f"{label:>{LABEL}} │{blocks}".rstrip())
    first, last = number(0), f"{number(chart.seconds[-1])} s"
    lines.append(f"{'':>{LABEL}} └{'─' * len(steps)}")
    lines.append(f"{'':>{LABEL}}  {first}{last:>{len(steps) - len(first)}}")
    return "\n".join(lines)


def svg(charts: Sequence[Chart]) -> str:
    """The charts one below the other, as one document."""
    panels = "".join(_panel(chart, HEIGHT * place) for place, chart in enumerate(charts))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{HEIGHT * len(charts)}" '
        f'style="{STYLE}"><rect width="100%" height="100%" fill="white"/>{panels}</svg>\n'
    )


def _panel(chart: Chart, top: int) -> str:
    highest, until = chart.highest or 1.0, chart.seconds[-1] or 1.0
    bottom, right = top + HEIGHT - BOTTOM, WIDTH - RIGHT

    def place(at: float, value: float) -> str:
        x = LEFT + at / until * (right - LEFT)
        y = bottom - value / highest * (bottom - top - TOP)
        return f"{x:.1f},{y:.1f}"

    known = [(at, value) for at, value in zip(chart.seconds, chart.values, strict=True) if not isnan(value)]
    line = " ".join(place(at, value) for at, value in known)
    return (
        f'<text x="{LEFT}" y="{top + 20}" font-weight="bold">{escape(chart.title)}</text>'
        f'<path d="M{LEFT},{top + TOP}V{bottom}H{right}" fill="none" stroke="#888"/>'
        f'<text x="{LEFT - 6}" y="{top + TOP + 4}" text-anchor="end">{number(highest)}</text>'
        f'<text x="{LEFT - 6}" y="{bottom}" text-anchor="end">0</text>'
        f'<text x="{LEFT}" y="{bottom + 16}">0</text>'
        f'<text x="{right}" y="{bottom + 16}" text-anchor="end">{number(until)} s</text>'
        f'<polyline points="{line}" fill="none" stroke="#1f6feb" stroke-width="2"/>'
    )
