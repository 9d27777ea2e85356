"""A Kafka broker with nothing to install: librdkafka's mock cluster, in a child process of its own.

In: topics with their numbers of partitions. Out: the address of a broker that speaks Kafka's protocol to any
client on this machine: producers (idempotent and transactional ones too), consumer groups of either protocol,
headers, timestamps, commit metadata. Nothing is written to disk.

It keeps the newest 5 MiB of a partition. When a second member joins a classic group, each round of the
rebalance takes a session time-out less one second; the consumer protocol takes 0.2 s. It lacks what the admin
client needs (create_topics, describe_topics), offsets_for_times and read_committed: for demos and quick tests,
never for production.
"""

from __future__ import annotations

import ctypes
import subprocess
import sys
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from threading import Timer
from types import TracebackType
from typing import NoReturn, Self

START_TIMEOUT_SECONDS = 10.0
STOP_TIMEOUT_SECONDS = 5.0
REBALANCE_DELAY_MS = 100
"""How long a new group waits for more members; with librdkafka's default of 3 s a demo looks broken."""

HEARTBEAT_INTERVAL_MS = 200
"""For the consumer protocol (KIP-848): a member learns of a rebalance with its next heartbeat."""

_ADVICE = "Use a Kafka of your own: --bootstrap-servers HOST:PORT."
_READY = "ready "
_PRODUCER = 0  # enum rd_kafka_type_t
_LOG_NOTHING = b"0"
_BROKERS = 1


class EmbeddedKafkaError(RuntimeError):
    """The embedded broker cannot run here; the message says why and what to use instead."""


