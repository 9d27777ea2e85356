"""Every rule for topics (docs/contract.md#topics), each with values just within it and just outside."""

from __future__ import annotations

from dataclasses import replace

import pytest

from flagpost_consumer.commands.topics.rules import (
    DAY_MS,
    DEAD_LETTER_EXTRA_BYTES,
    EVENT_EXTRA_BYTES,
    LEDGER_BYTES,
    MAX_RECORD_BYTES,
    TopicRules,
    TopicSpec,
    TopicState,
    topic_specs,
)
from flagpost_consumer.settings import KafkaSettings, Settings

SETTINGS = Settings(kafka=KafkaSettings(bootstrap_servers="k:1"))
EVENTS, LEDGER, DEAD_LETTERS, WEBHOOKS, SUPPRESSIONS = (spec.name for spec in topic_specs(SETTINGS))
FOR_EVER = float("inf")
LEAST_EVENTS_MS = 600_000_000 + 2 * DAY_MS


def _as_created(spec: TopicSpec, partitions: int = 24) -> TopicState:
    if spec.retention_ms is None:
        return TopicState(1, 7 * DAY_MS, spec.max_message_bytes, "compact")
    return TopicState(partitions, spec.retention_ms, spec.max_message_bytes, "delete")


def _cluster() -> dict[str, TopicState]:
    return {spec.name: _as_created(spec) for spec in topic_specs(SETTINGS)}


def test_the_topics_are_those_of_the_contract() -> None:
    assert {spec.name: spec.retention_ms for spec in topic_specs(SETTINGS)} == {
        "flagpost.events": 14 * DAY_MS,
        "flagpost.ledger": 26 * DAY_MS,
        "flagpost.dead-letters": 26 * DAY_MS,
        "flagpost.pendo-webhooks": 14 * DAY_MS,
        "flagpost.suppressions": None,
    }


def test_segments_last_at_most_a_day_so_that_retention_is_exact_to_a_day() -> None:
    for spec in topic_specs(SETTINGS):
        assert 0 < int(spec.config(3)["segment.ms"]) <= DAY_MS
        assert spec.config(1)["cleanup.policy"] == ("compact" if spec.name == SUPPRESSIONS else "delete")


@pytest.mark.parametrize("name", [EVENTS, LEDGER, DEAD_LETTERS, WEBHOOKS, SUPPRESSIONS])
def test_segments_of_a_week_are_doubted_and_those_of_a_day_are_not(name: str) -> None:
    cluster = _cluster()
    assert TopicRules(SETTINGS).doubts(cluster) == []
    cluster[name] = replace(cluster[name], segment_ms=7 * DAY_MS)
    (doubt,) = TopicRules(SETTINGS).doubts(cluster)
    assert doubt.topic == name
    assert "7 d" in doubt.detail
    assert doubt.fix.endswith(f"--entity-name {name} --add-config segment.ms={DAY_MS}")


@pytest.mark.parametrize("policy", ["delete", "compact,delete"])
def test_suppressions_that_would_be_deleted_do_not_fit(policy: str) -> None:
    cluster = _cluster()
    cluster[SUPPRESSIONS] = replace(cluster[SUPPRESSIONS], cleanup_policy=policy)
    (misfit,) = TopicRules(SETTINGS).misfits(cluster)
    assert misfit.fix.endswith(f"--entity-name {SUPPRESSIONS} --add-config cleanup.policy=compact")


def test_the_suppressions_topic_may_have_any_number_of_partitions_and_is_created_with_one() -> None:
    cluster = _cluster()
    cluster[SUPPRESSIONS] = replace(cluster[SUPPRESSIONS], partitions=24)
    assert TopicRules(SETTINGS, 24).misfits(cluster) == []
    assert {spec.name: spec.partitions(24) for spec in topic_specs(SETTINGS)} == {
        EVENTS: 24,
        LEDGER: 24,
        DEAD_LETTERS: 24,
        WEBHOOKS: 24,
        SUPPRESSIONS: 1,
    }


