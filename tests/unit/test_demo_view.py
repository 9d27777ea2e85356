"""The demo's picture fits on a terminal of 80 columns and 24 lines, and says what is real and what is simulated."""

from __future__ import annotations

import io
import re
from dataclasses import replace

import pytest

from flagpost_consumer.demo.journey import Journey
from flagpost_consumer.demo.options import Options
from flagpost_consumer.demo.reconciliation import Counts, Reconciliation
from flagpost_consumer.demo.run import shows_picture
from flagpost_consumer.demo.view import Numbers, picture, plain_line, print_next_steps, print_table
from flagpost_consumer.terminal.rich_console import Terminal

JOURNEY = Journey(
    "decide('checkout_redesign') for visitor-00000: control by rule checkout_redesign_ab",
    "partition 0, offset 0, key visitor-00000, 200 bytes of Avro",
    'POST /data/track {"type":"track","event":"Experiment Viewed","visitorId":"visitor-00000"}',
    "200, after 1 attempt, 603 ms after decide()",
)
LONGEST = Numbers(
    phase="the consumer catches up", seconds=1234.0, decisions=999_999, removed_by_publisher=999_999,
    published=999_999, consumed=999_999, duplicates=999_999, paced=99_999, ready=9_999, in_flight=64,
    delivered=999_999, metadata_values=99_999, answers={"200": 999_999, "503": 9_999},
    metadata_requests=999, journey=JOURNEY,
)  # fmt: skip


def drawn(numbers: Numbers, width: int) -> list[str]:
    file = io.StringIO()
    Terminal(file=file, width=width, force_terminal=False).print(picture(numbers))
    return file.getvalue().splitlines()


@pytest.mark.parametrize("numbers", [Numbers(), LONGEST], ids=["first", "longest"])
@pytest.mark.parametrize("width", [80, 140])
def test_the_picture_and_the_text_above_it_fit_on_the_screen(numbers: Numbers, width: int) -> None:
    opening = Options(20, 50, 200, None).opening.splitlines()
    lines = drawn(numbers, width)
    assert len(opening) + 1 + len(lines) <= 24
    assert max(map(len, [*opening, *lines])) <= width
    assert f"{numbers.seconds:.0f} s" in lines[0]
    assert numbers.phase in lines[0]


def test_a_real_event_is_followed_from_the_decision_to_the_answer() -> None:
    lines = drawn(LONGEST, 140)
    for name, text in zip(Journey._fields, JOURNEY, strict=True):
        (line,) = [line for line in lines if f" {name} " in line]
        assert text[:60] in line


def test_it_names_the_stand_ins_and_says_that_errors_are_injected() -> None:
    opening = Options(20, 50, 200, None).opening
    assert re.search(r"Stand-ins: for Kafka.*;\nfor Pendo", opening)
    assert "503, on purpose" in opening
    assert "none for Kafka: yours is used (broker:9092)" in Options(20, 50, 200, "broker:9092").opening
    assert "503: 2 %, on purpose" in "\n".join(drawn(LONGEST, 80))


def test_it_says_duplicates_like_the_rest_of_flagpost() -> None:
    file = io.StringIO()
    terminal = Terminal(file=file, width=80)
    print_table(terminal, Reconciliation(rows={("checkout_redesign", "treatment"): Counts()}))
    print_next_steps(terminal)
    told = "\n".join([*drawn(LONGEST, 80), plain_line(LONGEST), file.getvalue()])
    assert "repeat" not in told
    assert "duplicates" in file.getvalue()


@pytest.mark.parametrize("rare", [{}, {"pending": 12}, {"dropped": 3, "dead_lettered": 1, "pending": 12}])
def test_no_heading_of_the_table_is_cut_at_80_columns(rare: dict[str, int]) -> None:
    file = io.StringIO()
    counts = Counts(published=99_999, delivered=99_999, duplicate=99_999, unexplained=9_999)
    counts = replace(counts, **rare)  # type: ignore[arg-type]  # they are counts
    print_table(
        Terminal(file=file, width=80), Reconciliation(rows={("checkout_redesign", "treatment"): counts})
    )
    lines = file.getvalue().splitlines()
    assert max(map(len, lines)) <= 80
    assert "…" not in file.getvalue()
    (total,) = [line for line in lines if "all track events" in line]
    assert not rare or f" {sum(rare.values())} " in total


@pytest.mark.parametrize(
    ("is_terminal", "term", "drawn"),
    [(True, "xterm-256color", True), (True, "dumb", False), (False, "xterm-256color", False)],
)
def test_a_terminal_that_cannot_redraw_gets_lines(is_terminal: bool, term: str, drawn: bool) -> None:
    terminal = Terminal(file=io.StringIO(), force_terminal=is_terminal, _environ={"TERM": term})
    assert shows_picture(terminal) is drawn
