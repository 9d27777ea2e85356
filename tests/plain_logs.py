"""Checks the lines of a JSON log: they have plain fields, and nothing that Python's repr() made."""

from __future__ import annotations

import re
from collections.abc import Iterable

import orjson

REPR = re.compile(
    r"<[\w.]+ (object )?at 0x|<class \'|<Task |<Future |\b[A-Z]\w+\([a-z_]+=|KafkaError\{|\bb\'|Error\(|Exception\("
    r"|frozenset\(|\{\'|\[\'|\(\'|datetime\.|None\b|\bTrue\b|\bFalse\b"
)
"""Texts by which a repr() is recognised; log lines have them for no other reason."""

OF_A_DEFECT = frozenset({"exception", "stack"})
"""The fields of tracebacks, which may have any text."""


def require_plain(lines: Iterable[str]) -> None:
    """Check that each JSON line has only scalars and lists of scalars, and no text made by repr()."""
    for line in lines:
        if line.startswith("{") and line.endswith("}"):  # the last line of a killed process may be incomplete
            for name, value in orjson.loads(line).items():
                _require(name, value, line)


def _require(name: str, value: object, line: str) -> None:
    for each in value if isinstance(value, list) else [value]:
        assert isinstance(each, str | int | float | bool | None), f"{name} is not a plain field: {line}"
        is_told = isinstance(each, str) and name not in OF_A_DEFECT
        assert not (is_told and REPR.search(str(each))), f"{name} was made by repr(): {line}"