def test_an_impressions_topic_is_checked_if_it_is_named_and_may_have_any_number_of_partitions() -> None:
    settings = Settings(kafka=KafkaSettings(impressions_topic="counts"))
    (spec,) = [each for each in topic_specs(settings) if each not in topic_specs(SETTINGS)]
    assert (spec.name, spec.retention_ms) == ("counts", 14 * DAY_MS)
    cluster = {**_cluster(), "counts": _as_created(spec, partitions=1)}
    assert TopicRules(settings, 24).misfits(cluster) == []
    cluster["counts"] = replace(cluster["counts"], cleanup_policy="compact")
    (misfit,) = TopicRules(settings, 24).misfits(cluster)
    assert misfit.topic == "counts"


def test_the_names_of_topics_come_from_the_settings() -> None:
    kafka = KafkaSettings(topic="a", ledger_topic="b", dead_letter_topic="c")
    assert [spec.name for spec in topic_specs(Settings(kafka=kafka))][:3] == ["a", "b", "c"]


@pytest.mark.parametrize(("replication", "in_sync"), [(1, "1"), (2, "1"), (3, "2"), (5, "2")])
def test_a_write_survives_the_loss_of_a_replica_where_there_are_three(replication: int, in_sync: str) -> None:
    assert topic_specs(SETTINGS)[0].config(replication)["min.insync.replicas"] == in_sync


def test_created_topics_fit() -> None:
    assert TopicRules(SETTINGS, 24).misfits(_cluster()) == []
    assert TopicRules(SETTINGS).misfits(_cluster()) == []


@pytest.mark.parametrize("name", [EVENTS, LEDGER, DEAD_LETTERS, WEBHOOKS])
def test_topics_that_are_not_there_are_not_judged(name: str) -> None:
    assert TopicRules(SETTINGS).misfits({name: _cluster()[name]}) == []


@pytest.mark.parametrize("name", [LEDGER, DEAD_LETTERS, WEBHOOKS])
def test_topics_must_have_as_many_partitions_as_the_events_topic(name: str) -> None:
    cluster = _cluster()
    cluster[name] = replace(cluster[name], partitions=12)
    (misfit,) = TopicRules(SETTINGS).misfits(cluster)
    assert misfit.topic == name
    assert "12 partitions instead of 24" in misfit.detail
    assert misfit.fix == f"kafka-topics.sh --bootstrap-server k:1 --alter --topic {name} --partitions 24"


def test_more_partitions_than_requested_are_kept() -> None:
    misfits = TopicRules(SETTINGS, 12).misfits(_cluster())
    assert {misfit.topic for misfit in misfits} == {EVENTS, LEDGER, DEAD_LETTERS, WEBHOOKS}
    assert all("flagpost topics create --partitions 24" in misfit.fix for misfit in misfits)


@pytest.mark.parametrize(
    ("events_ms", "ledger_ms", "topics"),
    [
        (LEAST_EVENTS_MS, LEAST_EVENTS_MS, []),
        (LEAST_EVENTS_MS - 1, 26 * DAY_MS, [EVENTS]),
        (14 * DAY_MS, 14 * DAY_MS - 1, [LEDGER]),
        (FOR_EVER, 26 * DAY_MS, [LEDGER]),
        (FOR_EVER, FOR_EVER, []),
        (14 * DAY_MS, FOR_EVER, []),
        (LEAST_EVENTS_MS - 1, LEAST_EVENTS_MS - 2, [EVENTS, LEDGER]),
    ],
)
def test_retention(events_ms: float, ledger_ms: float, topics: list[str]) -> None:
    cluster = _cluster()
    cluster[EVENTS] = replace(cluster[EVENTS], retention_ms=events_ms)
    cluster[LEDGER] = replace(cluster[LEDGER], retention_ms=ledger_ms)
    assert [misfit.topic for misfit in TopicRules(SETTINGS).misfits(cluster)] == topics


def test_the_fix_for_retention_is_a_value_that_fits() -> None:
    cluster = _cluster()
    cluster[EVENTS] = replace(cluster[EVENTS], retention_ms=FOR_EVER)
    (misfit,) = TopicRules(SETTINGS).misfits(cluster)
    assert misfit.fix == (
        "kafka-configs.sh --bootstrap-server k:1 --alter --entity-type topics "
        f"--entity-name {LEDGER} --add-config retention.ms=-1"
    )


