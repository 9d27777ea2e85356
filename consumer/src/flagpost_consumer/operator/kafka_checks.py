"""Checks of Kafka: does it answer, are the topics as Flagpost needs them, and may this user do what the service does.

In: settings. Out: checks. Blocks for a few calls.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from flagpost_consumer.operator.check_results import Check, fail, ok, warn
from flagpost_consumer.operator.kafka_admin import KafkaAdmin, KafkaUnavailable, RightMissing
from flagpost_consumer.operator.ledger_checks import check_ledger
from flagpost_consumer.operator.topic_rules import (
    Role,
    TopicRules,
    TopicSpec,
    TopicState,
    topic_specs,
)
from flagpost_consumer.settings import KafkaSettings, Settings
from flagpost_kafka import rights
from flagpost_kafka.rights import Operation, Resource, Right

CREATE = "run flagpost topics create"
GIVE = "give this user the right; docs/security.md lists what each program needs"


def service_rights(kafka: KafkaSettings) -> tuple[Right, ...]:
    """What the user of `flagpost consume` needs."""
    return (
        rights.reads(kafka.topic),
        rights.reads(kafka.ledger_topic),
        rights.writes(kafka.ledger_topic),
        rights.writes(kafka.dead_letter_topic),
        rights.reads(kafka.suppressions_topic),
        rights.joins(kafka.group_id),
    )


def _on_topic(kafka: KafkaSettings, topic: str) -> list[Right]:
    return [right for right in service_rights(kafka) if right[1:] == (Resource.TOPIC, topic)]


def check_kafka(settings: Settings) -> list[Check]:
    """Check the cluster, the topics, the group, and what this user may do with them.

    Raises:
        SettingsError: librdkafka refuses kafka.properties.
    """
    try:
        return _check(KafkaAdmin(settings.kafka), settings)
    except KafkaUnavailable as error:
        return [fail("kafka", str(error), "mend the connection, then check again")]


def _check(admin: KafkaAdmin, settings: Settings) -> list[Check]:
    """Raises KafkaUnavailable, but for rights that are missing: those are found."""
    specs, kafka = topic_specs(settings), settings.kafka
    hidden: dict[str, RightMissing] = {}
    topics: dict[str, TopicState] = {}
    for spec in specs:
        try:
            state = admin.state(spec.name, *(right.operation for right in _on_topic(kafka, spec.name)))
            topics |= {} if state is None else {spec.name: state}
        except RightMissing as error:
            hidden[spec.name] = error
    looks = _Looks(admin, kafka, TopicRules(settings), topics, hidden)
    answers = ok("kafka", f"{kafka.bootstrap_servers} answers")
    checks = [answers, *map(looks.topic, specs), _group(admin, kafka)]
    ledger_is_seen = kafka.ledger_topic in topics
    return [*checks, check_ledger(kafka)] if ledger_is_seen else checks


_NOT_NEEDED = {
    Role.WEBHOOKS: "only the gateway's Pendo webhooks need it",
    Role.IMPRESSIONS: "only the comparison with impressions needs it",
}
"""What it means that a topic is not there, or not seen, where the service can do without."""


@dataclass(frozen=True, slots=True)
class _Looks:
    """What is known of the topics."""

    admin: KafkaAdmin
    kafka: KafkaSettings
    rules: TopicRules
    topics: Mapping[str, TopicState]
    hidden: Mapping[str, RightMissing]

    def topic(self, spec: TopicSpec) -> Check:
        """Judge a topic, and what this user may do with it."""
        name = f"topic {spec.name}"
        state = self.topics.get(spec.name)
        if state is None:
            hidden = self.hidden.get(spec.name)
            detail, fix = ("does not exist", CREATE) if hidden is None else (str(hidden), GIVE)
            if spec.role in _NOT_NEEDED:
                return warn(name, f"{detail}; {_NOT_NEEDED[spec.role]}", fix)
            if spec.role is Role.SUPPRESSIONS and hidden is None:
                return warn(name, f"{detail}; until it does, no visitor can be suppressed", fix)
            return fail(name, detail, fix)
        if missing := self._missing(spec.name):
            return fail(name, f"the service's user needs {missing}", GIVE)
        for judge, found in ((fail, self.rules.misfits), (warn, self.rules.doubts)):
            wrong = [misfit for misfit in found(self.topics) if misfit.topic == spec.name]
            if wrong:
                details, fixes = (each.detail for each in wrong), (each.fix for each in wrong)
                return judge(name, _joined(details), _joined(fixes))
        return ok(name, str(state))

    def _missing(self, topic: str) -> str:
        """The rights on a topic that the service needs and this user does not have."""
        needed = _on_topic(self.kafka, topic)
        return _lacking(needed, self.admin.rights_on_topic(topic)) if needed else ""


def _group(admin: KafkaAdmin, kafka: KafkaSettings) -> Check:
    """Whether the service may join the group, and commit; it is not joined: partitions would move."""
    name = f"group {kafka.group_id}"
    try:
        missing = _lacking([rights.joins(kafka.group_id)], admin.rights_on_group(kafka.group_id))
    except RightMissing as error:
        return fail(name, str(error), GIVE)
    if missing:
        return fail(name, f"the service's user needs {missing}", GIVE)
    return ok(name, "this user may join it and commit")


def _lacking(needed: Iterable[Right], given: frozenset[Operation] | None) -> str:
    """The rights that are not given. Kafka before 2.3 does not tell what is."""
    if given is None:
        return ""
    return " and ".join(str(right) for right in needed if right.operation not in given)


def _joined(texts: Iterator[str]) -> str:
    return "; ".join(texts)
