"""What log lines look like, and what they never show."""

from __future__ import annotations

import io
import json
import logging
from datetime import UTC, datetime
from typing import Any

import pytest
import structlog

from flagpost_consumer.settings import LogSettings, Secret
from flagpost_settings.logs import configure_logging, kafka_logger

OURS = "flagpost_consumer.anywhere"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def _lines(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_lines_are_json_without_a_terminal() -> None:
    stream = io.StringIO()
    configure_logging(LogSettings(), stream)
    structlog.get_logger(OURS).warning("Pendo's state changed", endpoint="track")
    (line,) = _lines(stream)
    at = datetime.fromisoformat(line.pop("timestamp"))
    assert at.tzinfo == UTC
    assert line == {
        "event": "Pendo's state changed",
        "endpoint": "track",
        "level": "warning",
        "logger": OURS,
    }


def test_lines_are_for_people_on_a_terminal() -> None:
    stream = Terminal()
    configure_logging(LogSettings(), stream)
    structlog.get_logger(OURS).info("assigned", partitions=[1, 2])
    assert "assigned" in stream.getvalue()
    assert not stream.getvalue().startswith("{")


def test_the_format_can_be_chosen() -> None:
    stream = Terminal()
    configure_logging(LogSettings.model_validate({"format": "json"}), stream)
    structlog.get_logger(OURS).info("assigned")
    assert _lines(stream)[0]["event"] == "assigned"


@pytest.mark.parametrize(
    ("level", "written"),
    [
        ("debug", ["debug", "info", "warning", "error"]),
        ("info", ["info", "warning", "error"]),
        ("error", ["error"]),
    ],
)
@pytest.mark.parametrize("name", [OURS, "librdkafka"])
def test_the_level_applies_to_our_lines_and_to_librdkafkas(level: str, written: list[str], name: str) -> None:
    stream = io.StringIO()
    configure_logging(LogSettings.model_validate({"level": level}), stream)
    for each in ("debug", "info", "warning", "error"):
        getattr(logging.getLogger(name), each)("a line")
    assert [line["level"] for line in _lines(stream)] == written


def test_librdkafkas_lines_come_in_the_same_form() -> None:
    stream = io.StringIO()
    configure_logging(LogSettings(), stream)
    kafka_logger().error("FAIL [%s] %s", "rdkafka#consumer-1", "Connection refused")
    assert _lines(stream)[0]["event"] == "FAIL [rdkafka#consumer-1] Connection refused"
    assert _lines(stream)[0]["logger"] == "librdkafka"


def test_other_libraries_log_only_warnings_and_errors() -> None:
    stream = io.StringIO()
    configure_logging(LogSettings.model_validate({"level": "debug"}), stream)
    logging.getLogger("asyncio").debug("payload")
    logging.getLogger("asyncio").warning("slow")
    assert [line["event"] for line in _lines(stream)] == ["slow"]


@pytest.mark.parametrize("stream", [io.StringIO(), Terminal()], ids=["json", "console"])
def test_a_traceback_shows_no_local_variables(stream: io.StringIO) -> None:
    configure_logging(LogSettings(), stream)
    log = structlog.get_logger(OURS)

    def fail(visitor: str) -> None:
        assert visitor
        raise ValueError("no")

    try:
        fail("visitor-" + "4711")
    except ValueError:
        log.exception("it failed", key=Secret("hunter2"))
    assert "ValueError: no" in stream.getvalue()
    assert "visitor-4711" not in stream.getvalue()
    assert "hunter2" not in stream.getvalue()


def test_librdkafkas_repetitions_are_written_once_and_other_lines_each_time() -> None:
    stream = io.StringIO()
    configure_logging(LogSettings(), stream)
    for attempt in range(5):
        kafka_logger().error(
            "FAIL %s: Connection refused (after %dms in state CONNECT)", "kafka-1:9092", attempt
        )
    kafka_logger().error("FAIL kafka-2:9092: Connection refused (after 0ms in state CONNECT)")
    for _ in range(2):
        structlog.get_logger(OURS).warning("waiting for Kafka")
    events = [line["event"] for line in _lines(stream)]
    assert [event.partition(":")[0] for event in events[:2]] == ["FAIL kafka-1", "FAIL kafka-2"]
    assert events[2:] == ["waiting for Kafka", "waiting for Kafka"]
