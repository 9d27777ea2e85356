"""Rich's tables and bars, as harmless as what goes through `terminal`.

In: what rich draws. Out: the same, with others' control characters escaped; rich's own stay.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

from flagpost_settings.visible import visible_lines


class Terminal(Console):
    """A rich console; what it draws itself is all that a terminal obeys."""

    def __init__(self, **given: Any) -> None:  # noqa: ANN401 - rich's own
        super().__init__(**{"highlight": False, **given})

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """Segments of text and style; those that move the cursor are rich's own."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else segment._replace(text=visible_lines(segment.text))
