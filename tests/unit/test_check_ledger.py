"""How `flagpost check` judges a ledger."""

from __future__ import annotations

import pytest

from flagpost_consumer.commands.check.ledger import judge_ledger
from flagpost_consumer.commands.check.results import Status
from flagpost_consumer.settings import KafkaSettings
from flagpost_schemas import Settlements, encode_settlements

KAFKA = KafkaSettings(bootstrap_servers="127.0.0.1:1", group_id="ours")


def record(group: str, topic_id: str | None = "t1") -> bytes:
    return encode_settlements(
        Settlements(group=group, topic_id=topic_id, member="m", settled_at=0, entries=[], gaps=[])
    )


@pytest.mark.parametrize(
    ("values", "topic_id", "status", "words"),
    [
        ([], "t1", Status.OK, "belongs to the group ours"),
        ([record("ours"), record("ours", None)], "t1", Status.OK, "belongs to the group ours"),
        ([record("ours")], None, Status.OK, "belongs to the group ours"),
        ([record("ours"), record("theirs")], "t1", Status.FAIL, "of the group theirs"),
        ([record("ours", "t0")], "t1", Status.WARN, "only settlements of an earlier topic flagpost.events"),
        ([record("ours", "t0"), record("ours")], "t1", Status.OK, "it also holds settlements of an earlier"),
        ([record("ours", "t0"), record("theirs")], "t1", Status.FAIL, "of the group theirs"),
        ([b"\xc3\x01" + bytes(8)], "t1", Status.FAIL, "later release"),
        ([b"junk"], "t1", Status.WARN, "is skipped"),
        ([None], "t1", Status.WARN, "is skipped"),
        ([None, record("theirs")], "t1", Status.FAIL, "of the group theirs"),
        ([None, b"\xc3\x01" + bytes(8)], "t1", Status.FAIL, "later release"),
    ],
)
def test_a_ledger_is_judged_by_its_newest_records(
    values: list[bytes | None], topic_id: str | None, status: Status, words: str
) -> None:
    check = judge_ledger(KAFKA, values, topic_id)
    assert check.status is status
    assert words in check.detail
    assert bool(check.fix) is (status is not Status.OK)
