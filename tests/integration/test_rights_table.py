"""The table of rights in docs/security.md, on a real broker with an authorizer.

With the rights that its row lists, a program does its work; without any one of them, it names that right.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from pathlib import Path

import pytest
from confluent_kafka.admin._config import AlterConfigOpType, ConfigEntry, ConfigResource

from dead_letter_topics import DeadLetterTopics, letter, settled, step
from deadlines import stretched
from engine_world import decision
from flagpost_consumer.commands.check.kafka import service_rights
from flagpost_consumer.commands.topics.rules import DAY_MS, DEAD_LETTER_EXTRA_BYTES, MAX_RECORD_BYTES
from flagpost_consumer.demo.pendo_stand_in import PendoStandIn
from flagpost_consumer.settings import MetricsSettings, Settings
from flagpost_kafka import rights
from flagpost_kafka.rights import Operation, Resource, Right
from flagpost_publisher import Publisher
from flagpost_settings.kafka import KafkaSettings
from gateway_running import RunningGateway
from real_kafka.broker import KafkaBroker
from rights_table import programs, rights_of
from running import FLAGPOST, RunningConsumer, environment, eventually, flagpost
from traffic import produce, publish
from web_running import RunningWeb

pytestmark = [pytest.mark.thorough, pytest.mark.kafka]

SECONDS = 90.0
IMPLY_DESCRIBE = (Operation.READ, Operation.WRITE)
SAMPLE: dict[str, object] = {
    "kafka.topic": "events",
    "kafka.ledger_topic": "ledger",
    "kafka.dead_letter_topic": "dead-letters",
    "gateway.webhook_topic": "webhooks",
    "kafka.suppressions_topic": "suppressions",
    "kafka.group_id": "group",
}
MAX_BYTES = {
    "events": MAX_RECORD_BYTES,
    "ledger": MAX_RECORD_BYTES,
    "dead-letters": MAX_RECORD_BYTES + DEAD_LETTER_EXTRA_BYTES,
}
COMMANDS = {
    "flagpost topics create": "topics create --partitions 1 --replication 1",
    "flagpost check": "check",
    "flagpost import": "import FILE --type visitor",
    "flagpost explain": "explain v1",
    "flagpost export": "export --to OUT",
    "flagpost sql": "sql FROM_SETTLEMENTS",
    "flagpost reconcile": "reconcile",
    "flagpost rehearse": "rehearse",
    "flagpost dead-letters list": "dead-letters list",
    "flagpost dead-letters show": "dead-letters show 0/0",
    "flagpost dead-letters replay": "dead-letters replay",
    "flagpost tail": "tail --since 1h",
    "flagpost suppress": "suppress v9",
    "flagpost erase --dry-run": "erase v1 --dry-run",
}
PAGE_RIGHTS = 4
"""How many rights `the_page_needs` returns."""
SERVICES = ("flagpost consume", "flagpost-gateway", "Publisher", "flagpost web")


class Stage:
    """One test's topics, each with a record, and settings that connect as the user whose rights are checked."""

    def __init__(self, kafka: KafkaBroker, name: str, pendo: PendoStandIn, directory: Path) -> None:
        self.kafka = kafka
        topics = DeadLetterTopics(kafka, name, partitions=1)
        self.webhooks = f"{name}.webhooks"
        suppressions = f"{name}.suppressions"
        kafka.create_topics(self.webhooks, partitions=1)
        kafka.create_topics(suppressions, partitions=1, config={"cleanup.policy": "compact"})
        for topic in (topics.events, topics.ledger, topics.dead):
            make_fit(kafka, topic)
        produce(kafka.bootstrap_servers, suppressions, b"somebody", b'{"at":1}')
        produce(kafka.bootstrap_servers, self.webhooks, b"somebody", b"{}")
        event = step("e1")
        publish(kafka.bootstrap_servers, topics.events, [decision("v1")])
        topics.settle(settled(event, bytes(16), offset=1_000))
        topics.bury(letter(event), letter(step("e2", "v2")), letter(step("e3", "v3")))
        self.settings: dict[str, object] = {
            **topics.settings,
            "kafka.bootstrap_servers": kafka.users_bootstrap_servers,
            "kafka.properties": kafka.user_properties,
            "gateway.webhook_topic": self.webhooks,
            "kafka.suppressions_topic": suppressions,
            "pendo.track_url": pendo.track_url,
            "pendo.api_url": pendo.api_url,
            "pendo.track_secret": pendo.keys.track_secret,
            "pendo.integration_key": pendo.keys.integration_key,
        }
        self._file = directory / "visitors.csv"
        self._file.write_text("visitor_id,plan\nv1,free\n")

    def needs(self, program: str) -> list[Right]:
        """The rights that the page lists for a program, on this test's topics (or on those that it will create)."""
        if program == "flagpost topics create":
            made = {key: f"{name}.new" for key, name in self.settings.items() if key.endswith("topic")}
            self.settings.update(made)
        return rights_of(program, self.settings)

    def give(self, rights: Iterable[Right]) -> None:
        for right in rights:
            self.kafka.allow(*acl(right))

    def arguments(self, program: str) -> list[str]:
        meant = {
            "FILE": str(self._file),
            "OUT": str(self._file.with_suffix(".jsonl")),
            "FROM_SETTLEMENTS": "from settlements",
        }
        return [meant.get(part, part) for part in COMMANDS[program].split()]

    async def run(self, program: str) -> tuple[int, str]:
        """Run a command as a process; returns the exit code and all that it prints."""
        done = await asyncio.to_thread(flagpost, self.settings, *self.arguments(program), seconds=SECONDS)
        return done.returncode, done.stdout + done.stderr