class EmbeddedKafka:
    """A broker that lives as long as its `with` block.

    The child ends when this process does, however that ends, because its standard input closes. A Ctrl-C in the
    terminal does not reach it, so that its clients can still drain.
    """

    def __init__(self, topics: Mapping[str, int]) -> None:
        """`topics`: name to number of partitions, each at least 1; ValueError otherwise."""
        for topic, partitions in topics.items():
            if not topic or "=" in topic or partitions < 1:
                raise ValueError(
                    f"topics: {topic!r} with {partitions} partitions cannot be created;"
                    " give each topic a name without '=' and at least one partition"
                )
        self._topics = dict(topics)
        self._child: subprocess.Popen[str] | None = None
        self._bootstrap_servers = ""

    @property
    def bootstrap_servers(self) -> str:
        """`HOST:PORT` of the running broker."""
        if not self._bootstrap_servers:
            raise EmbeddedKafkaError("The embedded broker is not running: use it inside its `with` block.")
        return self._bootstrap_servers

    @property
    def process_id(self) -> int:
        """The child's process id, to measure its memory and CPU separately."""
        if self._child is None:
            raise EmbeddedKafkaError("The embedded broker is not running: use it inside its `with` block.")
        return self._child.pid

    def __enter__(self) -> Self:
        """Start the broker. Raises EmbeddedKafkaError if that fails."""
        self._child = subprocess.Popen(  # noqa: S603  this very module, run by this very interpreter
            [sys.executable, "-m", __name__, *(f"{name}={count}" for name, count in self._topics.items())],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        try:
            self._bootstrap_servers = _first_word_of(self._child)
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop the broker."""
        self._stop()

    def _stop(self) -> None:
        child, self._child, self._bootstrap_servers = self._child, None, ""
        if child is None:
            return
        try:
            child.communicate(timeout=STOP_TIMEOUT_SECONDS)
        except subprocess.TimeoutExpired:
            child.kill()
            child.communicate()


def _first_word_of(child: subprocess.Popen[str]) -> str:
    """The address that a child prints when it is ready, which takes well under a second."""
    deadline = Timer(START_TIMEOUT_SECONDS, child.kill)
    deadline.start()
    line = child.stdout.readline().strip() if child.stdout else ""
    deadline.cancel()
    if line.startswith(_READY):
        return line.removeprefix(_READY)
    _, reason = child.communicate()
    last = reason.strip().splitlines()[-1:] or [f"exit code {child.returncode}"]
    raise EmbeddedKafkaError(f"The embedded Kafka broker did not start: {last[0]}")


def library_path() -> Path:
    """The librdkafka in the confluent-kafka wheel. Raises EmbeddedKafkaError if there is none."""
    spec = find_spec("confluent_kafka")
    if spec is None or spec.origin is None:
        raise EmbeddedKafkaError(f"confluent-kafka is not installed. {_ADVICE}")
    package = Path(spec.origin).parent
    # auditwheel puts the library beside the package (Linux), delocate inside it (macOS).
    for folder, pattern in (
        (package.parent / "confluent_kafka.libs", "librdkafka*.so*"),
        (package / ".dylibs", "librdkafka*.dylib"),
    ):
        if found := sorted(folder.glob(pattern)):
            return found[0]
    raise EmbeddedKafkaError(
        f"This confluent-kafka ({package}) does not include librdkafka, so there is no embedded broker."
        f" {_ADVICE}"
    )


_PROTOTYPES: Mapping[str, tuple[type | None, tuple[type, ...]]] = {
    # rdkafka.h
    "rd_kafka_conf_new": (ctypes.c_void_p, ()),
    "rd_kafka_conf_set": (ctypes.c_int, (ctypes.c_void_p, *(ctypes.c_char_p,) * 3, ctypes.c_size_t)),
    "rd_kafka_new": (
        ctypes.c_void_p,
        (ctypes.c_int, ctypes.c_void_p, ctypes.c_char_p, ctypes.c_size_t),
    ),
    # rdkafka_mock.h
    "rd_kafka_mock_cluster_new": (ctypes.c_void_p, (ctypes.c_void_p, ctypes.c_int)),
    "rd_kafka_mock_cluster_bootstraps": (ctypes.c_char_p, (ctypes.c_void_p,)),
    "rd_kafka_mock_topic_create": (
        ctypes.c_int,
        (ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int, ctypes.c_int),
    ),
    "rd_kafka_mock_group_initial_rebalance_delay_ms": (None, (ctypes.c_void_p, ctypes.c_int32)),
    "rd_kafka_mock_set_group_consumer_heartbeat_interval_ms": (None, (ctypes.c_void_p, ctypes.c_int)),
}
_REASON_BYTES = 512


def _librdkafka() -> ctypes.CDLL:
    """The library with its functions typed. Raises EmbeddedKafkaError if it cannot be loaded."""
    path = library_path()
    try:
        library = ctypes.CDLL(str(path))
        for name, (result, arguments) in _PROTOTYPES.items():
            function = getattr(library, name)
            function.restype, function.argtypes = result, arguments
    except (OSError, AttributeError) as error:
        raise EmbeddedKafkaError(f"{path} has no mock cluster ({error}). {_ADVICE}") from error
    return library


def _start_cluster(library: ctypes.CDLL) -> int:
    """A mock cluster of one broker; it lives as long as the process."""
    reason = ctypes.create_string_buffer(_REASON_BYTES)
    settings = library.rd_kafka_conf_new()
    library.rd_kafka_conf_set(settings, b"log_level", _LOG_NOTHING, reason, _REASON_BYTES)
    client = library.rd_kafka_new(_PRODUCER, settings, reason, _REASON_BYTES)
    cluster = client and library.rd_kafka_mock_cluster_new(client, _BROKERS)
    if not cluster:
        raise EmbeddedKafkaError(
            f"librdkafka did not start a mock cluster {reason.value.decode()}. {_ADVICE}"
        )
    library.rd_kafka_mock_group_initial_rebalance_delay_ms(cluster, REBALANCE_DELAY_MS)
    library.rd_kafka_mock_set_group_consumer_heartbeat_interval_ms(cluster, HEARTBEAT_INTERVAL_MS)
    return int(cluster)


def _create_topic(library: ctypes.CDLL, cluster: int, name: str, partitions: int) -> None:
    error = library.rd_kafka_mock_topic_create(cluster, name.encode(), partitions, _BROKERS)
    if error:
        raise EmbeddedKafkaError(f"librdkafka did not create topic {name!r}: error {error}. {_ADVICE}")


def _serve(topics: list[str]) -> None:
    """The child: a broker until standard input closes. Everything that librdkafka holds is freed when the process
    ends.
    """
    library = _librdkafka()
    cluster = _start_cluster(library)
    for topic in topics:
        name, _, partitions = topic.rpartition("=")
        _create_topic(library, cluster, name, int(partitions))
    sys.stdout.write(f"{_READY}{library.rd_kafka_mock_cluster_bootstraps(cluster).decode()}\n")
    sys.stdout.flush()
    sys.stdin.read()


def _main() -> NoReturn:
    try:
        _serve(sys.argv[1:])
    except EmbeddedKafkaError as error:
        sys.exit(str(error))
    sys.exit(0)


if __name__ == "__main__":
    _main()
