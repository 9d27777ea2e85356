"""A Kafka broker with nothing to install: librdkafka's mock cluster, in a child process of its own.

In: topics with their numbers of partitions. Out: the address of a broker that speaks Kafka's protocol to any
client on this machine: producers (idempotent and transactional ones too), consumer groups of either protocol,
headers, timestamps, commit metadata. Nothing is written to disk.

It keeps the newest 5 MiB of a partition, and it lacks what the admin client needs (create_topics,
describe_topics), offsets_for_times and read_committed: for demos and quick tests, never for production.
"""

from __future__ import annotations

import ctypes
import subprocess
import sys
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import IO, NoReturn, Self

START_TIMEOUT_SECONDS = 10.0
STOP_TIMEOUT_SECONDS = 5.0
REBALANCE_DELAY_MS = 100
"""How long a new group waits for more members; librdkafka's own default of 3 s makes a demo look broken."""

_ADVICE = "Use a Kafka of your own: --bootstrap-servers HOST:PORT."
_READY = "ready "
_PRODUCER = 0  # enum rd_kafka_type_t
_LOG_NOTHING = b"0"
_REPLICATION_FACTOR = 1


class EmbeddedKafkaError(RuntimeError):
    """The embedded broker cannot run here; the message says why and what to use in its place."""


class EmbeddedKafka:
    """A broker that lives as long as its `with` block.

    The child ends when this process does, however that ends, because its standard input closes. A Ctrl-C in
    the terminal does not reach it, so that what uses the broker can still drain.
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
        """The child's process id, so that its memory and CPU can be told apart."""
        if self._child is None:
            raise EmbeddedKafkaError("The embedded broker is not running: use it inside its `with` block.")
        return self._child.pid

    def __enter__(self) -> Self:
        """Start the broker; EmbeddedKafkaError where that cannot be done."""
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
    """The address that a child says when it is ready, which takes it well under a second."""
    line = _read_line(child.stdout)
    if line.startswith(_READY):
        return line.removeprefix(_READY)
    _, reason = child.communicate(timeout=START_TIMEOUT_SECONDS)
    last = reason.strip().splitlines()[-1:] or [f"exit code {child.returncode}"]
    raise EmbeddedKafkaError(f"The embedded Kafka broker did not start: {last[0]}")


def _read_line(stream: IO[str] | None) -> str:
    return stream.readline().strip() if stream else ""


def library_path() -> Path:
    """The librdkafka that the confluent-kafka wheel carries; EmbeddedKafkaError where there is none."""
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
        f"This confluent-kafka ({package}) carries no librdkafka of its own, so there is no embedded broker."
        f" {_ADVICE}"
    )


class _MockCluster:
    """librdkafka's mock cluster, through its C interface (rdkafka_mock.h)."""

    def __init__(self, library: ctypes.CDLL) -> None:
        self._library = library
        self._client = self._new_client()
        self._cluster = ctypes.c_void_p(
            self._function("rd_kafka_mock_cluster_new", ctypes.c_void_p)(self._client, ctypes.c_int(1))
        )
        if not self._cluster:
            raise EmbeddedKafkaError(f"librdkafka made no mock cluster. {_ADVICE}")
        self._function("rd_kafka_mock_group_initial_rebalance_delay_ms", None)(
            self._cluster, ctypes.c_int32(REBALANCE_DELAY_MS)
        )

    def _function(self, name: str, result: type[ctypes.c_void_p | ctypes.c_int | ctypes.c_char_p] | None):  # type: ignore[no-untyped-def]  # noqa: ANN202  ctypes' function pointers have no public type
        function = getattr(self._library, name)
        function.restype = result
        return function

    def _new_client(self) -> ctypes.c_void_p:
        settings = ctypes.c_void_p(self._function("rd_kafka_conf_new", ctypes.c_void_p)())
        reason = ctypes.create_string_buffer(512)
        self._function("rd_kafka_conf_set", ctypes.c_int)(settings, b"log_level", _LOG_NOTHING, reason, 512)
        client = ctypes.c_void_p(
            self._function("rd_kafka_new", ctypes.c_void_p)(ctypes.c_int(_PRODUCER), settings, reason, 512)
        )
        if not client:
            raise EmbeddedKafkaError(f"librdkafka does not start: {reason.value.decode()}. {_ADVICE}")
        return client

    def create_topic(self, name: str, partitions: int) -> None:
        error = self._function("rd_kafka_mock_topic_create", ctypes.c_int)(
            self._cluster, name.encode(), ctypes.c_int(partitions), ctypes.c_int(_REPLICATION_FACTOR)
        )
        if error:
            raise EmbeddedKafkaError(f"librdkafka did not create topic {name!r}: error {error}. {_ADVICE}")

    def bootstrap_servers(self) -> str:
        servers = self._function("rd_kafka_mock_cluster_bootstraps", ctypes.c_char_p)(self._cluster)
        return bytes(servers).decode()


def _serve(topics: list[str]) -> None:
    """The child: a broker until standard input closes. Ending the process frees all that librdkafka holds."""
    cluster = _MockCluster(ctypes.CDLL(str(library_path())))
    for topic in topics:
        name, _, partitions = topic.rpartition("=")
        cluster.create_topic(name, int(partitions))
    sys.stdout.write(f"{_READY}{cluster.bootstrap_servers()}\n")
    sys.stdout.flush()
    sys.stdin.read()


def _main() -> NoReturn:
    try:
        _serve(sys.argv[1:])
    except (EmbeddedKafkaError, OSError, AttributeError) as error:
        sys.exit(str(error))
    sys.exit(0)


if __name__ == "__main__":
    _main()
