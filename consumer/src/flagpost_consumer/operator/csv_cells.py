"""Cells of CSV files that a spreadsheet will open.

In: values. Out: the same, but for texts that a spreadsheet would take for a formula: they get an apostrophe before
them, which spreadsheets show as text. Ids and names come from outside, and may begin so.
"""

from __future__ import annotations

FORMULA_SIGNS = ("=", "+", "-", "@", "\t", "\r")
"""OWASP, "CSV Injection"."""


def safe_cell(value: object) -> object:
    """What is written for a value."""
    return f"'{value}" if isinstance(value, str) and value.startswith(FORMULA_SIGNS) else value
