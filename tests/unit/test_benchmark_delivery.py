"""The parts of benchmarks/delivering.py that decide what its figures mean."""

from __future__ import annotations

import http.client
import os
import shutil
from argparse import ArgumentTypeError
from collections import Counter
from collections.abc import Sequence
from contextlib import closing
from urllib.parse import urlsplit

import pytest

from delivering import EVERY_ROW, ROWS, SECONDS, Row, of_order, summary
from delivery.events import VISITORS, Skew, draw, track_events
from delivery.receiving import IN_PYTHON, Receiver, receiver
from delivery.senders import build_go
from go_building import UNOPTIMISED
from side_by_side import Side, compare


@pytest.fixture(params=["python", pytest.param("go", marks=pytest.mark.thorough)], scope="module")
def command(request: pytest.FixtureRequest) -> Sequence[str]:
    if request.param == "python":
        return IN_PYTHON
    if shutil.which("go") is None:
        (pytest.fail if "CI" in os.environ else pytest.skip)("no Go")
    return build_go("receiver", UNOPTIMISED)


def post(receiving: Receiver, *events: tuple[str, int]) -> None:
    address = urlsplit(receiving.url)
    with closing(http.client.HTTPConnection(str(address.hostname), address.port)) as client:
        for visitor, sequence in events:
            client.request("POST", address.path, f'{{"visitorId":"{visitor}","sequence":{sequence}}}')
            assert client.getresponse().read() == b""


def test_the_receiver_finds_nothing_wrong_with_visitors_whose_events_come_in_order(
    command: Sequence[str],
) -> None:
    with receiver(command, 0.0, expect=4) as receiving:
        post(receiving, ("a", 1), ("b", 1), ("a", 2), ("a", 7))
    assert receiving.recorded["received"] == 4
    assert receiving.recorded["order_violations"] == 0
    assert receiving.recorded["hottest"] == 3


def test_the_receiver_counts_events_out_of_order_and_duplicates(command: Sequence[str]) -> None:
    with receiver(command, 0.0, expect=4) as receiving:
        post(receiving, ("a", 2), ("a", 1), ("b", 5), ("b", 5))
    assert receiving.recorded["order_violations"] == 2


def test_the_receiver_counts_a_request_that_does_not_wait_for_the_answer_before_it(
    command: Sequence[str],
) -> None:
    with receiver(command, 50.0, expect=2) as receiving:
        address = urlsplit(receiving.url)
        clients = [http.client.HTTPConnection(str(address.hostname), address.port) for _ in range(2)]
        for sequence, client in enumerate(clients, 1):
            client.request("POST", address.path, f'{{"visitorId":"a","sequence":{sequence}}}')
        for client in clients:
            client.getresponse().read()
            client.close()
    assert receiving.recorded["order_violations"] == 1
    assert receiving.recorded["latency_ms"] >= 50
    assert receiving.recorded["hottest_seconds"] >= 0.1


def test_the_receiver_reports_the_first_request_and_the_last_answer(command: Sequence[str]) -> None:
    with receiver(command, 0.0, expect=2) as receiving:
        post(receiving, ("a", 1))
        receiving.wait_for("first", lambda: None, 30)
        post(receiving, ("a", 2))
        receiving.wait_for("done", lambda: None, 30)


def test_zipf_visitors_have_the_shares_of_the_zipf_distribution() -> None:
    drawn = Counter(draw(Skew.ZIPF, 100_000))
    total = sum(rank**-1.1 for rank in range(1, VISITORS + 1))
    for rank in (1, 2, 10):
        assert drawn[rank - 1] == pytest.approx(100_000 * rank**-1.1 / total, rel=0.1)
    assert Skew.ZIPF.hottest_share == pytest.approx(1 / total)


def test_uniform_visitors_have_about_as_many_events_each() -> None:
    drawn = Counter(draw(Skew.UNIFORM, 100_000))
    assert len(drawn) == VISITORS
    assert max(drawn.values()) < 3 * 100_000 / VISITORS


def test_a_smaller_draw_is_the_beginning_of_a_larger_one() -> None:
    assert draw(Skew.ZIPF, 2_000)[:500] == draw(Skew.ZIPF, 500)


def test_the_events_of_a_visitor_are_numbered_in_their_order() -> None:
    seen: Counter[str | None] = Counter()
    for event in track_events(Skew.ZIPF, 1_000):
        seen[event.visitor_id] += 1
        assert event.properties["sequence"] == seen[event.visitor_id]
        assert len(event.properties) == 5


@pytest.mark.parametrize("row", EVERY_ROW, ids=str)
def test_a_row_is_parsed_from_its_name(row: Row) -> None:
    assert Row.parse(str(row)) == row


def test_the_usual_rows_are_among_all() -> None:
    assert set(ROWS) < set(EVERY_ROW)
    assert len(set(EVERY_ROW)) == 24


@pytest.mark.parametrize("text", ["5 ms", "5 ms zipf", "5ms zipf 64", "5 ms skewed 64", "5 ms zipf 64 ssl"])
def test_a_value_that_is_not_a_row_is_refused(text: str) -> None:
    with pytest.raises(ArgumentTypeError, match="is not a row"):
        Row.parse(text)


def test_a_row_of_strict_order_has_no_more_events_than_the_hottest_visitor_can_take() -> None:
    row = Row.parse("5 ms zipf 64")
    assert row.events * row.skew.hottest_share * 0.005 == pytest.approx(SECONDS, rel=0.01)


def test_figures_are_per_event_and_include_those_of_the_receiver() -> None:
    used = {"cpu_seconds": 2.0, "working_cpu_seconds": 1.0, "peak_mb": 50.0}
    recorded = {
        "seconds": 10.0,
        "received": 1_002,
        "order_violations": 2,
        "cpu_seconds": 1.0,
        "latency_ms": 5.0,
    }
    assert summary(used, recorded, 1_000) == {
        "events_per_second": 100,
        "cpu_us_per_event": 2_000,
        "events_per_cpu_second": 1_000,
        "peak_mb": 50,
        "order_violations": 2,
        "repeats": 2,
        "receiver_percent": 10,
        "receiver_latency_ms": 5,
    }


def test_the_bound_is_the_time_of_the_hottest_visitors_answers_alone() -> None:
    figures = of_order({"seconds": 10.0, "hottest_seconds": 8.0, "cycle_ms": 6.0})
    assert figures == {"hottest_cycle_ms": 6.0, "percent_of_bound": pytest.approx(80)}


def test_sides_take_turns_and_the_first_is_the_reference() -> None:
    ran: list[str] = []

    def side(name: str, *values: float) -> Side:
        left = iter(values)

        def run() -> dict[str, float]:
            ran.append(name)
            return {"events": next(left)}

        return Side(name, run)

    there = [side("a", 10, 30, 20), side("b", 40, 30, 50), Side("c", dict, missing="no c here")]
    compared = compare("what", there, 3)
    assert ran == ["a", "b"] * 3
    assert compared.median("b", "events") == 40
    assert compared.ratio("b", "events") == 2
    assert "no c here" in compared.table()
