"""The output of `flagpost rehearse`, and the options and settings that it refuses."""

from __future__ import annotations

from collections import Counter
from io import StringIO

from click.testing import CliRunner

from flagpost_consumer.commands.cli import flagpost
from flagpost_consumer.commands.rehearse.differences import Change, Differences, Example, LeftOut
from flagpost_consumer.commands.rehearse.reading import Rehearsal
from flagpost_consumer.commands.rehearse.report import PLAIN_WIDTH, as_json, show
from flagpost_consumer.core.outcomes import Kind, Reason
from flagpost_consumer.terminal.rich_console import Terminal


def rehearsal() -> Rehearsal:
    found = Differences(same=90, left_out=Counter({LeftOut.PENDING: 3}))
    for number in range(7):
        found.compare(
            Change(Kind.TRACK, Reason.OK, Reason.FLAG_FILTERED), Example(2, number, f"[bold]e{number}")
        )
    found.compare(Change(Kind.VISITOR_METADATA, Reason.UNCHANGED, None), Example(2, 9, None))
    found.compare(Change(Kind.TRACK, Reason.OK, Reason.OK), Example(2, 10, "e10"))
    return Rehearsal(1_795_905_600_000, 1_795_912_800_000, found, cut_offsets=4)


def shown(found: Rehearsal) -> str:
    out = StringIO()
    show(found, Terminal(file=out, width=PLAIN_WIDTH, highlight=False))
    return out.getvalue()


def test_the_document_has_every_difference_and_what_is_left_out() -> None:
    document = as_json(rehearsal())
    assert document["window"] == {"since": 1_795_905_600_000, "until": 1_795_912_800_000, "cut_offsets": 4}
    assert (document["compared"], document["same"], document["different"]) == (99, 91, 8)
    first, second = document["differences"]
    assert first["ledger"] == {"outcome": "delivered", "reason": "ok"}
    assert first["rehearsed"] == {"outcome": "dropped", "reason": "flag_filtered"}
    assert (first["kind"], first["count"], len(first["examples"])) == ("track", 7, 5)
    assert first["examples"][0] == {"partition": 2, "offset": 0, "event_id": "[bold]e0"}
    assert (second["kind"], second["rehearsed"], second["count"]) == ("visitor_metadata", None, 1)
    assert document["left_out"] == {**{why.value: 0 for why in LeftOut}, "pending": 3}
    assert document["warnings"][0].startswith("The ledger no longer covers 4 offsets")


def test_the_text_for_people_is_a_table_and_a_summary() -> None:
    lines = [line.split() for line in shown(rehearsal()).splitlines()]
    assert ["track", "delivered/ok", "dropped/flag_filtered", "7", "2/0,", "[bold]e0"] in lines
    assert ["visitor_metadata", "duplicate/unchanged", "not", "planned", "1", "2/9"] in lines
    assert ["Left", "out:", "3", "deliveries", "have", "not", "ended", "yet."] in lines
    assert lines[-1] == ["8", "of", "99", "deliveries", "would", "end", "differently."]


def test_without_a_difference_there_is_no_table() -> None:
    found = Rehearsal(None, 1_795_912_800_000, Differences(same=90))
    assert shown(found).splitlines() == [
        "From the beginning to 2026-11-29 00:40:00Z",
        "No difference: 90 deliveries would end as in the ledger.",
    ]


def test_differences_that_a_hand_over_makes_are_told() -> None:
    """Before the fix, they looked like those of a release or a setting."""
    found = rehearsal()
    assert not any("hand-overs" in text for text in as_json(found)["warnings"])
    for ledger in (Reason.OK, Reason.SUPERSEDED):
        found.differences.compare(
            Change(Kind.VISITOR_METADATA, ledger, Reason.UNCHANGED), Example(2, 11, None)
        )
    told = "2 of the differences may come from hand-overs"
    assert as_json(found)["warnings"][-1].startswith(told)
    assert told in shown(found)


def test_an_empty_window_is_a_usage_error() -> None:
    environ = {"FLAGPOST_KAFKA__BOOTSTRAP_SERVERS": "127.0.0.1:1"}
    result = CliRunner().invoke(flagpost, ["rehearse", "--since", "1h", "--until", "2h"], env=environ)
    assert result.exit_code == 2, result.output
    assert "--since is not before --until" in result.stderr


def test_no_brokers_in_the_settings_is_exit_code_2() -> None:
    result = CliRunner().invoke(
        flagpost, ["rehearse"], env={"FLAGPOST_KAFKA__BOOTSTRAP_SERVERS": None, "FLAGPOST_CONFIG": None}
    )
    assert result.exit_code == 2, result.output
    assert "kafka.bootstrap_servers" in result.stderr
