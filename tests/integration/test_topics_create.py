"""`flagpost topics create` against a real Kafka."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from click.testing import CliRunner, Result

from flagpost_consumer.commands.cli import flagpost
from flagpost_consumer.commands.sources.kafka_admin import KafkaAdmin
from flagpost_consumer.commands.topics.rules import DAY_MS, MAX_RECORD_BYTES, TopicState
from flagpost_consumer.settings import KafkaSettings
from real_kafka.broker import KafkaBroker

pytestmark = pytest.mark.kafka

EVENTS, LEDGER, DEAD_LETTERS, WEBHOOKS, SUPPRESSIONS = (
    "TOPIC",
    "LEDGER_TOPIC",
    "DEAD_LETTER_TOPIC",
    "WEBHOOK_TOPIC",
    "SUPPRESSIONS_TOPIC",
)


class Topics:
    """The names of five topics of the test's own, and the command that creates them."""

    def __init__(self, broker: KafkaBroker, fresh_name: Callable[[str], str]) -> None:
        self.broker = broker
        keys = (EVENTS, LEDGER, DEAD_LETTERS, WEBHOOKS, SUPPRESSIONS)
        self.names = {key: fresh_name(key.lower()) for key in keys}

    @property
    def environ(self) -> dict[str, str]:
        sections = {key: "GATEWAY" if key == WEBHOOKS else "KAFKA" for key in self.names}
        named = {f"FLAGPOST_{sections[key]}__{key}": name for key, name in self.names.items()}
        return {"FLAGPOST_KAFKA__BOOTSTRAP_SERVERS": self.broker.bootstrap_servers, **named}

    def create(self, *arguments: str) -> Result:
        return CliRunner().invoke(flagpost, ["topics", "create", *arguments], env=self.environ)

    def states(self) -> dict[str, TopicState]:
        found = KafkaAdmin(KafkaSettings(bootstrap_servers=self.broker.bootstrap_servers)).states(
            self.names.values()
        )
        return {key: found[name] for key, name in self.names.items() if name in found}


@pytest.fixture
def topics(kafka: KafkaBroker, fresh_name: Callable[[str], str]) -> Topics:
    return Topics(kafka, fresh_name)


@pytest.mark.kafka_core
def test_topics_are_created_as_the_contract_says_and_only_once(topics: Topics) -> None:
    created = topics.create("--partitions", "5", "--replication", "1")
    assert created.exit_code == 0, created.output
    assert topics.states() == {
        EVENTS: TopicState(5, 14 * DAY_MS, MAX_RECORD_BYTES, "delete"),
        LEDGER: TopicState(5, 26 * DAY_MS, MAX_RECORD_BYTES, "delete"),
        DEAD_LETTERS: TopicState(5, 26 * DAY_MS, MAX_RECORD_BYTES + 65_536, "delete"),
        WEBHOOKS: TopicState(5, 14 * DAY_MS, MAX_RECORD_BYTES, "delete"),
        SUPPRESSIONS: TopicState(1, 7 * DAY_MS, MAX_RECORD_BYTES, "compact"),
    }
    assert {state.segment_ms for state in topics.states().values()} == {DAY_MS}
    again = topics.create("--partitions", "5", "--replication", "1")
    assert again.exit_code == 0, again.output
    actions = [[line.split(" ")[0] for line in result.output.splitlines()] for result in (created, again)]
    assert actions == [["created"] * 5, ["exists"] * 5]


def test_the_number_of_partitions_is_24_by_default(topics: Topics) -> None:
    created = topics.create()
    assert created.exit_code == 0, created.output
    partitions = {key: state.partitions for key, state in topics.states().items()}
    assert partitions.pop(SUPPRESSIONS) == 1
    assert set(partitions.values()) == {24}


def test_a_topic_of_impressions_is_created_where_one_is_named_and_checked(
    topics: Topics, fresh_name: Callable[[str], str]
) -> None:
    named = {
        **topics.environ,
        "FLAGPOST_KAFKA__IMPRESSIONS_TOPIC": fresh_name("impressions"),
        "FLAGPOST_PENDO__TRACK_SECRET": "a-secret",
        "FLAGPOST_PENDO__API_URL": "http://127.0.0.1:1",
        "FLAGPOST_DECISIONS__VISITOR_METADATA": "false",
    }
    name = f"topic {named['FLAGPOST_KAFKA__IMPRESSIONS_TOPIC']}"

    def check() -> str:
        result = CliRunner().invoke(flagpost, ["check", "--json"], env=named)
        return next(
            str(each["status"]) for each in json.loads(result.stdout)["checks"] if each["name"] == name
        )

    assert check() == "warn"
    created = CliRunner().invoke(flagpost, ["topics", "create", "--replication", "1"], env=named)
    assert [line.split(" ")[0] for line in created.output.splitlines()] == ["created"] * 6
    assert check() == "ok"


