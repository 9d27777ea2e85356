"""Commands that cannot reach Kafka say why, by the reason that librdkafka reports apart from its error."""

from __future__ import annotations

import signal
import socket
import subprocess
import time
from collections.abc import Callable

import pytest
from click.testing import CliRunner
from confluent_kafka import KafkaError, KafkaException

from deadlines import stretched
from flagpost_consumer.commands.cli import flagpost
from flagpost_consumer.commands.sources import kafka_admin, topic_reading
from flagpost_consumer.commands.sources.kafka_admin import KafkaAdmin, KafkaUnavailable
from flagpost_consumer.commands.sources.topic_reading import TopicReader
from flagpost_consumer.commands.topics.rules import Role, TopicSpec
from flagpost_consumer.demo import own_kafka
from flagpost_consumer.settings import KafkaSettings
from flagpost_consumer.terminal.patience import Patience
from running import FLAGPOST, environment

NOBODY = KafkaSettings(bootstrap_servers="127.0.0.1:1")


def by_reading() -> None:
    with TopicReader(NOBODY) as reader:
        reader.spans("flagpost.events")


def by_administering() -> None:
    KafkaAdmin(NOBODY).partitions("flagpost.events")


@pytest.mark.parametrize("ask", [by_reading, by_administering])
def test_the_reason_why_kafka_is_unreachable_is_reported(
    ask: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before the fix, `tail` and `reconcile` only said "Broker transport failure", whatever the reason."""
    for module in (kafka_admin, topic_reading):
        monkeypatch.setattr(module, "CALL_SECONDS", 1.0)
    with pytest.raises(KafkaUnavailable, match="Connection refused"):
        ask()


def test_the_demo_says_why_the_users_own_kafka_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before the fix, its message ended without the reason."""
    monkeypatch.setattr(own_kafka, "SECONDS", 1.0)
    result = CliRunner().invoke(flagpost, ["demo", "--bootstrap-servers", "127.0.0.1:1"])
    assert result.exit_code == 1, result.output
    assert "Connection refused" in result.stderr
    assert not any(line.rstrip().endswith(":") for line in result.stderr.splitlines())
    empty = CliRunner().invoke(flagpost, ["demo", "--bootstrap-servers", ""])
    assert (empty.exit_code, "give HOST:PORT" in empty.stderr) == (2, True)


def test_the_reason_is_reported_for_a_future_that_never_ends_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before the fix, its TimeoutError ended the command with a traceback."""
    monkeypatch.setattr(kafka_admin, "CALL_SECONDS", 0.5)
    spec = TopicSpec(Role.EVENTS, "flagpost.events", None)
    with pytest.raises(KafkaUnavailable, match="Connection refused"):
        KafkaAdmin(NOBODY).create(spec, 1, 1)


@pytest.mark.parametrize("ask", [by_reading, by_administering])
def test_a_waiting_program_says_soon_what_it_waits_for_and_why(
    ask: Callable[[], None], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Before the fix, the commands were silent for 10 seconds."""
    for module in (kafka_admin, topic_reading):
        monkeypatch.setattr(module, "CALL_SECONDS", 2.0)
    with pytest.raises(KafkaUnavailable):
        ask()
    said = capsys.readouterr()
    assert said.out == ""
    (line,) = said.err.splitlines()
    assert line.startswith("waiting for up to 2 s for Kafka at 127.0.0.1:1: ")
    assert "Connection refused" in line


def test_a_call_that_only_times_out_is_logged_once_and_retried(capsys: pytest.CaptureFixture[str]) -> None:
    patience, given = Patience("broker:9092", lambda: ""), []

    def call(timeout: float) -> str:
        given.append(timeout)
        if timeout < 5:
            raise TimeoutError
        return "answer"

    assert [patience.ask(call, 10.0) for _ in range(2)] == ["answer", "answer"]
    assert given == [1.0, 9.0, 10.0]
    assert capsys.readouterr().err == "waiting for up to 10 s for Kafka at broker:9092: no answer yet\n"


def test_a_refusal_is_not_retried() -> None:
    def call(timeout: float) -> None:
        given.append(timeout)
        raise KafkaException(KafkaError(KafkaError.TOPIC_AUTHORIZATION_FAILED))

    given: list[float] = []
    with pytest.raises(KafkaException):
        Patience("broker:9092", str).ask(call, 10.0)
    assert given == [1.0]


@pytest.mark.parametrize(
    "command",
    [["tail", "--no-follow"], ["reconcile"], ["topics", "create"], ["dead-letters", "list"]],
    ids=lambda command: command[0],
)
def test_ctrl_c_ends_a_command_while_it_waits_for_kafka(command: list[str]) -> None:
    """Before the fix, it was noticed only when the call of librdkafka had ended, up to nine seconds later."""
    with socket.create_server(("127.0.0.1", 0)) as silent:  # takes connections, and never answers
        settings = {"kafka.bootstrap_servers": f"127.0.0.1:{silent.getsockname()[1]}"}
        process = subprocess.Popen(
            [FLAGPOST, *command], env=environment(settings), stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        with process:
            assert process.stderr is not None
            assert process.stderr.readline().startswith(b"waiting for up to 10 s for Kafka at 127.0.0.1:")
            began = time.monotonic()
            process.send_signal(signal.SIGINT)
            said = process.communicate(timeout=stretched(30.0))[1]
            took = time.monotonic() - began
    assert took < stretched(4.0)
    assert b"Traceback" not in said
    assert process.returncode == (0 if command[0] == "tail" else 1)


class Clock:
    """A clock that only `sleep` moves."""

    def __init__(self) -> None:
        self.seconds = 1_000.0

    def monotonic(self) -> float:
        return self.seconds

    def sleep(self, seconds: float) -> None:
        self.seconds += seconds


@pytest.fixture
def slow_brokers(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], KafkaAdmin]:
    """Makes an admin client whose brokers know the new topic "late" only after some seconds."""
    clock = Clock()
    monkeypatch.setattr(kafka_admin, "time", clock)

    def admin(seconds: float) -> KafkaAdmin:
        begin = clock.seconds
        monkeypatch.setattr(
            KafkaAdmin,
            "partitions",
            lambda _, name: None if name == "late" and clock.seconds < begin + seconds else 1,
        )
        monkeypatch.setattr(KafkaAdmin, "states", lambda _, names: dict.fromkeys(names))
        return KafkaAdmin(NOBODY)

    return admin


def test_a_new_topic_that_slow_brokers_learn_of_late_is_waited_for(
    slow_brokers: Callable[[float], KafkaAdmin], capsys: pytest.CaptureFixture[str]
) -> None:
    """Before the fix, `topics create` failed after ten seconds on a busy machine."""
    assert [*slow_brokers(40.0).awaited_states(["there", "late"])] == ["there", "late"]
    (line,) = capsys.readouterr().err.splitlines()
    assert line == "waiting for up to 60 s for Kafka at 127.0.0.1:1: its brokers do not know yet: late"


def test_a_new_topic_that_is_there_soon_is_waited_for_in_silence(
    slow_brokers: Callable[[float], KafkaAdmin], capsys: pytest.CaptureFixture[str]
) -> None:
    slow_brokers(0.5).awaited_states(["late"])
    assert capsys.readouterr().err == ""


def test_a_new_topic_that_does_not_appear_is_named(slow_brokers: Callable[[float], KafkaAdmin]) -> None:
    with pytest.raises(KafkaUnavailable, match="created, but not visible after 60 s: late; run it again"):
        slow_brokers(3_600.0).awaited_states(["there", "late"])
