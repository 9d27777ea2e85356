"""What happened in a run, for people to read.

In: notes of the world, and the product's own log. Out: lines, each with its time and its process. They contain
nothing that differs between runs of a seed.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from contextlib import contextmanager, redirect_stderr
from io import StringIO
from typing import Any

import structlog

from simulation.loop import PROCESS, SimulatedLoop

DEFECTS = (
    "the engine has failed",
    "a chore failed",
    "a defect",
    "rebalance callback failed",
    "a request failed in an unknown way",
    "a restore has failed",
    "a record made Flagpost raise",
    "the topics could not be looked at",
    "the suppressions topic could not be read; it is tried again",
    "the event loop reports an error",
    "the Kafka thread has failed",
)
"""The beginnings of log lines that only a defect of the product writes."""


class History:
    """The lines of one run."""

    def __init__(self, loop: SimulatedLoop) -> None:
        self._loop = loop
        self._began = loop.now
        self._lines: list[tuple[float, str, str, Mapping[str, Any]]] = []
        self.defects: list[str] = []
        self.on_alarm: Callable[[str, str], None] = lambda _, __: None
        """Called with each line of the product's log: its event, and its fields."""
        self.is_closed = False

    def note(self, text: str, **fields: Any) -> None:
        """Add a line for something that happened."""
        if self.is_closed:
            return
        process = PROCESS.get()
        name = "" if process is None else process.name
        self._lines.append((self._loop.now - self._began, name, text, fields))

    def log(self, level: str, event: str, fields: Mapping[str, Any]) -> None:
        """Add a line of the product's log."""
        if self.is_closed:
            return
        self.note(f"{level}: {event}", **fields)
        self.on_alarm(event, _plain(fields))
        if event.startswith(DEFECTS):
            self.defects.append(f"{event} {_plain(fields)}")

    def lines(self) -> Iterator[str]:
        """The history."""
        for seconds, name, text, fields in self._lines:
            yield f"{seconds:9.4f} {name:<4} {text}{_plain(fields)}"


def _plain(fields: Mapping[str, Any]) -> str:
    return "".join(f" {key}={value}" for key, value in fields.items())


_listening: list[History] = []


@contextmanager
def listening(history: History) -> Iterator[None]:
    """Add the product's log to a history during the block."""
    _listening.append(history)
    try:
        with redirect_stderr(StringIO()):  # each consumer writes the address of its probes there
            yield
    finally:
        _listening.pop()


def _keep(_: object, level: str, event: MutableMapping[str, Any]) -> Mapping[str, Any]:
    fields = {key: value for key, value in event.items() if key not in {"event", "exc_info"}}
    error = sys.exc_info()[1] if level == "exception" else event.get("exc_info")
    if isinstance(error, BaseException):
        fields["error"] = f"{type(error).__name__}: {error}"
    if _listening:
        _listening[-1].log(level, str(event["event"]), fields)
    raise structlog.DropEvent


@contextmanager
def logging_into_histories() -> Iterator[None]:
    """Write the product's log only to the history of the present run."""
    structlog.configure(
        processors=[_keep], wrapper_class=structlog.BoundLogger, cache_logger_on_first_use=False
    )
    try:
        yield
    finally:
        structlog.reset_defaults()
