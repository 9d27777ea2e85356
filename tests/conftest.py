"""Fixtures that every kind of test may use, and the words with which a run says what is real in it."""

from __future__ import annotations

import logging
import os
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest
import structlog
from hypothesis import HealthCheck, settings

from flagpost_consumer.demo.pendo_stand_in import Endpoint, PendoStandIn
from real_kafka import parts
from real_kafka.broker import KafkaBroker
from real_kafka.registry import SchemaRegistry
from scenes import Scene

# How long an example takes is the machine's affair, and fixtures here hold nothing of an example.
settings.register_profile(
    "flagpost",
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
settings.load_profile("flagpost")


def pytest_report_header() -> str:
    """Say by name what the tests will run against."""
    missing = parts.missing()
    if missing is None:
        return f"real Kafka: Apache Kafka {parts.KAFKA_VERSION}, schema registry Apicurio {parts.REGISTRY_VERSION}"
    return f"real Kafka: {'FAILS' if 'CI' in os.environ else 'skipped'}, {missing}"


@pytest.fixture
def logging_undone() -> Iterator[None]:
    """What a test configures of logging ends with it."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()


@pytest.fixture
def fresh_name() -> Callable[[str], str]:
    """Makes names of topics and groups that no other test has."""
    return lambda prefix: f"{prefix}-{uuid.uuid4().hex[:12]}"


@pytest.fixture(scope="session")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KafkaBroker]:
    """A real broker that all tests share: it stays up, and each test uses names of its own."""
    yield from _broker(tmp_path_factory.mktemp("kafka"))


@pytest.fixture
def kafka_broker(tmp_path: Path) -> Iterator[KafkaBroker]:
    """A real broker of the test's own, to stop, kill and restart."""
    yield from _broker(tmp_path)


@pytest.fixture(scope="session")
def schema_registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SchemaRegistry]:
    """A real schema registry that all tests share."""
    need_java()
    registry = SchemaRegistry(tmp_path_factory.mktemp("registry"))
    yield registry
    registry.stop()


@pytest.fixture
async def scene(kafka: KafkaBroker, fresh_name: Callable[[str], str]) -> AsyncIterator[Scene]:
    """Topics on the shared broker, a Pendo whose metadata fields cannot be read, and a consumer's settings."""
    async with PendoStandIn() as pendo:
        # Without a schema, fields are sent under their configured names.
        pendo.faults.outage(503, Endpoint.SCHEMA)
        yield Scene(kafka, pendo, fresh_name("scene"))


def _broker(directory: Path) -> Iterator[KafkaBroker]:
    need_java()
    broker = KafkaBroker(directory)
    yield broker
    broker.stop()


def need_java() -> None:
    missing = parts.missing()
    if missing is None:
        return
    text = f"a real Kafka needs Java {parts.NEEDED_JAVA} and Maven: {missing}"
    if "CI" in os.environ:
        pytest.fail(text)
    pytest.skip(text)
