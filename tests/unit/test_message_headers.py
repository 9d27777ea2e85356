"""Headers of messages are read in one place: anywhere else, a hostile name of a header could end the process."""

from __future__ import annotations

import ast
from pathlib import Path

import flagpost_consumer
import flagpost_publisher
from flagpost_consumer.adapters.kafka import message_headers

SOURCES = [
    path
    for package in (flagpost_consumer, flagpost_publisher)
    for path in Path(package.__path__[0]).rglob("*.py")
]


def calls_headers(path: Path) -> bool:
    """Whether a module calls `.headers()` without arguments, as it is called on a message."""
    return any(
        isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr == "headers"
        and not node.args
        for node in ast.walk(ast.parse(path.read_text()))
    )


def test_no_other_module_asks_a_message_for_its_headers() -> None:
    assert Path(message_headers.__file__) in SOURCES
    assert [path for path in SOURCES if calls_headers(path)] == []
