"""The small parts of `flagpost dead-letters`: values, progress, Ctrl-C."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import orjson
import pytest

from dead_letter_topics import run_dead_letters
from flagpost_consumer.adapters.registry.errors import RegistryNotAnswering, SchemaDoesNotExist
from flagpost_consumer.adapters.registry.schema_registry import SchemaRegistry
from flagpost_consumer.commands.sources.event_values import Values, event_as_json
from flagpost_consumer.settings import SchemaRegistrySettings
from flagpost_consumer.terminal.interrupts import noted_interrupts
from flagpost_consumer.terminal.progress import LINE_SECONDS, told, watched
from flagpost_schemas import (
    EVENT_TYPES,
    AccountMetadata,
    Context,
    DecisionEvent,
    Event,
    TrackEvent,
    UndecodableRecord,
    UnknownSchema,
    VisitorMetadata,
    encode_confluent,
    encode_single_object,
    schema_of,
)
from flagpost_schemas.json_form import event_from_json

REGISTRY = SchemaRegistrySettings(url="http://127.0.0.1:1")
EVENT = TrackEvent(event_id="e", occurred_at=5, visitor_id="v", event="Step", context=Context(url="/a"))


def answering(monkeypatch: pytest.MonkeyPatch, answer: str | Exception) -> list[int]:
    """Let the registry return or raise this answer; returns the ids that it is asked for."""
    asked: list[int] = []

    async def fetch(_: SchemaRegistry, schema_id: int) -> str:
        asked.append(schema_id)
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setattr(SchemaRegistry, "fetch", fetch)
    return asked


def schema_text() -> str:
    return orjson.dumps(schema_of(TrackEvent).parsed).decode()


def test_single_object_values_need_no_registry() -> None:
    assert Values(SchemaRegistrySettings()).decode(encode_single_object(EVENT)) == EVENT


def test_a_schema_is_fetched_once(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = answering(monkeypatch, schema_text())
    values = Values(REGISTRY)
    assert values.decode(encode_confluent(EVENT, 7)) == values.decode(encode_confluent(EVENT, 7)) == EVENT
    assert asked == [7]


def test_without_a_registry_the_value_says_which_setting_it_needs() -> None:
    with pytest.raises(UnknownSchema, match=r"kafka\.schema_registry\.url"):
        Values(SchemaRegistrySettings()).decode(encode_confluent(EVENT, 7))


def test_a_schema_that_does_not_exist_is_not_asked_for_again(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = answering(monkeypatch, SchemaDoesNotExist("the registry has no schema with id 7"))
    values = Values(REGISTRY)
    for _ in range(2):
        with pytest.raises(UnknownSchema, match="no schema with id 7"):
            values.decode(encode_confluent(EVENT, 7))
    assert asked == [7]


def test_a_registry_that_does_not_answer_is_an_error_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    answering(monkeypatch, RegistryNotAnswering("down"))
    with pytest.raises(RegistryNotAnswering):
        Values(REGISTRY).decode(encode_confluent(EVENT, 7))


def test_a_record_without_a_value_is_undecodable() -> None:
    with pytest.raises(UndecodableRecord):
        Values(REGISTRY).decode(None)


@pytest.mark.parametrize(
    "event",
    [
        EVENT,
        DecisionEvent(
            event_id="d",
            occurred_at=5,
            visitor_id="v",
            flag_key="f",
            enabled=True,
            decision_event_dispatched=False,
            consent={"analytics": True},
            attributes={"a": 1, "b": None, "c": 1.5, "d": "x"},
        ),
        VisitorMetadata(event_id="m", occurred_at=5, visitor_id="v", values={"tags": ["a", "b"]}),
        AccountMetadata(event_id="a", occurred_at=5, account_id="acme", values={"tier": 2}),
    ],
    ids=[kind.__name__ for kind in (TrackEvent, DecisionEvent, VisitorMetadata, AccountMetadata)],
)
def test_an_event_as_json_is_read_again_as_the_same_event(event: Event) -> None:
    document = orjson.loads(orjson.dumps(event_as_json(event)))
    assert event_from_json(document, now_ms=0, new_event_id=lambda: "new") == event
    assert type(event) in EVENT_TYPES


@pytest.mark.parametrize("command", [("list",), ("show", "0/0"), ("replay",), ("replay", "--dry-run")])
def test_properties_that_librdkafka_refuses_are_exit_code_2_and_not_shown(command: tuple[str, ...]) -> None:
    settings = {"kafka.bootstrap_servers": "127.0.0.1:1", "kafka.properties": {"ssl.kay.password": "hush"}}
    result = run_dead_letters(settings, *command)
    assert (result.exit_code, result.stdout) == (2, "")
    assert 'No such configuration property: "ssl.kay.password"' in result.stderr
    assert "hush" not in result.stderr


def test_plain_lines_come_every_few_seconds(capsys: pytest.CaptureFixture[str]) -> None:
    now = [0.0]
    for _ in told(range(10), "letters read", 1_000, lambda: now[0]):
        now[0] += LINE_SECONDS / 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.splitlines() == [f"letters read: {n} of 1,000" for n in (2, 4, 6, 8, 10)]


def test_quick_work_shows_no_progress_and_returns_everything(capsys: pytest.CaptureFixture[str]) -> None:
    assert list(watched(range(5), "letters read", 5)) == [0, 1, 2, 3, 4]
    assert capsys.readouterr() == ("", "")


def test_the_first_ctrl_c_is_noted_and_nothing_else() -> None:
    before = signal.getsignal(signal.SIGINT)
    with noted_interrupts() as interrupted:
        assert not interrupted()
        os.kill(os.getpid(), signal.SIGINT)
        assert interrupted()
    assert signal.getsignal(signal.SIGINT) is before


def test_the_second_ctrl_c_ends_the_process_at_once() -> None:
    program = (
        "import os, signal\n"
        "from flagpost_consumer.terminal.interrupts import noted_interrupts\n"
        "with noted_interrupts():\n"
        "    os.kill(os.getpid(), signal.SIGINT)\n"
        "    os.kill(os.getpid(), signal.SIGINT)\n"
        "print('still here')\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (-signal.SIGINT, "")
