"""What lines of a JSON log may hold: plain fields, and nothing that Python's repr() writes."""

from __future__ import annotations

import re
from collections.abc import Iterable

import orjson

REPR = re.compile(
    r"<[\w.]+ (object )?at 0x|<class \'|<Task |<Future |\b[A-Z]\w+\([a-z_]+=|KafkaError\{|\bb\'|Error\(|Exception\("
    r"|frozenset\(|\{\'|\[\'|\(\'|datetime\.|None\b|\bTrue\b|\bFalse\b"
)
"""What gives a repr() away; log lines say these words in no other way."""

OF_A_DEFECT = frozenset({"exception", "stack"})
"""Tracebacks."""


def require_plain(lines: Iterable[str]) -> None:
    """Each JSON line has scalars and lists of scalars, and no text made by repr()."""
    for line in lines:
        if line.startswith("{") and line.endswith("}"):  # of what is killed the last line may be cut off
            for name, value in orjson.loads(line).items():
                _require(name, value, line)


def _require(name: str, value: object, line: str) -> None:
    for each in value if isinstance(value, list) else [value]:
        assert isinstance(each, str | int | float | bool | None), f"{name} is not a plain field: {line}"
        is_told = isinstance(each, str) and name not in OF_A_DEFECT
        assert not (is_told and REPR.search(str(each))), f"{name} was made by repr(): {line}"
