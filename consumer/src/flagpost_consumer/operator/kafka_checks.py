"""Checks of Kafka: does it answer, and are the topics as Flagpost needs them.

In: settings. Out: checks. Blocks for a few calls.
"""

from __future__ import annotations

from collections.abc import Iterator

from flagpost_consumer.operator.check_results import Check, fail, ok, warn
from flagpost_consumer.operator.kafka_admin import KafkaAdmin, KafkaUnavailable
from flagpost_consumer.operator.ledger_checks import check_ledger
from flagpost_consumer.operator.topic_rules import (
    Misfit,
    Role,
    TopicRules,
    TopicSpec,
    TopicState,
    topic_specs,
)
from flagpost_consumer.settings import Settings

CREATE = "run flagpost topics create"


def check_kafka(settings: Settings) -> list[Check]:
    """Check the cluster and the topics.

    Raises:
        SettingsError: librdkafka refuses kafka.properties.
    """
    specs = topic_specs(settings)
    try:
        topics = KafkaAdmin(settings.kafka).states(spec.name for spec in specs)
    except KafkaUnavailable as error:
        return [fail("kafka", str(error), "mend the connection, then check again")]
    rules = TopicRules(settings)
    misfits, doubts = rules.misfits(topics), rules.doubts(topics)
    answers = ok("kafka", f"{settings.kafka.bootstrap_servers} answers")
    checks = [answers, *(_topic(spec, topics.get(spec.name), misfits, doubts) for spec in specs)]
    return [*checks, check_ledger(settings.kafka)] if settings.kafka.ledger_topic in topics else checks


def _topic(spec: TopicSpec, state: TopicState | None, misfits: list[Misfit], doubts: list[Misfit]) -> Check:
    name = f"topic {spec.name}"
    if state is None and spec.role is Role.WEBHOOKS:
        return warn(name, "does not exist; only the gateway's Pendo webhooks need it", CREATE)
    if state is None and spec.role is Role.SUPPRESSIONS:
        return warn(name, "does not exist; until it does, no visitor can be suppressed", CREATE)
    if state is None:
        return fail(name, "does not exist", CREATE)
    for judge, found in ((fail, misfits), (warn, doubts)):
        wrong = [misfit for misfit in found if misfit.topic == spec.name]
        if wrong:
            details, fixes = (each.detail for each in wrong), (each.fix for each in wrong)
            return judge(name, _joined(details), _joined(fixes))
    return ok(name, str(state))


def _joined(texts: Iterator[str]) -> str:
    return "; ".join(texts)
