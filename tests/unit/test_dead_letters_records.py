"""How records of the dead-letter topic are read and shown."""

from __future__ import annotations

import io
from typing import cast

import pytest
from confluent_kafka import Message
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from flagpost_consumer.commands.dead_letters.reading import Filters
from flagpost_consumer.commands.dead_letters.records import DeadLetter, Marker, Place, read_message
from flagpost_consumer.commands.dead_letters.views import letter_as_json, table
from flagpost_settings.visible import visible

WHOLE = {
    "flagpost-reason": b"rejected",
    "flagpost-detail": b"no",
    "flagpost-kind": b"track",
    "flagpost-source": b"events/1/2",
    "flagpost-attempts": b"2",
    "flagpost-status": b"400",
    "flagpost-at": b"1767225600000",
}


def message(headers: dict[str, bytes | None], key: bytes | None = b"v1") -> Message:
    return Message(topic="dead", value=b"x", key=key, headers=list(headers.items()), partition=3, offset=17)


def read_letter(**changed: bytes) -> DeadLetter:
    letter = read_message(message({**WHOLE, **{f"flagpost-{name}": v for name, v in changed.items()}}))
    assert isinstance(letter, DeadLetter)
    return letter


def test_a_dead_letter_is_described_by_its_headers() -> None:
    assert read_letter() == DeadLetter(
        place=Place(3, 17),
        key=b"v1",
        at=1_767_225_600_000,
        reason="rejected",
        detail="no",
        kind="track",
        source="events/1/2",
        attempts=2,
        status=400,
        truncated=False,
    )
    assert read_letter(truncated=b"true").truncated


def test_there_may_be_no_status() -> None:
    headers = {name: value for name, value in WHOLE.items() if name != "flagpost-status"}
    letter = read_message(message(cast("dict[str, bytes | None]", headers)))
    assert isinstance(letter, DeadLetter)
    assert letter.status is None


@pytest.mark.parametrize("missing", sorted(set(WHOLE) - {"flagpost-status"}))
def test_a_record_without_a_header_is_not_a_dead_letter(missing: str) -> None:
    assert read_message(message({name: value for name, value in WHOLE.items() if name != missing})) is None


@pytest.mark.parametrize("name", ["at", "attempts", "status"])
@pytest.mark.parametrize("value", [b"", b"-1", b"soon", b"9" * 5_000, "١".encode(), b"1e3", None])  # noqa: RUF001
def test_a_record_without_a_number_where_one_belongs_is_no_dead_letter(
    name: str, value: bytes | None
) -> None:
    assert read_message(message({**WHOLE, f"flagpost-{name}": value})) is None


def test_a_marker_names_a_place() -> None:
    assert read_message(message({"flagpost-replayed": b"3/9"})) == Marker(Place(3, 9))
    assert read_message(message({"flagpost-replayed": b"3"})) is None


@given(st.dictionaries(st.sampled_from([*WHOLE, "flagpost-replayed"]), st.none() | st.binary(max_size=30)))
def test_no_headers_break_the_reading_or_what_is_shown(changed: dict[str, bytes | None]) -> None:
    found = read_message(message({**WHOLE, **changed}))
    if isinstance(found, DeadLetter):
        assert str(found.place) in rendered(found, 200)
        assert letter_as_json(found, replayed=False)["key"] == "v1"
    else:
        assert found is None or "flagpost-replayed" in changed


@pytest.mark.parametrize("text", ["", "3", "3/", "/3", "3/17/1", "-3/17", "3/ 17", "a/b", "3/" + "9" * 30])
def test_a_place_is_partition_slash_offset(text: str) -> None:
    assert Place.parse("3/17") == Place(3, 17)
    assert str(Place(3, 17)) == "3/17"
    with pytest.raises(ValueError, match="give PARTITION/OFFSET, like 3/17"):
        Place.parse(text)


def rendered(letter: DeadLetter, columns: int) -> str:
    console = Console(file=io.StringIO(), width=columns, highlight=False)
    console.print(table([letter], {letter.place}))
    return cast("io.StringIO", console.file).getvalue()


@pytest.mark.parametrize("columns", [24, 40, 60, 80, 120, 200])
def test_a_table_loses_nothing_on_a_narrow_terminal(columns: int) -> None:
    letter = read_letter(detail=("Ω" * 120).encode(), reason=b"attempts_exhausted", source="Ψ".encode() * 60)
    shown = rendered(letter, columns)
    assert shown.count("Ω") == 120
    assert shown.count("Ψ") == 60
    assert "…" not in shown
    assert max(map(len, shown.splitlines())) <= columns


def test_no_record_moves_the_terminals_cursor_or_paints_it() -> None:
    letter = read_letter(
        detail=b"\x1b[2J\r\nred \x07", reason=b"[bold]x[/bold]", source="\u202eevil".encode()
    )
    shown = rendered(letter, 200)
    assert "\\x1b[2J\\r\\nred \\x07" in shown
    assert "[bold]x[/bold]" in shown
    assert "\\u202eevil" in shown
    assert visible("zoë 数 \x9b") == "zoë 数 \\x9b"


def test_a_key_that_is_not_text_is_still_shown() -> None:
    letter = read_message(message(dict(WHOLE), key=b"a\xff"))
    assert isinstance(letter, DeadLetter)
    assert letter_as_json(letter, replayed=True)["key"] == "a\\xff"
    keyless = read_message(message(dict(WHOLE), key=None))
    assert isinstance(keyless, DeadLetter)
    assert letter_as_json(keyless, replayed=True)["key"] is None


@pytest.mark.parametrize(
    ("filters", "fits"),
    [
        (Filters(), True),
        (Filters(reasons=frozenset({"rejected", "invalid"})), True),
        (Filters(reasons=frozenset({"invalid"})), False),
        (Filters(since=1_767_225_600_000), True),
        (Filters(since=1_767_225_600_001), False),
        (Filters(until=1_767_225_600_001), True),
        (Filters(until=1_767_225_600_000), False),
        (Filters(visitor="v1"), True),
        (Filters(visitor="v"), False),
    ],
)
def test_filters_include_the_moment_of_since_and_exclude_that_of_until(filters: Filters, fits: bool) -> None:
    assert filters.match(read_letter()) is fits
