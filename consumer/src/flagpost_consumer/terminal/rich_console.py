"""Rich's tables and bars, made as safe as what goes through `echo`.

In: what rich draws. Out: the same, with control characters in others' texts escaped; rich's own stay.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

from flagpost_settings.visible import visible_lines


class Terminal(Console):
    """A rich console whose output contains no control characters but rich's own."""

    def __init__(self, **given: Any) -> None:  # noqa: ANN401 - rich's own
        super().__init__(**{"highlight": False, **given})

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """Segments of text and style; segments that move the cursor are rich's own."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else segment._replace(text=visible_lines(segment.text))
