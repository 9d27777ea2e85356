"""A real Apache Kafka broker (KRaft, a single node) on 127.0.0.1.

`KafkaBroker` is a broker as its clients see it, by its addresses. `OwnBroker` starts one in an empty directory; it
can be stopped, killed and started again with its data and its addresses. A broker has two addresses: at one every
client may do everything; at the other clients are the user `USER`, who may do only what a test allows.
"""

from __future__ import annotations

import base64
import shutil
import signal
import subprocess
import time
import uuid
from collections.abc import Mapping
from pathlib import Path

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from deadlines import stretched
from real_kafka import rights
from real_kafka.parts import CACHE, KAFKA_VERSION, fetch_once, java_version, kafka_jars
from real_kafka.processes import JAVA, JavaProcess, free_port, listens

CALL_SECONDS = 20.0
NOT_LED_YET = {
    KafkaError.LEADER_NOT_AVAILABLE,
    KafkaError.NOT_LEADER_FOR_PARTITION,
    KafkaError.UNKNOWN_TOPIC_OR_PART,
}
"""The errors that a broker returns for a new topic's partition at first."""
WARM_UP_TOPIC = "warm-up"
STORAGE, CLASSES = "data", "classes.jsa"
"""Inside a broker's directory."""
USER = "flagpost"
"""The user of clients at the address where rights are checked."""
PASSWORD = "password-of-flagpost"

PROPERTIES = {
    "process.roles": "broker,controller",
    "node.id": "1",
    "controller.listener.names": "CONTROLLER",
    "listener.security.protocol.map": "OPEN:PLAINTEXT,USERS:SASL_PLAINTEXT,CONTROLLER:PLAINTEXT",
    "inter.broker.listener.name": "OPEN",
    # At the listener OPEN clients are ANONYMOUS and may do everything; at USERS they have a name, and rights.
    "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
    "super.users": "User:ANONYMOUS",
    "sasl.enabled.mechanisms": "PLAIN",
    "listener.name.users.plain.sasl.jaas.config": (
        f'org.apache.kafka.common.security.plain.PlainLoginModule required user_{USER}="{PASSWORD}";'
    ),
    "auto.create.topics.enable": "false",
    # There is only one broker, so there is only one replica.
    "default.replication.factor": "1",
    "offsets.topic.replication.factor": "1",
    "offsets.topic.num.partitions": "1",
    "transaction.state.log.replication.factor": "1",
    "transaction.state.log.min.isr": "1",
    "transaction.state.log.num.partitions": "1",
    "share.coordinator.state.topic.replication.factor": "1",
    "share.coordinator.state.topic.min.isr": "1",
    # Groups form at once, and sessions may be short.
    "group.initial.rebalance.delay.ms": "0",
    "group.min.session.timeout.ms": "1000",
    "group.consumer.min.session.timeout.ms": "1000",
    "group.consumer.session.timeout.ms": "4000",
    "group.consumer.min.heartbeat.interval.ms": "500",
    "group.consumer.heartbeat.interval.ms": "1000",
    # A restart after kill -9 takes 2 s with these, and 12 s without.
    "broker.session.timeout.ms": "1000",
    "broker.heartbeat.interval.ms": "200",
    "controller.quorum.election.timeout.ms": "200",
    "controller.quorum.election.backoff.max.ms": "200",
    "controller.quorum.fetch.timeout.ms": "1000",
}


PORT_TAKEN = "Address already in use"


