"""`flagpost dead-letters list` and `show` against a real Kafka."""

from __future__ import annotations

from base64 import b64decode
from collections.abc import Callable

import orjson
import pytest
from click.testing import CliRunner

from dead_letter_topics import DeadLetterTopics, letter, step, wall_ms
from flagpost_consumer.commands.cli import flagpost
from flagpost_schemas import DecisionEvent
from real_kafka.broker import KafkaBroker

pytestmark = pytest.mark.kafka

DECISION = DecisionEvent(
    event_id="d1",
    occurred_at=1_000,
    visitor_id="zoë",
    flag_key="checkout",
    enabled=True,
    variation_key="b",
    decision_event_dispatched=True,
    attributes={"plan": "pro"},
)


@pytest.fixture
def topics(kafka: KafkaBroker, fresh_name: Callable[[str], str]) -> DeadLetterTopics:
    return DeadLetterTopics(kafka, fresh_name("letters"))


def test_list_has_the_fields_of_the_contract_and_the_oldest_comes_first(
    topics: DeadLetterTopics,
) -> None:
    young, old = topics.bury(
        letter(step("e2"), at=2_000, reason="expired", detail="too old", attempts=0, status=None),
        letter(DECISION, at=1_000, kind="visitor_metadata", source="events/2/9", attempts=3),
    )
    assert topics.listed() == [
        {
            "partition": int(old.split("/")[0]),
            "offset": int(old.split("/")[1]),
            "at": 1_000,
            "reason": "rejected",
            "detail": "Pendo said no",
            "kind": "visitor_metadata",
            "source": "events/2/9",
            "attempts": 3,
            "status": 400,
            "key": "zoë",
            "replayed": False,
        },
        {
            "partition": int(young.split("/")[0]),
            "offset": int(young.split("/")[1]),
            "at": 2_000,
            "reason": "expired",
            "detail": "too old",
            "kind": "track",
            "source": "events/0/7",
            "attempts": 0,
            "status": None,
            "key": "v1",
            "replayed": False,
        },
    ]


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        ([], [0, 1, 2, 3]),
        (["--reason", "expired"], [1]),
        (["--reason", "expired", "--reason", "invalid"], [1, 2]),
        (["--visitor", "v2"], [2, 3]),
        (["--since", "40m"], [2, 3]),
        (["--until", "40m"], [0, 1]),
        (["--since", "50m", "--until", "20m"], [1, 2]),
        (["--limit", "2"], [0, 1]),
        (["--visitor", "v2", "--limit", "1"], [2]),
        (["--visitor", "nobody"], []),
    ],
)
def test_filters_are_combined(topics: DeadLetterTopics, filters: list[str], expected: list[int]) -> None:
    ages = {0: 58, 1: 45, 2: 30, 3: 10}
    reasons = ["rejected", "expired", "invalid", "rejected"]
    topics.bury(
        *(
            letter(
                step(str(n), "v1" if n < 2 else "v2"),
                at=wall_ms() - minutes * 60_000,
                reason=reasons[n],
                detail=f"number {n}",
            )
            for n, minutes in ages.items()
        )
    )
    assert [line["detail"] for line in topics.listed(*filters)] == [f"number {n}" for n in expected]


def test_since_finds_dead_letters_by_their_time_wherever_they_are(topics: DeadLetterTopics) -> None:
    """The header flagpost-at has the time of a dead letter; the topic's timestamps only reduce what is read."""
    topics.bury(*(letter(step(str(n), f"v{n}"), at=wall_ms() - n * 60_000) for n in range(20)))
    assert len(topics.listed("--since", "570s")) == 10


def test_records_of_others_are_left_alone_and_reported(topics: DeadLetterTopics) -> None:
    topics.bury(
        letter(step("e"), reason=None),
        letter(step("e"), at="yesterday"),
        letter(step("e"), replayed="nowhere"),
        letter(step("good"), detail="ours"),
    )
    result = topics.run("list", "--json")
    assert [orjson.loads(line)["detail"] for line in result.stdout.splitlines()] == ["ours"]
    assert "records without Flagpost's headers were ignored: 3" in result.stderr
    assert topics.replay() == {"matched": 1, "replayed": 1, "skipped": 0, "dry_run": False}


