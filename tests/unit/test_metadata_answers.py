"""A 400 that names its records: those end, the others go out once more without them."""

from __future__ import annotations

from random import Random

import orjson
import pytest

from engine_world import OK, START_MS, World
from flagpost_consumer.core.metadata.answers import RecordErrors, read_errors
from flagpost_consumer.core.metadata.sending import MetadataAttempt
from flagpost_consumer.core.outcomes import Kind, Reason
from flagpost_consumer.core.pendo.attempts import Attempt
from flagpost_consumer.core.pendo.verdict import Answer
from flagpost_consumer.core.policy import Policy
from flagpost_schemas import AccountMetadata, VisitorMetadata

COUNT, BAD = 100, "37"


def event(kind: Kind, number: int) -> VisitorMetadata | AccountMetadata:
    """Of a visitor or account whose id is a number in digits."""
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