def make_fit(kafka: KafkaBroker, topic: str) -> None:
    """Configure a topic as `flagpost check` requires it."""
    config = {"retention.ms": str(30 * DAY_MS), "max.message.bytes": str(MAX_BYTES[topic.rpartition(".")[2]])}
    entries = [
        ConfigEntry(name, value, incremental_operation=AlterConfigOpType.SET)
        for name, value in config.items()
    ]
    resource = ConfigResource(ConfigResource.Type.TOPIC, topic, incremental_configs=entries)
    admin = kafka.admin()  # in a variable, because its requests end with it
    for future in admin.incremental_alter_configs([resource]).values():
        future.result(stretched(SECONDS))


def acl(right: Right) -> tuple[str, str, str]:
    """The arguments of `KafkaBroker.allow` for a right: the kind of resource, its name, the operation."""
    kinds = {Resource.TOPIC: "topic", Resource.GROUP: "group", Resource.TRANSACTIONAL_ID: "transactional_id"}
    operation = "describe_configs" if right.operation is Operation.DESCRIBE_CONFIGS else right.operation
    return kinds[right.resource], right.name, operation.lower()


@pytest.fixture
async def stage(kafka: KafkaBroker, fresh_name: Callable[[str], str], tmp_path: Path) -> AsyncIterator[Stage]:
    name = fresh_name("stage")
    async with PendoStandIn() as pendo:
        yield Stage(kafka, name, pendo, tmp_path)
    # There are a hundred stages, and a broker with a thousand topics answers too late.
    admin = kafka.admin()
    left = [topic for topic in admin.list_topics(timeout=stretched(SECONDS)).topics if topic.startswith(name)]
    for future in admin.delete_topics(left, operation_timeout=stretched(SECONDS)).values():
        future.result(stretched(SECONDS))


def cases(names: Iterable[str]) -> list[tuple[str, int]]:
    """Each program with the index of each right that its row lists."""
    return [(name, index) for name in names for index, _ in enumerate(rights_of(name, SAMPLE))]


def told(case: object) -> str:
    if isinstance(case, tuple):
        program, index = case
        return f"{program} without {rights_of(program, SAMPLE)[index]}"
    return str(case)


def test_every_program_that_talks_to_kafka_has_a_row() -> None:
    assert set(programs()) == {*COMMANDS, *SERVICES}