class KafkaBroker:
    """A broker for tests, as its clients see it."""

    def __init__(self, port: int, users_port: int) -> None:
        self.port, self.users_port = port, users_port

    def ports(self) -> list[int]:
        """The arguments with which another process makes the same `KafkaBroker`."""
        return [self.port, self.users_port]

    @property
    def bootstrap_servers(self) -> str:
        """Where clients connect; the same after a restart."""
        return f"127.0.0.1:{self.port}"

    @property
    def users_bootstrap_servers(self) -> str:
        """Where clients connect as `USER`, with `user_properties`."""
        return f"127.0.0.1:{self.users_port}"

    @property
    def user_properties(self) -> dict[str, str]:
        """The properties with which librdkafka connects as `USER`, in the form of `kafka.properties`."""
        return {
            "security.protocol": "SASL_PLAINTEXT",
            "sasl.mechanism": "PLAIN",
            "sasl.username": USER,
            "sasl.password": PASSWORD,
        }

    def allow(self, kind: str, name: str, *operations: str) -> None:
        """Give `USER` rights (such as "write") on a "topic", a "group" or another resource; they apply on return."""
        rights.give(self.admin(), USER, kind, name, operations)

    def disallow(self, kind: str, name: str, *operations: str) -> None:
        """Remove rights of `USER`; they are gone on return."""
        rights.take(self.admin(), USER, kind, name, operations)

    def admin(self) -> AdminClient:
        """An admin client, for what this class does not do."""
        return AdminClient({"bootstrap.servers": self.bootstrap_servers, "log_level": 3})

    def create_topics(
        self, *names: str, partitions: int = 4, config: Mapping[str, str] | None = None
    ) -> None:
        """Create topics, and wait until they can be used."""
        new = [NewTopic(name, partitions, 1, config=dict(config or {})) for name in names]
        admin = self.admin()
        for future in admin.create_topics(new, operation_timeout=stretched(CALL_SECONDS)).values():
            future.result(stretched(CALL_SECONDS))
        # The broker learns of the topics from the controller a moment later.
        deadline = time.monotonic() + stretched(CALL_SECONDS)
        while set(names) - admin.list_topics(timeout=stretched(CALL_SECONDS)).topics.keys():
            if time.monotonic() > deadline:
                raise RuntimeError(f"the broker does not show {names} within {CALL_SECONDS:g} s")
            admin.poll(0.02)

    def await_leaders(self, *names: str) -> None:
        """Wait until the end offsets of these topics' partitions can be read: a moment after the topics are shown."""
        consumer = Consumer({"bootstrap.servers": self.bootstrap_servers, "group.id": "looking"})
        topics = consumer.list_topics(timeout=stretched(CALL_SECONDS)).topics
        for name in names:
            for number in topics[name].partitions:
                self._await_leader(consumer, TopicPartition(name, number))
        consumer.close()

    @staticmethod
    def _await_leader(consumer: Consumer, partition: TopicPartition) -> None:
        deadline = time.monotonic() + stretched(CALL_SECONDS)
        while True:
            try:
                consumer.get_watermark_offsets(partition, timeout=stretched(CALL_SECONDS))
            except KafkaException as error:
                if error.args[0].code() not in NOT_LED_YET or time.monotonic() > deadline:
                    raise
            else:
                return

    def make_anew(self, name: str, partitions: int) -> None:
        """Delete a topic and create it again; it is there on return."""
        admin = self.admin()
        admin.delete_topics([name], operation_timeout=stretched(CALL_SECONDS))[name].result(
            stretched(CALL_SECONDS)
        )
        deadline = time.monotonic() + stretched(CALL_SECONDS)
        while name in admin.list_topics(timeout=stretched(CALL_SECONDS)).topics:
            if time.monotonic() > deadline:
                raise RuntimeError(f"the broker still shows {name} after {CALL_SECONDS:g} s")
            admin.poll(0.02)
        self.create_topics(name, partitions=partitions)


