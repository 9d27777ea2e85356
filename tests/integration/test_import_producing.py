"""`flagpost import` and Kafka (the embedded one): what is counted, and how an import ends that cannot finish."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import IO

import pytest

from deadlines import await_until, stretched
from flagpost_consumer.demo.embedded_kafka import EmbeddedKafka
from flagpost_schemas import Decoder, VisitorMetadata
from kafka_reading import read_topic
from running import FLAGPOST, environment

DEADLINE_SECONDS = 60.0
TOPIC = "flagpost.events"
HEADER = "visitor_id,plan\n"


def rows(first: int, count: int) -> str:
    return "".join(f"v{number},gold\n" for number in range(first, first + count))


@pytest.fixture
def kafka() -> Iterator[EmbeddedKafka]:
    with EmbeddedKafka({TOPIC: 3}) as broker:
        yield broker


class Importing:
    """A running `flagpost import -` whose rows the test writes."""

    def __init__(self, process: subprocess.Popen[str], stdin: IO[str]) -> None:
        self.process = process
        self._stdin = stdin

    def feed(self, text: str) -> None:
        self._stdin.write(text)
        self._stdin.flush()

    def end(self) -> tuple[int, str, str]:
        """Close its input; returns exit code, stdout and stderr."""
        stdout, stderr = self.process.communicate(timeout=stretched(DEADLINE_SECONDS))
        return self.process.returncode, stdout, stderr


@contextmanager
def importing(kafka: EmbeddedKafka, *arguments: str, **settings: object) -> Iterator[Importing]:
    given = {"kafka.bootstrap_servers": kafka.bootstrap_servers, **settings}
    process = subprocess.Popen(
        [str(FLAGPOST), "import", "-", "--format", "csv", "--type", "visitor", *arguments],
        env=environment(given),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None
    try:
        yield Importing(process, process.stdin)
    finally:
        process.kill()
        process.communicate()


def published(kafka: EmbeddedKafka) -> list[str]:
    events = [Decoder().decode(record.value) for record in read_topic(kafka.bootstrap_servers, TOPIC)]
    assert all(isinstance(event, VisitorMetadata) for event in events)
    return [event.visitor_id for event in events if isinstance(event, VisitorMetadata)]


def until(reached: Callable[[], object]) -> None:
    await_until(reached, DEADLINE_SECONDS)


def test_what_is_counted_as_imported_is_in_kafka(kafka: EmbeddedKafka) -> None:
    with importing(kafka) as process:
        process.feed(HEADER + rows(0, 5000) + ",gold\n")
        assert process.end() == (
            1,
            "5,001 rows: 5,000 imported, 1 refused\n",
            "line 5002, column visitor_id: is empty; every row needs it\n",
        )
    assert sorted(published(kafka)) == sorted(f"v{number}" for number in range(5000))


def test_the_import_waits_for_a_full_queue_and_a_visitors_rows_stay_in_order(kafka: EmbeddedKafka) -> None:
    properties = {"queue.buffering.max.messages": "10", "linger.ms": "1"}
    with importing(kafka, "--json", **{"kafka.properties": properties}) as process:
        process.feed(HEADER + "".join(f"v{n % 7},plan-{n}\n" for n in range(2000)))
        code, stdout, _ = process.end()
    assert (code, json.loads(stdout)["imported"]) == (0, 2000)
    plans: dict[str, list[int]] = {}
    for record in read_topic(kafka.bootstrap_servers, TOPIC):
        event = Decoder().decode(record.value)
        assert isinstance(event, VisitorMetadata)
        plans.setdefault(event.visitor_id, []).append(int(str(event.values["plan"]).removeprefix("plan-")))
    assert plans == {f"v{n}": list(range(n, 2000, 7)) for n in range(7)}


def test_ctrl_c_ends_it_with_all_that_was_read_in_kafka(kafka: EmbeddedKafka) -> None:
    with importing(kafka, "--json") as process:
        process.feed(HEADER + rows(0, 300))
        until(lambda: published(kafka))
        process.process.send_signal(signal.SIGINT)
        code, stdout, stderr = process.end()
    document = json.loads(stdout)
    assert code == 1
    assert not document["complete"]
    imported = document["imported"]
    assert imported == len(published(kafka)) == document["rows"]
    assert stderr == (
        "interrupted: waiting for Kafka to acknowledge the rows already sent\n"
        f"Error: interrupted. {imported} of the {imported} rows read so far are imported; "
        "run the same command again\n"
    )


def test_a_second_ctrl_c_ends_it_at_once(kafka: EmbeddedKafka) -> None:
    with importing(kafka) as process:
        process.feed(HEADER + rows(0, 300))
        until(lambda: published(kafka))
        deadline = time.monotonic() + stretched(DEADLINE_SECONDS)
        while process.process.poll() is None:
            assert time.monotonic() < deadline
            process.process.send_signal(signal.SIGINT)
        assert process.process.returncode == -signal.SIGINT


def test_a_kafka_that_goes_away_ends_it_with_the_rows_line(kafka: EmbeddedKafka) -> None:
    give_up_ms = str(int(1000 * stretched(5)))
    with importing(kafka, "--json", **{"kafka.properties": {"message.timeout.ms": give_up_ms}}) as process:
        process.feed(HEADER + rows(0, 300))
        until(lambda: len(published(kafka)) == 300)
        os.kill(kafka.process_id, signal.SIGKILL)
        process.feed(rows(300, 2000))
        code, stdout, stderr = process.end()
    document = json.loads(stdout)
    assert (code, document["imported"], document["complete"]) == (1, 300, False)
    error = stderr.splitlines()[-1]
    assert error.startswith(f"Error: Kafka: {kafka.bootstrap_servers}: ")
    assert "(the row of line " in error
    assert error.endswith(
        f"300 of the {document['rows']:,} rows read so far are imported; run the same command again"
    )


def test_a_topic_that_does_not_exist_is_reported(kafka: EmbeddedKafka) -> None:
    with importing(kafka, "--json", **{"kafka.topic": "elsewhere"}) as process:
        process.feed(HEADER + rows(0, 3))
        code, stdout, stderr = process.end()
    assert (code, stdout) == (1, "")
    assert stderr == "Error: Kafka: there is no topic elsewhere; create it: flagpost topics create\n"
