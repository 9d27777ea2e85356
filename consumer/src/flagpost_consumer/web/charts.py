"""Small charts over time, as SVG without scripts or styles of its own.

In: for each time step, how many of each kind. Out: stacked bars; their content is also described in words, for those
who do not see them, and in a table next to them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from flagpost_consumer.web.html import Html, element

WIDTH: Final = 640
HEIGHT: Final = 120
GAP: Final = 1.0
"""Between bars, if they are wide enough."""


@dataclass(frozen=True, slots=True)
class Step:
    """One step of time."""

    begins: str
    """The step's begin, as text."""
    counts: tuple[int, ...]
    """One for each kind."""


def stacked_bars(title: str, kinds: Sequence[str], steps: Sequence[Step]) -> Html:
    """A chart; the first kind is at the bottom. The classes of its bars are kind-0, kind-1, …"""
    most = max((sum(step.counts) for step in steps), default=0)
    if most == 0:
        return element("p", f"{title}: nothing yet.", class_="empty")
    width = WIDTH / len(steps)
    bars = [bar for place, step in enumerate(steps) for bar in _bar(place * width, width, step.counts, most)]
    totals = [sum(step.counts[place] for step in steps) for place, _ in enumerate(kinds)]
    said = ", ".join(f"{total:,} {kind}" for total, kind in zip(totals, kinds, strict=True))
    told = f"{title}, from {steps[0].begins} to {steps[-1].begins}: {said}; at most {most:,} in one step."
    image = element(
        "svg", bars, viewBox=f"0 0 {WIDTH} {HEIGHT}", role="img", aria_label=told, preserveAspectRatio="none"
    )
    legend = [
        element("li", element("span", class_=f"key kind-{place}"), f"{kind} ({total:,})")
        for place, (kind, total) in enumerate(zip(kinds, totals, strict=True))
    ]
    scale = element("p", element("span", steps[0].begins), element("span", steps[-1].begins), class_="scale")
    return element(
        "figure",
        element("figcaption", title, element("span", f" (at most {most:,} in a step)")),
        image,
        scale,
        element("ul", legend, class_="legend"),
    )


def _bar(left: float, width: float, counts: tuple[int, ...], most: int) -> list[Html]:
    bottom = float(HEIGHT)
    parts = []
    for place, count in enumerate(counts):
        height = HEIGHT * count / most
        bottom -= height
        if count:
            parts.append(
                element(
                    "rect",
                    x=f"{left:.2f}",
                    y=f"{bottom:.2f}",
                    width=f"{max(width - GAP, width / 2):.2f}",
                    height=f"{height:.2f}",
                    class_=f"kind-{place}",
                )
            )
    return parts
