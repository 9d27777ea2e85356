"""One real Apache Kafka broker (KRaft, a single node) on 127.0.0.1.

In: an empty directory. Out: `KafkaBroker`, ready to serve; it can be stopped, killed and started again with its
data and its address. It has two addresses: at one everybody may do everything; at the other clients are the user
`USER`, who may do only what a test allows.
"""

from __future__ import annotations

import base64
import signal
import subprocess
import time
import uuid
from collections.abc import Mapping
from pathlib import Path

from confluent_kafka import Consumer, KafkaException
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from real_kafka import rights
from real_kafka.parts import kafka_jars
from real_kafka.processes import JAVA, JavaProcess, free_port, listens

CALL_SECONDS = 20.0
WARM_UP_TOPIC = "warm-up"
USER = "flagpost"
"""Who clients are at the address where rights count."""
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
    # One broker holds everything, once.
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
    """A broker for tests."""

    def __init__(self, directory: Path, properties: Mapping[str, str] | None = None) -> None:
        """Format the storage and start: about four seconds, the first group included.

        `properties`: the broker's own, besides or in place of `PROPERTIES`.
        """
        self._directory = directory
        self._properties_given = dict(properties or {})
        self._java_path = ["-cp", f"{kafka_jars()}/*"]
        self._choose_ports()
        self._format_storage()
        self._process: JavaProcess | None = self._start_first()
        self.create_topics(WARM_UP_TOPIC, partitions=1)
        self._warm_up()

    @property
    def bootstrap_servers(self) -> str:
        """Where clients connect; the same after a restart."""
        return f"127.0.0.1:{self._port}"

    @property
    def users_bootstrap_servers(self) -> str:
        """Where clients connect as `USER`, with `user_properties`."""
        return f"127.0.0.1:{self._users_port}"

    @property
    def user_properties(self) -> dict[str, str]:
        """What librdkafka needs to be `USER`, as `kafka.properties` takes it."""
        return {
            "security.protocol": "SASL_PLAINTEXT",
            "sasl.mechanism": "PLAIN",
            "sasl.username": USER,
            "sasl.password": PASSWORD,
        }

    def allow(self, kind: str, name: str, *operations: str) -> None:
        """Give `USER` rights (such as "write") on a "topic", a "group" or another resource; they hold on return."""
        rights.give(self.admin(), USER, kind, name, operations)

    def disallow(self, kind: str, name: str, *operations: str) -> None:
        """Take rights of `USER` away again; they are gone on return."""
        rights.take(self.admin(), USER, kind, name, operations)

    def admin(self) -> AdminClient:
        """A client for what this class does not do."""
        return AdminClient({"bootstrap.servers": self.bootstrap_servers, "log_level": 3})

    def create_topics(
        self, *names: str, partitions: int = 4, config: Mapping[str, str] | None = None
    ) -> None:
        """Create topics, and wait until they can be used."""
        new = [NewTopic(name, partitions, 1, config=dict(config or {})) for name in names]
        admin = self.admin()
        for future in admin.create_topics(new, operation_timeout=CALL_SECONDS).values():
            future.result(CALL_SECONDS)
        # The broker hears of them from the controller a moment later.
        deadline = time.monotonic() + CALL_SECONDS
        while set(names) - admin.list_topics(timeout=CALL_SECONDS).topics.keys():
            if time.monotonic() > deadline:
                raise RuntimeError(f"the broker does not show {names} within {CALL_SECONDS:g} s")
            admin.poll(0.02)

    def make_anew(self, name: str, partitions: int) -> None:
        """Delete a topic and create it anew; it is there on return."""
        admin = self.admin()
        admin.delete_topics([name], operation_timeout=CALL_SECONDS)[name].result(CALL_SECONDS)
        deadline = time.monotonic() + CALL_SECONDS
        while name in admin.list_topics(timeout=CALL_SECONDS).topics:
            if time.monotonic() > deadline:
                raise RuntimeError(f"the broker still shows {name} after {CALL_SECONDS:g} s")
            admin.poll(0.02)
        self.create_topics(name, partitions=partitions)

    def data_directories(self, partition: str) -> list[Path]:
        """Where a partition's log lies, by `topic-number`; touch it only while the broker is stopped."""
        return list((self._directory / "data").glob(partition))

    def stop(self) -> None:
        """Shut down in order; nothing happens when it is not running."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End at once, as a machine does that loses power."""
        self._end(signal.SIGKILL)

    def freeze(self) -> None:
        """Stand still, connections and all, until `thaw`."""
        assert self._process is not None
        self._process.send(signal.SIGSTOP)

    def thaw(self) -> None:
        """Go on."""
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
        self._port, self._users_port = free_port(), free_port()
        self._write_properties()

    def _start_first(self) -> JavaProcess:
        """Start; once more at other ports where somebody took one of these meanwhile."""
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
            "log.dirs": str(self._directory / "data"),
        }
        lines = [f"{name}={value}" for name, value in {**PROPERTIES, **self._properties_given, **own}.items()]
        self._properties.write_text("\n".join(lines))

    @property
    def _properties(self) -> Path:
        return self._directory / "server.properties"

    def _format_storage(self) -> None:
        cluster_id = base64.urlsafe_b64encode(uuid.uuid4().bytes).rstrip(b"=").decode()
        tool = [*self._java_path, "kafka.tools.StorageTool", "format"]
        # "=" because an id may begin with a dash.
        arguments = [f"--cluster-id={cluster_id}", f"--config={self._properties}"]
        subprocess.run([*JAVA, *tool, *arguments], check=True, capture_output=True)

    def _start(self) -> JavaProcess:
        quiet = "-Dorg.slf4j.simpleLogger.defaultLogLevel=error"
        arguments = [*self._java_path, quiet, "kafka.Kafka", str(self._properties)]
        return JavaProcess(arguments, self._directory / "broker.log", self._answers)

    def _answers(self) -> bool:
        if not listens(self._port):
            return False
        try:
            return bool(self.admin().list_topics(timeout=1).brokers)
        except KafkaException:
            return False

    def _warm_up(self) -> None:
        """The first group on a new broker waits three seconds for its assignment; no test should."""
        consumer = Consumer(
            {
                "bootstrap.servers": self.bootstrap_servers,
                "group.id": "warm-up",
                "auto.offset.reset": "earliest",
            }
        )
        try:
            consumer.subscribe([WARM_UP_TOPIC])
            for _ in range(int(CALL_SECONDS / 0.1)):
                consumer.poll(0.1)
                if consumer.assignment():
                    return
            raise RuntimeError(f"the broker gave the first group no partition within {CALL_SECONDS:g} s")
        finally:
            consumer.close()
