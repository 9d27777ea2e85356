"""Checks of Kafka: does it answer, do the topics fit, and has this user the rights that the service needs.

In: settings. Out: checks. Blocks for a few calls.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from flagpost_consumer.commands.check.ledger import check_ledger
from flagpost_consumer.commands.check.results import Check, fail, ok, warn
from flagpost_consumer.commands.sources.kafka_admin import KafkaAdmin, KafkaUnavailable, RightMissing
from flagpost_consumer.commands.topics.rules import Role, TopicRules, TopicSpec, TopicState, topic_specs
from flagpost_consumer.settings import KafkaSettings, Settings
from flagpost_kafka import rights
from flagpost_kafka.rights import Operation, Resource, Right

KAFKA = "kafka"
CREATE = "run flagpost topics create"
GIVE = "give this user the right; docs/security.md lists what each program needs"


def service_rights(settings: Settings) -> tuple[Right, ...]:
    """The rights that `flagpost consume` needs."""
    kafka = settings.kafka
    splits = kafka.impressions_topic if settings.metrics.flags else None
    return (
        rights.reads(kafka.topic),
        rights.reads(kafka.ledger_topic),
        rights.writes(kafka.ledger_topic),
        rights.writes(kafka.dead_letter_topic),
        rights.reads(kafka.suppressions_topic),
        *([] if splits is None else [rights.reads(splits)]),
        rights.joins(kafka.group_id),
    )


def _on_topic(settings: Settings, topic: str) -> list[Right]:
    return [right for right in service_rights(settings) if right[1:] == (Resource.TOPIC, topic)]


def check_kafka(settings: Settings) -> list[Check]:
    """Check the cluster, the topics, the group, and this user's rights.

    Raises:
        SettingsError: librdkafka refuses kafka.properties.
    """
    try:
        return _check(KafkaAdmin(settings.kafka), settings)
    except KafkaUnavailable as error:
        return [fail(KAFKA, str(error), "fix the connection, then check again")]


def _check(admin: KafkaAdmin, settings: Settings) -> list[Check]:
    """Raises KafkaUnavailable, except for missing rights: these are findings."""
    specs, kafka = topic_specs(settings), settings.kafka
    hidden: dict[str, RightMissing] = {}
    topics: dict[str, TopicState] = {}
    for spec in specs:
        try:
            state = admin.state(spec.name, *(right.operation for right in _on_topic(settings, spec.name)))
            topics |= {} if state is None else {spec.name: state}
        except RightMissing as error:
            hidden[spec.name] = error
    looks = _Looks(admin, settings, TopicRules(settings), topics, hidden)
    answers = ok(KAFKA, f"{kafka.bootstrap_servers} answers")
    checks = [answers, *map(looks.topic, specs), _group(admin, kafka)]
    ledger_is_seen = kafka.ledger_topic in topics
    return [*checks, check_ledger(kafka)] if ledger_is_seen else checks


_NOT_NEEDED = {
    Role.WEBHOOKS: "it is only needed for the gateway's Pendo webhooks",
    Role.IMPRESSIONS: "it is only needed to compare with Optimizely's impressions",
}
"""What a missing or invisible topic means, if the service works without it."""


@dataclass(frozen=True, slots=True)
class _Looks:
    """What is known of the topics."""

    admin: KafkaAdmin
    settings: Settings
    rules: TopicRules
    topics: Mapping[str, TopicState]
    hidden: Mapping[str, RightMissing]

    def topic(self, spec: TopicSpec) -> Check:
        """Judge a topic, and this user's rights to it."""
        name = f"topic {spec.name}"
        state = self.topics.get(spec.name)
        if state is None:
            hidden = self.hidden.get(spec.name)
            detail, fix = ("does not exist", CREATE) if hidden is None else (str(hidden), GIVE)
            if spec.role in _NOT_NEEDED:
                return warn(name, f"{detail}; {_NOT_NEEDED[spec.role]}", fix)
            if spec.role is Role.SUPPRESSIONS and hidden is None:
                return warn(name, f"{detail}; without it, no visitor can be suppressed", fix)
            return fail(name, detail, fix)
        if missing := self._missing(spec.name):
            return _needs(spec, name, missing)
        for judge, found in ((fail, self.rules.misfits), (warn, self.rules.doubts)):
            wrong = [misfit for misfit in found(self.topics) if misfit.topic == spec.name]
            if wrong:
                details, fixes = (each.detail for each in wrong), (each.fix for each in wrong)
                return judge(name, _joined(details), _joined(fixes))
        return ok(name, str(state))

    def _missing(self, topic: str) -> str:
        """The rights to a topic that the service needs and this user lacks."""
        needed = _on_topic(self.settings, topic)
        return _lacking(needed, self.admin.rights_on_topic(topic)) if needed else ""


def _needs(spec: TopicSpec, name: str, missing: str) -> Check:
    detail = f"the service's user needs {missing}"
    if spec.role is Role.IMPRESSIONS:
        return warn(name, f"{detail}; without it, the traffic allocation is not known", GIVE)
    return fail(name, detail, GIVE)


def _group(admin: KafkaAdmin, kafka: KafkaSettings) -> Check:
    """Whether the service may join the group, and commit. It does not join, because partitions would move."""
    name = f"group {kafka.group_id}"
    try:
        missing = _lacking([rights.joins(kafka.group_id)], admin.rights_on_group(kafka.group_id))
    except RightMissing as error:
        return fail(name, str(error), GIVE)
    if missing:
        return fail(name, f"the service's user needs {missing}", GIVE)
    return ok(name, "this user may join it and commit")


def _lacking(needed: Iterable[Right], given: frozenset[Operation] | None) -> str:
    """The missing rights. Kafka before 2.3 does not tell which rights exist."""
    if given is None:
        return ""
    return " and ".join(str(right) for right in needed if right.operation not in given)


def _joined(texts: Iterator[str]) -> str:
    return "; ".join(texts)
