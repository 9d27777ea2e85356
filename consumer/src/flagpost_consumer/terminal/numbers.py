"""Numbers as people give and read them.

In: a text of an option. Out: a number within limits; anything else is a usage error. For the other direction: a
count with its noun.
"""

from __future__ import annotations

from math import isnan
from typing import Any

import click


def count_of(count: int, noun: str) -> str:
    """`1 pod`, `2 pods`."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


class Number(click.FloatRange):
    """A number within limits; nan, which click lets through, is not accepted."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:  # noqa: ANN401 - click's
        """Parse it, or fail."""
        number = super().convert(value, param, ctx)
        if isnan(number):
            self.fail(f"{value!r} is not a number", param, ctx)
        return number