def test_missing_topics_are_created_and_existing_ones_are_left_unchanged(topics: Topics) -> None:
    topics.broker.create_topics(topics.names[LEDGER], partitions=2, config={"retention.ms": "-1"})
    result = topics.create("--partitions", "2", "--replication", "1", "--json")
    assert result.exit_code == 0, result.output
    actions = {topic["name"]: topic["action"] for topic in json.loads(result.stdout)["topics"]}
    assert actions.pop(topics.names[LEDGER]) == "exists"
    assert set(actions.values()) == {"created"}
    assert topics.states()[LEDGER].retention_ms == float("inf")


@pytest.mark.parametrize(
    ("key", "config", "detail", "fix"),
    [
        (EVENTS, {"retention.ms": str(DAY_MS)}, "keeps records 1 d", "retention.ms=772800000"),
        (LEDGER, {"retention.ms": str(DAY_MS)}, "less than the events' 14 d", "retention.ms=1209600000"),
        (DEAD_LETTERS, {"max.message.bytes": "1048588"}, "up to 1048588 bytes", "max.message.bytes=1114124"),
        (EVENTS, {"cleanup.policy": "compact"}, "cleanup.policy compact", "cleanup.policy=delete"),
    ],
)
def test_an_existing_topic_that_does_not_fit_is_exit_code_1_and_named_with_its_fix(
    topics: Topics, key: str, config: dict[str, str], detail: str, fix: str
) -> None:
    fitting = {"retention.ms": str(14 * DAY_MS)} if key == EVENTS else {"retention.ms": str(26 * DAY_MS)}
    topics.broker.create_topics(topics.names[key], partitions=2, config={**fitting, **config})
    before = topics.states()[key]
    result = topics.create("--partitions", "2", "--replication", "1", "--json")
    assert result.exit_code == 1, result.output
    document = json.loads(result.stdout)
    wrong = {topic["name"]: topic["problems"] for topic in document["topics"] if topic["problems"]}
    ((problem,),) = wrong.values()
    assert set(wrong) == {topics.names[key]}
    assert not document["ok"]
    assert detail in problem["detail"]
    assert fix in problem["fix"]
    assert f"--entity-name {topics.names[key]}" in problem["fix"]
    assert topics.states()[key] == before


@pytest.mark.kafka_core
def test_another_number_of_partitions_does_not_fit(topics: Topics) -> None:
    assert topics.create("--partitions", "2", "--replication", "1").exit_code == 0
    result = topics.create("--partitions", "4", "--replication", "1")
    assert result.exit_code == 1, result.output
    assert "has 2 partitions instead of 4" in result.output
    assert "flagpost topics create --partitions 2" in result.output


@pytest.mark.kafka_core
def test_with_fewer_brokers_than_replicas_there_are_as_many_replicas_as_brokers_and_a_message(
    topics: Topics,
) -> None:
    created = topics.create("--partitions", "2", "--json")
    assert created.exit_code == 0, created.output
    assert json.loads(created.stdout)["replication"] == 1
    (line,) = created.stderr.splitlines()
    assert "Kafka has 1 broker" in line
    assert "With 3, no write is lost" in line
    again = topics.create("--partitions", "2")
    assert (again.exit_code, again.stderr) == (0, "")


def test_requesting_more_replicas_than_brokers_is_one_line_that_says_what_to_do(topics: Topics) -> None:
    result = topics.create("--partitions", "2", "--replication", "3")
    assert result.exit_code == 1, result.output
    assert len(result.stderr.splitlines()) == 1
    assert "Give a smaller --replication" in result.stderr
    assert topics.states() == {}


def test_a_topic_that_is_created_meanwhile_is_reported_as_existing(
    topics: Topics, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is created after the first look; the second look does not find it, as a broker may not know it yet."""
    topics.broker.create_topics(topics.names[LEDGER], partitions=2, config={"retention.ms": "-1"})
    seen = KafkaAdmin.partitions
    blind_looks = [topics.names[LEDGER]] * 2

    def look(admin: KafkaAdmin, name: str) -> int | None:
        if name not in blind_looks:
            return seen(admin, name)
        blind_looks.remove(name)
        return None

    monkeypatch.setattr(KafkaAdmin, "partitions", look)
    result = topics.create("--partitions", "2", "--replication", "1", "--json")
    assert result.exit_code == 0, result.output
    actions = {topic["name"]: topic["action"] for topic in json.loads(result.stdout)["topics"]}
    assert actions[topics.names[LEDGER]] == "exists"
