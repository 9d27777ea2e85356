"""Cells of CSV files that a spreadsheet will open.

In: values. Out: the same; a text that a spreadsheet would take for a formula gets an apostrophe before it, so that it
is shown as text. Ids and names come from outside, and may look like formulas.
"""

from __future__ import annotations

FORMULA_SIGNS = ("=", "+", "-", "@", "\t", "\r")
"""OWASP, "CSV Injection"."""


def safe_cell(value: object) -> object:
    """The cell for a value."""
    return f"'{value}" if isinstance(value, str) and value.startswith(FORMULA_SIGNS) else value
