"""The threads that own Kafka's clients: they read events, ledgers, suppressions, splits, and the ids of topics.

In: settings, the handlers for what they read. Out: started threads, each stopped and joined at the end.
"""

from __future__ import annotations

import asyncio

from flagpost_consumer.adapters.kafka.config import consumer_config, stand_in_config
from flagpost_consumer.adapters.kafka.intake import KafkaIntake
from flagpost_consumer.adapters.kafka.splits_reader import SplitsReader
from flagpost_consumer.adapters.kafka.suppressions_reader import SuppressionsReader
from flagpost_consumer.adapters.kafka.topic_ids import TopicIds
from flagpost_consumer.adapters.kafka.topic_watch import TopicWatch
from flagpost_consumer.adapters.ledger.restore import LedgerRestore
from flagpost_consumer.service.engine_loop import EngineLoop
from flagpost_consumer.service.kafka_calls import KafkaCalls
from flagpost_consumer.service.releases import Releases
from flagpost_consumer.service.topic_changes import TopicChanges
from flagpost_consumer.settings import KafkaSettings, Settings


class Threads:
    """The threads of one service. Built on the event loop, to which all of them report."""

    def __init__(
        self,
        settings: Settings,
        engine_loop: EngineLoop,
        calls: KafkaCalls,
        releases: Releases,
        topics: TopicChanges,
    ) -> None:
        kafka, loop = settings.kafka, asyncio.get_running_loop()
        topics.ids = ids = TopicIds(
            kafka.client_properties(),
            topics_of(kafka),
            lambda topic, _, before: loop.call_soon_threadsafe(topics.on_topic_id, topic, before),
        )
        calls.restore = self._restore = LedgerRestore(kafka, settings.dedupe, releases, loop, ids)
        engine_loop.intake = self.intake = KafkaIntake(
            consumer_config(kafka),
            kafka.topic,
            calls,
            loop,
            stand_in_config(kafka),
            kafka.session_timeout_seconds,
        )
        self._suppressions = SuppressionsReader(kafka, releases, loop)
        releases.suppressions = topics.suppressions = self._suppressions
        self._splits = _splits_reader(settings, engine_loop, loop)
        self._watch = TopicWatch(kafka.client_properties(), kafka.topic, ids, self.intake)

    def start(self) -> None:
        """Start reading."""
        if self._splits is not None:
            self._splits.start()
        self._suppressions.start()
        self.intake.start()
        self._watch.start()

    def stop(self) -> None:
        """Ask all threads but the intake to end; the intake has ended by then, or is given up."""
        self._watch.stop()
        self._restore.cancel()
        self._suppressions.stop()
        if self._splits is not None:
            self._splits.stop()

    async def join(self) -> None:
        """Wait for the threads that end soon after `stop`."""
        await asyncio.to_thread(self._suppressions.join)
        if self._splits is not None:
            await asyncio.to_thread(self._splits.join)


def topics_of(kafka: KafkaSettings) -> tuple[str, ...]:
    """The topics that a consumer reads or writes."""
    return kafka.topic, kafka.ledger_topic, kafka.dead_letter_topic, kafka.suppressions_topic


def _splits_reader(
    settings: Settings, engine_loop: EngineLoop, loop: asyncio.AbstractEventLoop
) -> SplitsReader | None:
    """The reader of the expected splits of metrics.flags, if publishers report them; else None."""
    kafka = settings.kafka
    if kafka.impressions_topic is None or not settings.metrics.flags:
        return None
    return SplitsReader(kafka, kafka.impressions_topic, loop, engine_loop.metrics.experiments.tell)
