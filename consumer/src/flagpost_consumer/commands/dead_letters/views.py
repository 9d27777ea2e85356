"""How dead letters are shown to people and programs.

In: dead letters. Out: JSON (docs/contract.md#json-output); a table that fits any terminal; one dead letter in full.
Texts from outside (keys, details, headers) are shown with their control characters escaped.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Collection, Iterable, Iterator
from typing import Any

import orjson
from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from flagpost_consumer.adapters.kafka.message_headers import headers_of
from flagpost_consumer.adapters.registry.errors import RegistryNotAnswering
from flagpost_consumer.commands.dead_letters.reading import Found
from flagpost_consumer.commands.dead_letters.records import DeadLetter, Place
from flagpost_consumer.commands.sources.event_values import Values, event_as_json
from flagpost_consumer.core.records import Headers
from flagpost_consumer.terminal.rich_console import Terminal
from flagpost_consumer.terminal.times import moment_text
from flagpost_schemas import DecodeError
from flagpost_settings.visible import visible, visible_json

UNFOLDED_COLUMNS = 200
"""The width of a table without a terminal: lines are searched there, not read."""


def letter_as_json(letter: DeadLetter, *, replayed: bool) -> dict[str, Any]:
    """A line of `list --json`."""
    return {
        "partition": letter.place.partition,
        "offset": letter.place.offset,
        "at": letter.at,
        "reason": letter.reason,
        "detail": letter.detail,
        "kind": letter.kind,
        "source": letter.source,
        "attempts": letter.attempts,
        "status": letter.status,
        "key": _text(letter.key),
        "replayed": replayed,
    }


def found_as_json(found: Found, values: Values) -> dict[str, Any]:
    """The document of `show --json`: an event is an object, other bytes are base64."""
    value, _ = _value(found.message.value(), values)
    return {
        **letter_as_json(found.letter, replayed=found.replayed),
        "headers": _headers_as_json(headers_of(found.message)),
        "value": value,
    }


def print_table(letters: Iterable[DeadLetter], replayed: Collection[Place]) -> None:
    """A row for each; on a narrow terminal its cells are folded, never cut."""
    console = Terminal(highlight=False)
    if not console.is_terminal:
        console.width = UNFOLDED_COLUMNS
    console.print(table(letters, replayed))


def table(letters: Iterable[DeadLetter], replayed: Collection[Place]) -> Table:
    """The table of `list`."""
    shown = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    shown.add_column("dead letter", overflow="fold")
    shown.add_column("reason, kind, key; original; why", overflow="fold", ratio=1)
    for letter in letters:
        died = moment_text(letter.at).replace(" ", "\n")
        shown.add_row(Text(f"{letter.place}\n{died}"), _story(letter, replayed=letter.place in replayed))
    return shown


def lines(found: Found, values: Values) -> Iterator[str]:
    """One dead letter in full, line by line."""
    for name, shown in letter_as_json(found.letter, replayed=found.replayed).items():
        moment = f" ({moment_text(shown)})" if name == "at" else ""
        yield f"{name + ':':<11}{_plain(shown)}{moment}"
    yield "headers:"
    for name, header in headers_of(found.message):
        yield f"  {visible(name)}: {_plain(_text(header))}"
    value, why = _value(found.message.value(), values)
    yield f"value{why}:"
    yield from visible_json(orjson.dumps(value, option=orjson.OPT_INDENT_2)).split("\n")


def _story(letter: DeadLetter, *, replayed: bool) -> Text:
    tries = f"{letter.attempts} attempts" if letter.attempts != 1 else "1 attempt"
    status = f", status {letter.status}" if letter.status is not None else ""
    return Text.assemble(
        (visible(letter.reason), "bold"),
        f" {visible(letter.kind)} {_plain(_text(letter.key))}{' (replayed)' if replayed else ''}\n",
        f"{visible(letter.source)}\n{tries}{status}: {visible(letter.detail)}",
    )


def _value(value: bytes | None, values: Values) -> tuple[dict[str, Any] | str | None, str]:
    """The value for JSON, and a remark about it."""
    if value is None:
        return None, ""
    try:
        return event_as_json(values.decode(value)), ""
    except (DecodeError, RegistryNotAnswering) as error:
        return b64encode(value).decode(), f" in base64, because {visible(str(error))}"


def _headers_as_json(headers: Headers) -> dict[str, str | list[str | None] | None]:
    """By name; a name that occurs several times has the list of its values."""
    found: dict[str, list[str | None]] = {}
    for name, value in headers:
        found.setdefault(name, []).append(_text(value))
    return {name: values[0] if len(values) == 1 else values for name, values in found.items()}


def _text(value: bytes | None) -> str | None:
    return None if value is None else value.decode("utf-8", "backslashreplace")


def _plain(shown: object) -> str:
    if isinstance(shown, bool):
        return "yes" if shown else "no"
    return "-" if shown is None else visible(str(shown))