class OwnBroker(KafkaBroker):
    """A broker that its owner starts and stops."""

    def __init__(self, directory: Path, properties: Mapping[str, str] | None = None) -> None:
        """Start with a copy of the storage of this machine's first broker, which takes a second or two.

        `properties`: the broker's own, in addition to `PROPERTIES` or replacing some of them.
        """
        self._directory = directory
        self._properties_given = dict(properties or {})
        self._java_path = ["-cp", f"{kafka_jars()}/*", self._class_sharing()]
        super().__init__(free_port(), free_port())
        self._write_properties()
        self._make_storage()
        self._process: JavaProcess | None = self._start_first()
        self._warm_up()

    def data_directories(self, partition: str) -> list[Path]:
        """The directories of partitions, by a pattern of `topic-number`; change them only in a stopped broker."""
        return list((self._directory / STORAGE).glob(partition))

    def stop(self) -> None:
        """Shut down cleanly; does nothing if the broker is not running."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """Kill the broker with SIGKILL."""
        self._end(signal.SIGKILL)

    def freeze(self) -> None:
        """Freeze the broker with SIGSTOP until `thaw`; its connections stay open."""
        assert self._process is not None
        self._process.send(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let a frozen broker continue."""
        assert self._process is not None
        self._process.send(signal.SIGCONT)

    def restart(self) -> None:
        """Start again after `stop` or `kill` (after a stop, if it is running)."""
        self.stop()
        self._process = self._start()

    def _end(self, how: signal.Signals) -> None:
        if self._process is not None:
            self._process.end(how)
            self._process = None

    def _choose_ports(self) -> None:
        self.port, self.users_port = free_port(), free_port()
        self._write_properties()

    def _start_first(self) -> JavaProcess:
        """Start; retry once with other ports if another program has taken one of these meanwhile."""
        try:
            return self._start()
        except RuntimeError as error:
            if PORT_TAKEN not in str(error):
                raise
        self._choose_ports()
        return self._start()

    def _write_properties(self) -> None:
        controller = f"127.0.0.1:{free_port()}"
        clients = f"OPEN://{self.bootstrap_servers},USERS://{self.users_bootstrap_servers}"
        own = {
            "listeners": f"{clients},CONTROLLER://{controller}",
            "advertised.listeners": clients,
            "controller.quorum.voters": f"1@{controller}",
            "log.dirs": str(self._directory / STORAGE),
        }
        lines = [f"{name}={value}" for name, value in {**PROPERTIES, **self._properties_given, **own}.items()]
        self._properties.write_text("\n".join(lines))

    @property
    def _properties(self) -> Path:
        return self._directory / "server.properties"

    def _class_sharing(self) -> str:
        return f"-XX:SharedArchiveFile={_prepared() / CLASSES}"

    def _make_storage(self) -> None:
        shutil.copytree(_prepared() / STORAGE, self._directory / STORAGE)

    def _start(self) -> JavaProcess:
        quiet = "-Dorg.slf4j.simpleLogger.defaultLogLevel=error"
        arguments = [*self._java_path, quiet, "kafka.Kafka", str(self._properties)]
        return JavaProcess(arguments, self._directory / "broker.log", self._answers)

    def _answers(self) -> bool:
        if not listens(self.port):
            return False
        try:
            return bool(self.admin().list_topics(timeout=1).brokers)
        except KafkaException:
            return False

    def _warm_up(self) -> None:
        """Make the first group: on a new broker it waits three seconds for its assignment, and no test should."""
        if WARM_UP_TOPIC not in self.admin().list_topics(timeout=stretched(CALL_SECONDS)).topics:
            self.create_topics(WARM_UP_TOPIC, partitions=1)
        consumer = Consumer({"bootstrap.servers": self.bootstrap_servers, "group.id": "warm-up"})
        try:
            consumer.subscribe([WARM_UP_TOPIC])
            for _ in range(int(CALL_SECONDS / 0.1)):
                consumer.poll(0.1)
                if consumer.assignment():
                    return
            raise RuntimeError(f"the broker gave the first group no partition within {CALL_SECONDS:g} s")
        finally:
            consumer.close()


class SteadyBroker(OwnBroker):
    """A broker that nobody kills: it stays admitted to its cluster, however long a busy machine lets it wait."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory, {"broker.session.timeout.ms": "60000"})


class _FirstBroker(OwnBroker):
    """The first broker of a machine. With the files that it leaves, others start in a third of the time: an archive
    of Java's loaded classes, and a storage that has the topics of groups and transactions.
    """

    def _class_sharing(self) -> str:
        return f"-XX:ArchiveClassesAtExit={self._directory / CLASSES}"

    def _make_storage(self) -> None:
        cluster_id = base64.urlsafe_b64encode(uuid.uuid4().bytes).rstrip(b"=").decode()
        tool = ["-cp", f"{kafka_jars()}/*", "kafka.tools.StorageTool", "format"]
        # "=" because an id may begin with a dash.
        arguments = [f"--cluster-id={cluster_id}", f"--config={self._properties}"]
        subprocess.run([*JAVA, *tool, *arguments], check=True, capture_output=True)


def _prepared() -> Path:
    """The directory of the first broker, which was shut down cleanly; each version of Java needs its own classes."""
    return fetch_once(CACHE / f"kafka-{KAFKA_VERSION}-java-{java_version()}", _run_first)


def _run_first(directory: Path) -> None:
    _FirstBroker(directory).stop()
