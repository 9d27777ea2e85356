"""Log lines have plain fields, and nothing that Python's repr() wrote: in the calls, and in the lines."""

from __future__ import annotations

import ast
import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import structlog

from flagpost_settings.log_section import LogSettings
from flagpost_settings.logs import configure_logging, say_loop_error
from flagpost_settings.secrets import Secret
from plain_logs import require_plain

ROOT = Path(__file__).parents[2]
LEVELS = {"debug", "info", "warning", "error", "exception", "critical", "log"}
OURS = "flagpost_consumer.service.process"


class Place(NamedTuple):
    partition: int
    offset: int


@dataclass(frozen=True, slots=True)
class Span:
    begin: int
    end: int


class Colour(StrEnum):
    RED = "red"


class Unknown:
    """Its repr() has an address."""


def logged(**fields: object) -> dict[str, Any]:
    """The fields as they are in a line of JSON."""
    stream = io.StringIO()
    configure_logging(LogSettings(), stream)
    structlog.get_logger(OURS).info("a line", **fields)
    line: dict[str, Any] = json.loads(stream.getvalue())
    return {name: line[name] for name in fields}


@pytest.mark.parametrize(
    ("value", "told"),
    [
        ("text", "text"),
        (None, None),
        (True, True),
        (1.5, 1.5),
        (Colour.RED, "red"),
        (Place(1, 2), {"partition": 1, "offset": 2}),
        (Span(3, 4), {"begin": 3, "end": 4}),
        ({1: Place(1, 2)}, {"1": {"partition": 1, "offset": 2}}),
        ([Colour.RED, (1, 2)], ["red", [1, 2]]),
        ({3, 1}, [1, 3]),
        (Path("/a/b"), "/a/b"),
        (ValueError("it is wrong"), "it is wrong"),
        (datetime(2026, 1, 31, tzinfo=UTC), "2026-01-31T00:00:00+00:00"),
        (b"bytes", "bytes"),
        (Unknown(), "Unknown"),
        (Secret("hunter2"), "Secret"),
        ([Unknown()], ["Unknown"]),
    ],
    ids=lambda value: type(value).__name__,
)
def test_values_become_json_and_never_a_repr(value: object, told: object) -> None:
    assert logged(field=value) == {"field": told}


def test_on_a_terminal_no_repr_of_our_classes_is_shown_either() -> None:
    stream = io.StringIO()
    configure_logging(LogSettings.model_validate({"format": "console"}), stream)
    structlog.get_logger(OURS).info("a line", place=Place(1, 2), unknown=Unknown())
    assert "Place(" not in stream.getvalue()
    assert "0x" not in stream.getvalue()


async def test_an_error_that_asyncio_reports_is_logged_without_reprs_and_without_its_text() -> None:
    import asyncio

    stream = io.StringIO()
    configure_logging(LogSettings(), stream)
    loop = asyncio.get_running_loop()
    before = loop.get_exception_handler()
    loop.set_exception_handler(say_loop_error)

    def fail() -> None:
        raise ValueError("personal-visitor")

    failed = asyncio.Event()
    loop.call_soon(fail)
    loop.call_soon(failed.set)
    await failed.wait()
    loop.set_exception_handler(before)
    (line,) = stream.getvalue().splitlines()
    entry = json.loads(line)
    assert (entry["event"], entry["error"], entry["level"]) == (
        "the event loop reports an error",
        "ValueError",
        "error",
    )
    assert "test_log_fields.py" in entry["at"]
    assert "personal-visitor" not in line


def log_calls() -> Iterator[tuple[str, ast.Call]]:
    """Every call of a logger in the three distributions, with its place."""
    for distribution in ("consumer", "publisher", "schemas"):
        for path in sorted((ROOT / distribution / "src").rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Call) and _is_log(node.func):
                    yield f"{path.relative_to(ROOT)}:{node.lineno}", node


def _is_log(function: ast.expr) -> bool:
    if isinstance(function, ast.Name):
        return function.id == "report"
    if not isinstance(function, ast.Attribute) or function.attr not in LEVELS:
        return False
    return isinstance(function.value, ast.Name) and function.value.id == "log"


def test_no_log_call_makes_a_repr_itself() -> None:
    calls = list(log_calls())
    assert len(calls) > 60, "there are that many; fewer are found"
    for where, call in calls:
        for node in ast.walk(call):
            assert not (isinstance(node, ast.Call) and _name(node.func) in ("repr", "ascii")), where
            assert not (isinstance(node, ast.FormattedValue) and node.conversion != -1), where
            assert not (isinstance(node, ast.Constant) and "%r" in str(node.value)), where


def _name(function: ast.expr) -> str:
    return function.id if isinstance(function, ast.Name) else ""


@pytest.mark.parametrize(
    "text",
    [
        '{"a": "Position(offset=5, ledger_offset=None)"}',
        '{"a": "KafkaException(KafkaError{code=_TIMED_OUT})"}',
        '{"a": ["<Task finished name=1>"]}',
        '{"a": "b\'bytes\'"}',
        '{"a": "<object object at 0x7f>"}',
        '{"a": {"b": 1}}',
        '{"a": [[1]]}',
    ],
)
def test_the_check_of_a_running_programs_lines_finds_fields_that_are_not_plain(text: str) -> None:
    with pytest.raises(AssertionError):
        require_plain([text])


def test_the_check_accepts_plain_lines_and_ignores_lines_that_are_not_ours() -> None:
    require_plain(["admin http://127.0.0.1:1", '{"a": ["1/2"], "b": null}', '{"cut off'])
