"""Fixtures that every kind of test may use, and the header in which a run says which servers are real."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import signal
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest
import structlog
from hypothesis import HealthCheck, Phase, settings

import running
from deadlines import FACTOR, stretched
from example_counts import ALL
from flagpost_consumer.demo.pendo_stand_in import Endpoint, PendoStandIn
from flagpost_settings.logs import OURS
from real_kafka import parts, shared
from real_kafka.broker import KafkaBroker, OwnBroker
from real_kafka.registry import SchemaRegistry
from scenes import Scene

# How long an example takes depends on the machine, and the fixtures here keep no state of an example.
settings.register_profile(
    "flagpost",
    deadline=None,
    max_examples=ALL,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
settings.register_profile("tenth", settings.get_profile("flagpost"), max_examples=ALL // 10)
# For `make mutation`, which runs a test once for each mutant of what it covers, and asks only whether it fails: to
# look for the smallest example that fails takes longer than all else.
settings.register_profile(
    "quick",
    settings.get_profile("flagpost"),
    max_examples=ALL // 5,
    derandomize=True,
    phases=[Phase.explicit, Phase.generate],
    report_multiple_bugs=False,
)
settings.load_profile("flagpost")

# If no event loop was ever set, asyncio makes one on request, and nobody closes it. pytest-asyncio requests one
# before its first test; the warning comes when the garbage collector finds that loop, which may be in any test.
asyncio.set_event_loop(None)

REAL_SERVERS = {"kafka", "kafka_broker", "schema_registry"}
"""The fixtures of real servers."""

# A process that a non-interactive shell starts in the background ignores these signals, and so would its children.
for _signal, _handler in ((signal.SIGINT, signal.default_int_handler), (signal.SIGQUIT, signal.SIG_DFL)):
    if signal.getsignal(_signal) is signal.SIG_IGN:
        signal.signal(_signal, _handler)


def pytest_report_header() -> list[str]:
    """Name the servers that the tests will run against, and the factor of their deadlines."""
    missing = parts.missing()
    if missing is None:
        real = f"Apache Kafka {parts.KAFKA_VERSION}, schema registry Apicurio {parts.REGISTRY_VERSION}"
    else:
        real = f"{'FAILS' if 'CI' in os.environ else 'skipped'}, {missing}"
    return [f"real Kafka: {real}", f"deadlines: {FACTOR:.1f} times those of a fast and quiet machine"]


@pytest.hookimpl(tryfirst=True)  # before pytest chooses by mark
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark tests that need a real server as thorough, except `kafka_core`. Stretch timeouts like deadlines."""
    usual = float(config.getini("timeout"))
    for item in items:
        if _needs_real_server(item) and not item.get_closest_marker("kafka_core"):
            item.add_marker(pytest.mark.thorough)
        marker = item.get_closest_marker("timeout")
        limit = float(marker.args[0]) if marker else usual
        item.add_marker(pytest.mark.timeout(stretched(limit)), append=False)


def pytest_collection_finish() -> None:
    """Exclude what was imported and collected from garbage collection: it stays until the run ends."""
    gc.collect()
    gc.freeze()


def _needs_real_server(item: pytest.Item) -> bool:
    """Whether a test uses a fixture of a real server; a fixture `kafka` of its own module is an embedded one."""
    used = REAL_SERVERS.intersection(getattr(item, "fixturenames", ()))
    return any(not hasattr(getattr(item, "module", None), name) for name in used)


@pytest.fixture(autouse=True)
def logging_undone() -> Iterator[None]:
    """Undo the logging configuration of a test, or of a command that it runs in this process."""
    root = logging.getLogger()
    handlers = root.handlers[:]
    levels = {name: logging.getLogger(name).level for name in ("", *OURS)}
    structured = structlog.get_config()
    yield
    root.handlers[:] = handlers
    for name, level in levels.items():
        logging.getLogger(name).setLevel(level)
    structlog.configure(**structured)


@pytest.fixture
def fresh_name() -> Callable[[str], str]:
    """Makes names of topics and groups that no other test has."""
    return lambda prefix: f"{prefix}-{uuid.uuid4().hex[:12]}"


@pytest.fixture(scope="session", autouse=True)
def every_program_ended() -> Iterator[None]:
    """Fails the last test of a process of the tests if one of them has left a program that still runs."""
    yield
    assert running.left_running() == []


@pytest.fixture(scope="module")
def cold_starts() -> Iterator[None]:
    """The programs of this module start as their users start them: for what measures their memory."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(running, "begin", running.begin_cold)
        yield


@pytest.fixture(scope="session")
def run_directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory that all processes of this run share."""
    own = tmp_path_factory.getbasetemp()
    return own.parent if "PYTEST_XDIST_WORKER" in os.environ else own


@pytest.fixture(scope="session")
def kafka(run_directory: Path) -> KafkaBroker:
    """A real broker that all tests of the run share: it stays up, and each test uses its own names."""
    need_java()
    return KafkaBroker(*shared.ports_of(shared.BROKER, run_directory))


@pytest.fixture
def kafka_broker(tmp_path: Path) -> Iterator[OwnBroker]:
    """A real broker for one test, to stop, kill and restart."""
    need_java()
    broker = OwnBroker(tmp_path)
    yield broker
    broker.stop()


@pytest.fixture(scope="session")
def schema_registry(run_directory: Path) -> SchemaRegistry:
    """A real schema registry that all tests of the run share."""
    need_java()
    return SchemaRegistry(*shared.ports_of(shared.REGISTRY, run_directory))


@pytest.fixture
async def scene(kafka: KafkaBroker, fresh_name: Callable[[str], str]) -> AsyncIterator[Scene]:
    """Topics on the shared broker, a Pendo whose metadata fields cannot be read, and a consumer's settings."""
    async with PendoStandIn() as pendo:
        # Without a schema, fields are sent under their configured names.
        pendo.faults.outage(503, Endpoint.SCHEMA)
        yield Scene(kafka, pendo, fresh_name("scene"))


def need_java() -> None:
    missing = parts.missing()
    if missing is None:
        return
    text = f"a real Kafka needs Java {parts.NEEDED_JAVA} and Maven: {missing}"
    if "CI" in os.environ:
        pytest.fail(text)
    pytest.skip(text)