def test_check_looks_for_what_the_page_says_that_the_service_needs() -> None:
    kafka = KafkaSettings(
        topic="events",
        ledger_topic="ledger",
        dead_letter_topic="dead-letters",
        suppressions_topic="suppressions",
        group_id="group",
    )
    assert set(service_rights(Settings(kafka=kafka))) == set(rights_of("flagpost consume", SAMPLE))


def test_check_looks_for_the_right_on_impressions_where_the_service_reads_them() -> None:
    kafka = KafkaSettings(impressions_topic="impressions")
    read = rights.reads("impressions")
    assert read not in service_rights(Settings(kafka=kafka))
    assert read not in service_rights(Settings(metrics=MetricsSettings(flags=["checkout"])))
    assert read in service_rights(Settings(kafka=kafka, metrics=MetricsSettings(flags=["checkout"])))


async def test_check_warns_where_the_impressions_cannot_be_read(stage: Stage) -> None:
    topic = f"{stage.settings['kafka.topic']}.impressions"
    stage.kafka.create_topics(topic, partitions=1)
    stage.settings |= {"kafka.impressions_topic": topic, "metrics.flags": ["checkout"]}
    looks = [Right(each, Resource.TOPIC, topic) for each in (Operation.DESCRIBE, Operation.DESCRIBE_CONFIGS)]
    stage.give([*stage.needs("flagpost check"), *looks])
    code, said = await stage.run("flagpost check")
    assert str(rights.reads(topic)) in said, said
    assert "the traffic allocation is not known" in said
    assert code == 0, said
    stage.give([rights.reads(topic)])
    code, said = await stage.run("flagpost check")
    assert (code, "the traffic allocation is not known" in said) == (0, False), said


@pytest.mark.parametrize("program", sorted(COMMANDS.keys() - {"flagpost tail"}))
async def test_with_what_the_page_lists_a_command_does_its_work(stage: Stage, program: str) -> None:
    stage.give(stage.needs(program))
    code, said = await stage.run(program)
    assert code == 0, said
    assert "this user needs" not in said


