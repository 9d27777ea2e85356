"""A 400 that names records: their deliveries end, and the others are sent once more without them."""

from __future__ import annotations

from random import Random

import orjson
import pytest

from engine_world import OK, START_MS, World
from flagpost_consumer.core.metadata.answers import MAX_DETAIL_CHARACTERS, RecordErrors, read_errors
from flagpost_consumer.core.metadata.sending import MetadataAttempt
from flagpost_consumer.core.outcomes import Kind, Reason
from flagpost_consumer.core.pendo.attempts import Attempt
from flagpost_consumer.core.pendo.verdict import Answer
from flagpost_consumer.core.policy import Policy
from flagpost_schemas import AccountMetadata, VisitorMetadata

COUNT, BAD = 100, "37"


def event(kind: Kind, number: int) -> VisitorMetadata | AccountMetadata:
    """An event of the visitor or account whose id is this number in digits."""
    if kind is Kind.VISITOR_METADATA:
        return VisitorMetadata(
            event_id=f"e{number}", occurred_at=START_MS, visitor_id=str(number), values={"plan": "pro"}
        )
    return AccountMetadata(
        event_id=f"e{number}", occurred_at=START_MS, account_id=str(number), values={"plan": "pro"}
    )


@pytest.mark.parametrize(
    ("kind", "error"),
    [
        (Kind.VISITOR_METADATA, {"index": 37, "error": "no such value"}),
        (Kind.VISITOR_METADATA, {"id": BAD, "message": "no such value"}),
        (Kind.VISITOR_METADATA, {"visitorId": BAD, "reason": "no such value"}),
        (Kind.VISITOR_METADATA, {"visitorId": int(BAD), "error": "no such value"}),
        (Kind.ACCOUNT_METADATA, {"accountId": BAD, "error": "no such value"}),
    ],
)
def test_only_the_named_record_ends(kind: Kind, error: dict[str, object]) -> None:
    def answering(_: World, attempt: Attempt) -> tuple[Answer, float, float]:
        assert isinstance(attempt, MetadataAttempt)
        refused = Answer(400, body=orjson.dumps({"errors": [error]}))
        return (refused if BAD in attempt.batch.ids else OK), 0.0, 0.01

    world = World(Policy(), Random(1), answering=answering)
    for number in range(COUNT):
        world.publish(event(kind, number))
    world.join()
    world.run()
    world.check_nothing_lost()
    reasons = world.reasons(kind)
    assert reasons.pop((0, 37)) is Reason.REJECTED
    assert set(reasons.values()) == {Reason.OK}
    assert world.settled[0, 37, kind][0].ending.detail == "Pendo: no such value"
    assert [len(sight.ids) for sight in world.sights] == [COUNT, COUNT - 1]


def test_an_id_that_pendo_does_not_know_is_refused_and_one_that_was_not_sent_is_ignored() -> None:
    errors = read_errors(
        orjson.dumps({"missing": ["stranger", "", None, 7, "known"]}), ["known", "7", "other"]
    )
    assert set(errors.refused) == {"known", "7"}
    assert errors.unnamed == 0


@pytest.mark.parametrize("error", ["no such value", 37, None, ["37"]])
def test_an_error_that_is_no_object_names_no_record(error: object) -> None:
    body = orjson.dumps({"failed": 1, "errors": [error]})
    assert read_errors(body, ["37", "38"]) == RecordErrors({}, unnamed=1)


def test_an_error_without_a_text_is_still_reported() -> None:
    body = orjson.dumps(
        {"errors": [{"index": 0}, {"index": 1, "error": 5, "message": "", "reason": "too long"}]}
    )
    assert read_errors(body, ["a", "b"]).refused == {
        "a": "Pendo refused the record without saying why",
        "b": "Pendo: too long",
    }


@pytest.mark.parametrize(
    "body", [b"", b"not JSON", b"null", b'["a"]', b'{"missing": 5, "errors": {"id": "a"}}', b"{}"]
)
def test_an_answer_of_another_form_names_no_record(body: bytes) -> None:
    assert read_errors(body, ["a", "b"]) == RecordErrors({}, unnamed=0)


@pytest.mark.parametrize("missing", [None, True, 1.0, ["1"], {"id": "1"}])
def test_a_value_that_is_no_id_names_no_record(missing: object) -> None:
    body = orjson.dumps({"missing": [missing], "errors": [{"id": missing}]})
    assert read_errors(body, ["", "None", "True", "1.0", "1"]).refused == {}


def test_an_unknown_id_is_refused_with_the_reason_that_creating_is_off() -> None:
    (detail,) = read_errors(b'{"missing": ["a"]}', ["a", "b"]).refused.values()
    assert "metadata.create_missing" in detail


@pytest.mark.parametrize(
    ("index", "named"),
    [(-1, []), (0, ["a"]), (1, ["b"]), (2, []), (True, []), ("0", []), (0.0, []), (None, [])],
)
def test_an_index_names_a_record_if_it_is_a_number_within_the_request(
    index: object, named: list[str]
) -> None:
    assert (
        list(read_errors(orjson.dumps({"errors": [{"index": index, "error": "no"}]}), ["a", "b"]).refused)
        == named
    )


def test_an_error_that_names_an_id_of_the_request_and_an_index_is_about_the_id() -> None:
    body = orjson.dumps({"errors": [{"index": 0, "id": "stranger", "visitorId": "b", "error": "no"}]})
    assert read_errors(body, ["a", "b"]).refused == {"b": "Pendo: no"}


@pytest.mark.parametrize(
    ("failed", "unnamed"),
    [(0, 0), (1, 0), (2, 1), (3, 2), (4, 2), (-1, 0), (True, 0), ("3", 0), (2.0, 0), (None, 0)],
)
def test_failed_records_that_are_not_named_are_counted_up_to_the_size_of_the_request(
    failed: object, unnamed: int
) -> None:
    body = orjson.dumps({"failed": failed, "errors": [{"id": "a"}]})
    assert read_errors(body, ["a", "b", "c"]).unnamed == unnamed


def test_the_text_of_pendo_about_a_record_is_shortened() -> None:
    body = orjson.dumps({"errors": [{"id": "a", "error": "x" * 1_000}]})
    (detail,) = read_errors(body, ["a"]).refused.values()
    assert len(detail) <= len("Pendo: ") + MAX_DETAIL_CHARACTERS
    assert detail.startswith("Pendo: " + "x" * (MAX_DETAIL_CHARACTERS - 10))
