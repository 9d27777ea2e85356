"""Which settlements of the ledger the commands and the page count, whether or not Kafka tells the topic's id."""

from __future__ import annotations

import pytest

from flagpost_consumer.commands.reconcile.own_settlements import OwnSettlements, TopicUnknown
from flagpost_consumer.settings import KafkaSettings
from flagpost_schemas import Settlements

KAFKA = KafkaSettings(group_id="ours")


def about(topic_id: str | None, group: str = "ours") -> Settlements:
    return Settlements(group=group, topic_id=topic_id, member="m", settled_at=0, entries=[], gaps=[])


def included(own: OwnSettlements, *topic_ids: str | None) -> list[bool]:
    return [own.include(about(topic_id)) for topic_id in topic_ids]


@pytest.mark.parametrize("topic_id", ["new", None])
def test_settlements_of_another_group_do_not_count(topic_id: str | None) -> None:
    own = OwnSettlements(KAFKA, topic_id)
    assert not own.include(about("new", group="theirs"))
    assert not own.include(about("old", group="theirs"))


def test_with_an_id_only_its_settlements_count_and_those_without_one() -> None:
    assert included(OwnSettlements(KAFKA, "new"), "old", "new", None) == [False, True, True]


def test_without_an_id_the_settlements_of_one_topic_count() -> None:
    assert included(OwnSettlements(KAFKA, None), None, "some", "some", None) == [True] * 4


def test_without_an_id_settlements_of_two_topics_are_an_error() -> None:
    """They were counted together: those of the deleted topic as settlements of the present one's events."""
    own = OwnSettlements(KAFKA, None)
    own.include(about("old"))
    with pytest.raises(TopicUnknown, match=r"several topics that were named flagpost\.events"):
        own.include(about("new"))


def test_an_id_that_is_told_late_agrees_with_the_assumed_one() -> None:
    own = OwnSettlements(KAFKA, None)
    own.include(about("new"))
    assert own.agree(None)
    assert own.agree("new")
    assert not own.include(about("old"))


@pytest.mark.parametrize("known", ["old", None])
def test_another_id_does_not_agree(known: str | None) -> None:
    own = OwnSettlements(KAFKA, known)
    own.include(about("old"))
    assert not own.agree("new")


def test_an_id_that_is_told_before_any_settlement_agrees() -> None:
    own = OwnSettlements(KAFKA, None)
    assert own.agree("new")
    assert included(own, "old", "new") == [False, True]