async def test_with_what_the_page_lists_tail_shows_settlements(stage: Stage) -> None:
    stage.give(stage.needs("flagpost tail"))
    process = await asyncio.create_subprocess_exec(
        FLAGPOST,
        *stage.arguments("flagpost tail"),
        env=environment(stage.settings),
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    try:
        line = await asyncio.wait_for(process.stdout.readline(), stretched(SECONDS))
    finally:
        process.kill()
        await process.wait()
    assert b"delivered" in line


@pytest.mark.parametrize("case", cases(COMMANDS), ids=told)
async def test_a_command_names_the_right_that_is_missing(stage: Stage, case: tuple[str, int]) -> None:
    program, index = case
    needed = stage.needs(program)
    missing = needed.pop(index)
    stage.give(needed)
    code, said = await stage.run(program)
    assert str(missing) in said, said
    assert "does not exist" not in said
    is_warning = program == "flagpost check" and missing.name == stage.webhooks
    assert code == (0 if is_warning else 1), said


def only_looked_at(case: tuple[str, int]) -> bool:
    """Whether a program only looks at the entry: the right is not Read or Write, or it is `rehearse`'s right on the
    dead letters, which the command needs for its window but does not read.
    """
    right = rights_of(case[0], SAMPLE)[case[1]]
    return right.operation not in IMPLY_DESCRIBE or (case[0], right.name) == (
        "flagpost rehearse",
        "dead-letters",
    )


@pytest.mark.parametrize("case", [case for case in cases(COMMANDS) if not only_looked_at(case)], ids=told)
async def test_looking_at_an_entry_does_not_count_as_using_it(stage: Stage, case: tuple[str, int]) -> None:
    """With Describe alone a topic is visible, and only reading or writing it fails."""
    program, index = case
    needed = stage.needs(program)
    missing = needed[index]
    needed[index] = Right(Operation.DESCRIBE, missing.resource, missing.name)
    stage.give(needed)
    code, said = await stage.run(program)
    assert str(missing) in said, said
    assert code == 1


@pytest.mark.parametrize("case", cases(["flagpost consume"]), ids=told)
async def test_the_consumer_logs_the_right_that_is_missing_and_goes_on_once_it_is_given(
    stage: Stage, case: tuple[str, int]
) -> None:
    program, index = case
    needed = stage.needs(program)
    missing = needed.pop(index)
    stage.give(needed)
    produce(stage.kafka.bootstrap_servers, str(stage.settings["kafka.topic"]), b"k", b"no event")
    with RunningConsumer(stage.settings) as consumer:
        await eventually(lambda: any(str(missing) in line for line in consumer.lines), SECONDS)
        assert not any("topics create" in line for line in consumer.lines)
        assert consumer.get("/livez")[0] == 200
        stage.give([missing])
        await consumer.caught_up(1, SECONDS)
        assert await consumer.stop() == 0


async def test_with_the_other_group_protocol_a_missing_right_is_named_too(stage: Stage) -> None:
    needed = stage.needs("flagpost consume")
    missing = next(right for right in needed if right.resource is Resource.GROUP)
    stage.give(right for right in needed if right is not missing)
    with RunningConsumer({**stage.settings, "kafka.group_protocol": "consumer"}) as consumer:
        await eventually(lambda: any(str(missing) in line for line in consumer.lines), SECONDS)
        stage.give([missing])
        await consumer.caught_up(1, SECONDS)
        assert await consumer.stop() == 0


@pytest.mark.parametrize("case", cases(["flagpost-gateway"]), ids=told)
async def test_the_gateway_logs_the_right_that_is_missing_and_goes_on_once_it_is_given(
    stage: Stage, case: tuple[str, int]
) -> None:
    program, index = case
    needed = stage.needs(program)
    missing = needed.pop(index)
    stage.give(needed)
    async with RunningGateway(
        {**stage.settings, "gateway.webhook_secret": "0123456789abcdef" * 2}
    ) as gateway:
        await eventually(lambda: any(str(missing) in line for line in gateway.lines), SECONDS)
        stage.give([missing])
        await gateway.ready(SECONDS)
        status, *_ = await gateway.post(
            "/v1/events", {"type": "track", "visitor_id": "v", "event": "Clicked"}
        )
        assert status == 202


def the_page_needs(stage: Stage) -> list[Right]:
    """The rights that all pages but one need."""
    suppressions = stage.settings["kafka.suppressions_topic"]
    return [right for right in stage.needs("flagpost web") if right.name != suppressions]


async def test_with_what_the_page_lists_the_web_page_shows_numbers(stage: Stage) -> None:
    assert len(the_page_needs(stage)) == PAGE_RIGHTS
    stage.give(stage.needs("flagpost web"))
    with RunningWeb(stage.settings) as page:
        await page.until_read(SECONDS)
        assert page.table("flags")
        assert "decision" in page.get("/explain?visitor=v1").text
        assert await page.stop() == 0


@pytest.mark.parametrize("index", range(PAGE_RIGHTS))
async def test_the_web_page_names_the_right_that_is_missing_and_goes_on_once_it_is_given(
    stage: Stage, index: int
) -> None:
    needed = the_page_needs(stage)
    missing = needed.pop(index)
    stage.give(needed)
    with RunningWeb(stage.settings) as page:
        await eventually(lambda: str(missing) in page.get("/").text, SECONDS)
        stage.give([missing])
        await page.until_read(SECONDS)
        assert await page.stop() == 0


async def test_a_publisher_reports_the_missing_right(stage: Stage) -> None:
    (missing,) = stage.needs("Publisher")
    told: list[Exception] = []
    with Publisher(
        bootstrap_servers=stage.kafka.users_bootstrap_servers,
        topic=missing.name,
        properties=stage.kafka.user_properties,
        on_error=told.append,
    ) as publisher:
        assert publisher.track("v", "before")
        await eventually(lambda: any(str(missing) in str(error) for error in told), SECONDS)
        stage.give([missing])
        assert await asyncio.to_thread(publisher.flush, stretched(SECONDS)) == 0
