"""Sends reports of impressions to Kafka: rarely, and separately from the events.

In: `tend`, from the publisher's thread. Out: every so often a report on the topic of impressions, by a producer of
its own that exists only for a moment: no event waits for it, or is counted with it.
"""

from __future__ import annotations

import ctypes
from threading import RLock
from time import monotonic, sleep
from typing import TYPE_CHECKING, Final

from confluent_kafka import KafkaError, KafkaException, Producer

from flagpost_kafka import greenlets
from flagpost_publisher.errors import KafkaTrouble
from flagpost_publisher.kafka_output import CONNECT_SECONDS
from flagpost_publisher.listener import now_ms
from flagpost_publisher.producer import client_log, producer_config

if TYPE_CHECKING:
    from collections.abc import Callable

    from flagpost_publisher.arguments import Options
    from flagpost_publisher.complaints import Complaints
    from flagpost_publisher.impressions import Impressions, Report

INTERVAL_SECONDS: Final = 60.0
"""Between two reports."""
MAX_INTERVAL_SECONDS: Final = 3_600.0
"""The same while Kafka takes no reports: the pause doubles, up to this."""
PATIENCE_SECONDS: Final = 10.0
"""How long Kafka may take for a report; after that it is written again in the next turn."""
LAST_SECONDS: Final = 1.0
"""How long the last reports delay close() at most."""
SLICE_SECONDS: Final = 0.02
"""How long close() waits at a time."""


class Reporting:
    """Writes the reports of one publisher in one process."""

    def __init__(
        self,
        options: Options,
        impressions: Impressions,
        complaints: Complaints,
        *,
        make: Callable[..., Producer] = Producer,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        """Reports nothing unless `options` have a topic for it. `make` makes a producer, `clock` returns seconds."""
        self._options = options
        self._impressions = impressions
        self._complaints = complaints
        self._make = make
        self._clock = clock
        self._turn = RLock()  # of the thread, or close(); re-entrant: a signal handler may close
        self._producer: Producer | None = None
        self._connecting_until = 0.0
        self._report: Report | None = None  # made, and not known to be in Kafka
        self._give_up_at = 0.0
        self._pause = INTERVAL_SECONDS
        self._due_at = clock() + INTERVAL_SECONDS

    def tend(self) -> None:
        """Do what is due, without waiting."""
        if self._options.impressions_topic is None:
            return
        with self._turn:
            self._impressions.count()
            if self._producer is None and self._clock() >= self._due_at:
                self._begin(self._options.impressions_topic)
            self._look_after(0)

    def seconds_to_finish(self, seconds: float) -> float:
        """How many of these seconds to keep for `finish`: what fails at the end is in the last reports."""
        return 0.0 if self._options.impressions_topic is None else min(LAST_SECONDS, seconds / 4)

    def finish(self, seconds: float) -> None:
        """Write the remaining reports, for at most this long."""
        if self._options.impressions_topic is None:
            return
        deadline = self._clock() + min(seconds, LAST_SECONDS)
        with self._turn:
            for _ in range(2):  # a report that waits for Kafka, and the one after it
                if self._producer is None:
                    self._begin(self._options.impressions_topic)
                while self._producer is not None and self._clock() < deadline:
                    self._look_after(SLICE_SECONDS)

    def let_connect(self) -> None:
        """Before a fork: wait until a connection that has just begun is established."""
        sleep(max(0.0, self._connecting_until - monotonic()))

    def abandon(self) -> None:
        """In a forked child: forget the parent's producer without destroying it (see `LastingProducer.abandon`)."""
        if self._producer is not None:
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(self._producer))

    def _begin(self, topic: str) -> None:
        self._report = self._report or self._impressions.report(now_ms())
        if self._report is None:
            self._due_at = self._clock() + INTERVAL_SECONDS
            return
        self._give_up_at = self._clock() + PATIENCE_SECONDS
        self._connecting_until = monotonic() + CONNECT_SECONDS
        try:
            self._producer = greenlets.call(lambda: self._make(self._config(), logger=client_log))
            self._producer.produce(topic, self._report.value, self._report.key, on_delivery=self._reported)
        except KafkaException as error:
            self._failed(str(error))

    def _config(self) -> dict[str, object]:
        return {
            **producer_config(self._options),
            "client.id": "flagpost-impressions",
            "message.timeout.ms": int(PATIENCE_SECONDS * 1000),
            "delivery.report.only.error": False,
            "linger.ms": 0,
        }

    def _look_after(self, seconds: float) -> None:
        held = [self._producer]  # a report that has arrived ends it
        if held[0] is None:
            return
        try:
            greenlets.wait(held[0].poll, seconds)
        except KafkaException as error:
            self._failed(str(error))
        if self._producer is not None and self._clock() >= self._give_up_at:
            self._failed("Kafka did not take them in time")
        if self._producer is None:
            greenlets.call(held.clear)  # it waits for librdkafka's threads

    def _reported(self, error: KafkaError | None, _: object) -> None:
        if error is not None:
            self._failed(error.str())
            return
        self._report, self._producer = None, None
        self._pause = INTERVAL_SECONDS
        self._due_at = self._clock() + INTERVAL_SECONDS

    def _failed(self, why: str) -> None:
        self._producer = None
        self._due_at = self._clock() + self._pause
        self._pause = min(2 * self._pause, MAX_INTERVAL_SECONDS)
        self._complaints.note(
            KafkaTrouble(
                "impressions",
                f"counts of impressions are not on {self._options.impressions_topic} yet, and wait: {why}; "
                "see that the topic is there and may be written to. Events are not concerned",
            )
        )