def test_a_second_copy_of_a_dead_letter_is_ignored_but_a_new_topics_record_is_not(
    topics: DeadLetterTopics,
) -> None:
    """A producer that was replaced may write a dead letter twice; before, both copies were listed and replayed."""
    first, other = step("e1"), step("of a topic made anew")
    topics.bury(
        letter(first, source="events/0/7", at=1_000),
        letter(first, source="events/0/7", at=1_000),
        letter(first, source="events/0/7", kind="visitor_metadata", at=2_000),
        letter(other, source="events/0/7", at=3_000),
    )
    assert [each["at"] for each in topics.listed()] == [1_000, 2_000, 3_000]
    assert topics.replay("--until", "1970-01-01T00:00:02Z")["replayed"] == 1
    assert len(topics.replayed()) == 1
    assert [each["at"] for each in topics.listed()] == [2_000, 3_000]


@pytest.mark.kafka_core
def test_people_get_a_table_with_reason_key_and_detail(topics: DeadLetterTopics) -> None:
    (place,) = topics.bury(letter(step("e1"), at=1_767_225_600_000, detail="value [red]x[/red] refused"))
    result = topics.run("list")
    assert result.exit_code == 0, result.output
    row = [" ".join(line.split()) for line in result.stdout.splitlines()]
    at = row.index(f"{place} rejected track v1")
    assert row[at + 1] == "2026-01-01 events/0/7"
    assert row[at + 2] == "00:00:00Z 1 attempt, status 400: value [red]x[/red] refused"


def test_an_empty_topic_is_an_empty_list(topics: DeadLetterTopics) -> None:
    assert topics.run("list").stdout == topics.run("list", "--json").stdout == ""
    assert topics.replay() == {"matched": 0, "replayed": 0, "skipped": 0, "dry_run": False}


def test_show_prints_headers_and_the_event_that_preview_reads(topics: DeadLetterTopics) -> None:
    (place,) = topics.bury(letter(DECISION, original=[("trace", b"abc"), ("tag", b"1"), ("tag", None)]))
    document = orjson.loads(topics.run("show", place, "--json").stdout)
    assert {key: document[key] for key in topics.listed()[0]} == topics.listed()[0]
    assert document["headers"]["trace"] == "abc"
    assert document["headers"]["tag"] == ["1", None]
    assert document["headers"]["flagpost-reason"] == "rejected"
    assert document["value"]["type"] == "decision"
    assert document["value"]["attributes"] == {"plan": "pro"}
    event = {**document["value"], "occurred_at": wall_ms()}
    preview = CliRunner().invoke(flagpost, ["preview", "-", "--json"], input=orjson.dumps(event))
    assert preview.exit_code == 0, preview.output
    assert b'"visitorId":"zo\xc3\xab"' in preview.stdout_bytes.replace(b'\\"', b'"')


@pytest.mark.parametrize(
    ("value", "why"),
    [
        (b"\xff\x00nonsense", "neither Avro's single-object encoding"),
        (b"\x00\x00\x00\x00\x07abc", "set kafka.schema_registry.url"),
        (b"\xc3\x01" + bytes(8), "upgrade Flagpost"),
    ],
)
def test_show_prints_what_cannot_be_decoded_in_base64_and_says_why(
    topics: DeadLetterTopics, value: bytes, why: str
) -> None:
    (place,) = topics.bury(letter(value, kind="unknown", reason="undecodable"))
    assert b64decode(orjson.loads(topics.run("show", place, "--json").stdout)["value"]) == value
    shown = topics.run("show", place).stdout
    assert why in shown
    assert "reason:    undecodable" in shown


def test_show_says_what_is_at_a_place_without_a_dead_letter(topics: DeadLetterTopics) -> None:
    (place,) = topics.bury(letter(step("e1")))
    assert topics.replay()["replayed"] == 1
    marker = topics.markers()[0]
    partition = marker.partition
    expected = {
        place: None,
        f"{partition}/{marker.offset}": f"is not a dead letter: it marks {place} as replayed",
        # The next offset is the transaction's end marker, which is no record.
        f"{partition}/{marker.offset + 1}": "there are gaps between offsets",
        f"{partition}/99": f"partition {partition} holds offsets 0 to ",
        f"{(partition + 1) % 3}/0": "holds nothing",
        "9/0": "has no partition 9; it has 0 to 2",
    }
    for asked, text in expected.items():
        result = topics.run("show", asked)
        assert result.exit_code == (0 if text is None else 1), asked
        assert text is None or text in result.stderr
    assert "replayed:  yes" in topics.run("show", place).stdout


def test_show_needs_a_partition_and_an_offset() -> None:
    result = CliRunner().invoke(flagpost, ["dead-letters", "show", "3-17"])
    assert result.exit_code == 2, result.output
    assert "give PARTITION/OFFSET, like 3/17" in result.stderr
