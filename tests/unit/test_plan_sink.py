"""The sink of `flagpost plan --calibrate`: its response time is measured at the same time as the consumer."""

from __future__ import annotations

import socket
import threading
import time

from flagpost_consumer.commands.plan.sink import probing, running_sink

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
SLOW_SECONDS = 0.2


class Server(threading.Thread):
    """Answers five probes at once, the next three late, and all others at once."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listening.getsockname()[1]
        self.slow_from = self.ended = 0.0
        self.done = threading.Event()

    def run(self) -> None:
        connection, _ = self._listening.accept()
        with connection, self._listening:
            self._answer(connection, 5, 0.0)
            self.slow_from = time.monotonic()
            self._answer(connection, 3, SLOW_SECONDS)
            self.ended = time.monotonic()
            self.done.set()
            self._answer(connection, 1_000, 0.0)

    def _answer(self, connection: socket.socket, count: int, seconds: float) -> None:
        for _ in range(count):
            if not connection.recv(1024):
                return
            time.sleep(seconds)
            connection.sendall(ANSWER)


def test_the_response_time_is_that_of_the_measured_period() -> None:
    server = Server()
    server.start()
    with probing(server.port) as probes:
        assert server.done.wait(60)
    slow = probes.during(server.slow_from + SLOW_SECONDS, server.ended - server.slow_from - SLOW_SECONDS)
    whole = probes.during(0.0, server.ended)
    assert slow.latency_seconds >= SLOW_SECONDS
    assert whole.latency_seconds < slow.latency_seconds
    assert whole.jitter_seconds > 0
    assert probes.during(server.ended + 3600.0, 1.0).latency_seconds <= whole.latency_seconds, (
        "of all the time"
    )


def test_the_sink_answers_after_its_latency() -> None:
    with running_sink(20.0) as port, probing(port) as probes:
        pass
    assert probes.during(0.0, time.monotonic()).latency_seconds >= 0.02