@pytest.mark.parametrize(
    ("extra_bytes", "fits"), [(DEAD_LETTER_EXTRA_BYTES, True), (DEAD_LETTER_EXTRA_BYTES - 1, False)]
)
def test_dead_letters_have_room_for_headers(extra_bytes: int, *, fits: bool) -> None:
    cluster = _cluster()
    cluster[EVENTS] = replace(cluster[EVENTS], max_message_bytes=2_000_000)
    cluster[DEAD_LETTERS] = replace(cluster[DEAD_LETTERS], max_message_bytes=2_000_000 + extra_bytes)
    misfits = TopicRules(SETTINGS).misfits(cluster)
    assert [misfit.topic for misfit in misfits] == ([] if fits else [DEAD_LETTERS])


@pytest.mark.parametrize(
    ("name", "most_bytes", "fits"),
    [
        (EVENTS, 65_536 + EVENT_EXTRA_BYTES, True),
        (EVENTS, 65_536 + EVENT_EXTRA_BYTES - 1, False),
        (LEDGER, LEDGER_BYTES, True),
        (LEDGER, LEDGER_BYTES - 1, False),
    ],
)
def test_a_topic_takes_the_largest_record_that_is_written_to_it(
    name: str, most_bytes: int, *, fits: bool
) -> None:
    """Before the fix, `check` accepted an events topic that refuses events which the publisher accepts."""
    cluster = _cluster()
    cluster[name] = replace(cluster[name], max_message_bytes=most_bytes)
    misfits = TopicRules(SETTINGS).misfits(cluster)
    assert [misfit.topic for misfit in misfits] == ([] if fits else [name])
    assert all(misfit.fix.endswith(f"max.message.bytes={most_bytes + 1}") for misfit in misfits)


@pytest.mark.parametrize("max_event_bytes", [1, 65_536, MAX_RECORD_BYTES, 3_000_000])
def test_topics_are_created_for_the_largest_event_that_the_settings_allow(max_event_bytes: int) -> None:
    settings = Settings(kafka=KafkaSettings(bootstrap_servers="k:1", max_event_bytes=max_event_bytes))
    cluster = {spec.name: _as_created(spec) for spec in topic_specs(settings)}
    assert cluster[EVENTS].max_message_bytes >= max(max_event_bytes, MAX_RECORD_BYTES)
    assert TopicRules(settings).misfits(cluster) == []
    assert TopicRules(settings).doubts(cluster) == []


@pytest.mark.parametrize("policy", ["compact", "compact,delete"])
def test_compaction_does_not_fit_because_it_would_delete_records(policy: str) -> None:
    cluster = _cluster()
    cluster[EVENTS] = replace(cluster[EVENTS], cleanup_policy=policy)
    (misfit,) = TopicRules(SETTINGS).misfits(cluster)
    assert policy in misfit.detail
    assert "cleanup.policy=delete" in misfit.fix


@pytest.mark.parametrize(
    ("properties", "largest_bytes"),
    [({}, 4_000_000), ({"receive.message.max.bytes": "30000000"}, 30_000_000)],
)
def test_batches_that_the_consumer_would_not_read_are_doubted(
    properties: dict[str, str], largest_bytes: int
) -> None:
    """Before the fix, `check` accepted a topic that allows batches of any size."""
    rules = TopicRules(Settings(kafka=KafkaSettings(bootstrap_servers="k:1", properties=properties)))
    cluster = _cluster()
    assert rules.doubts(cluster) == []
    cluster[EVENTS] = replace(cluster[EVENTS], max_message_bytes=largest_bytes)
    assert rules.doubts(cluster) == []
    cluster[EVENTS] = replace(cluster[EVENTS], max_message_bytes=largest_bytes + 1)
    (doubt,) = rules.doubts(cluster)
    assert doubt.topic == EVENTS
    assert str(largest_bytes + 1) in doubt.detail
    assert f"receive.message.max.bytes in kafka.properties to {3 * (largest_bytes + 1)}" in doubt.fix
    assert rules.doubts({LEDGER: cluster[LEDGER]}) == []
