"""Topics as a consumer group would leave them: events, settlements, commits, dead letters and their markers."""

from __future__ import annotations

import subprocess
from collections.abc import Iterable, Mapping
from typing import Any

import orjson
from click.testing import CliRunner
from confluent_kafka import Consumer, Producer, TopicPartition

from deadlines import stretched
from flagpost_consumer.commands.cli import flagpost
from flagpost_schemas import Gap, LedgerEntry, Settlements, encode_settlements
from running import FLAGPOST, environment
from scenes import Scene
from traffic import Published
from warm_starts import run

Header = tuple[str, str]

USUAL = {"delivered": "ok", "duplicate": "dedupe", "dropped": "no_consent", "dead_lettered": "rejected"}
"""A reason for each outcome."""


class History:
    """Writes what the consumer of a scene would have written."""

    def __init__(self, scene: Scene) -> None:
        self.scene = scene
        self.group = str(scene.settings["kafka.group_id"])
        self.ledger = str(scene.settings["kafka.ledger_topic"])
        self._producer = Producer({"bootstrap.servers": scene.kafka.bootstrap_servers})

    def write(
        self,
        partition: int,
        entries: Iterable[LedgerEntry],
        gaps: Iterable[Gap] = (),
        *,
        settled_at: int = 1_800_000_000_000,
        group: str | None = None,
        topic_id: str | None = None,
        timestamp_ms: int = 0,
    ) -> None:
        """Write one record of the ledger; the timestamp 0 means now."""
        settlements = Settlements(
            group=group or self.group,
            topic_id=topic_id,
            member="m",
            settled_at=settled_at,
            entries=list(entries),
            gaps=list(gaps),
        )
        self.put(self.ledger, partition, encode_settlements(settlements), timestamp_ms=timestamp_ms)

    def settle(self, published: Iterable[Published], outcome: str = "delivered", *kinds: str) -> None:
        """Settle deliveries of records: of these kinds, by default those of a decision."""
        by_partition: dict[int, list[LedgerEntry]] = {}
        for each in published:
            reason = USUAL[outcome]
            entries = [
                entry(each.offset, kind, outcome, reason=reason)
                for kind in kinds or ("track", "visitor_metadata")
            ]
            by_partition.setdefault(each.partition, []).extend(entries)
        for partition, entries in by_partition.items():
            self.write(partition, entries)

    def put(
        self,
        topic: str,
        partition: int,
        value: bytes | None,
        headers: Iterable[Header] = (),
        timestamp_ms: int = 0,
    ) -> int:
        """Write one record as it is; returns its offset."""
        offsets: list[int] = []
        listed: list[tuple[str, str | bytes | None]] = list(headers)
        self._producer.produce(
            topic,
            value,
            partition=partition,
            headers=listed,
            timestamp=timestamp_ms,
            on_delivery=lambda error, message: offsets.append(-1 if error else message.offset() or 0),
        )
        assert self._producer.flush(stretched(20)) == 0
        assert offsets[0] >= 0
        return offsets[0]

    def commit(self, positions: Mapping[int, int]) -> None:
        """Commit these offsets, by partition."""
        consumer = Consumer({"bootstrap.servers": self.scene.kafka.bootstrap_servers, "group.id": self.group})
        offsets = [TopicPartition(self.scene.topic, number, offset) for number, offset in positions.items()]
        consumer.commit(offsets=offsets, asynchronous=False)
        consumer.close()

    def commit_all(self) -> None:
        """Commit the ends of all partitions."""
        consumer = Consumer({"bootstrap.servers": self.scene.kafka.bootstrap_servers, "group.id": "looking"})
        numbers = (
            consumer.list_topics(self.scene.topic, timeout=stretched(20)).topics[self.scene.topic].partitions
        )
        ends = {
            number: consumer.get_watermark_offsets(
                TopicPartition(self.scene.topic, number), timeout=stretched(20)
            )[1]
            for number in numbers
        }
        consumer.close()
        self.commit(ends)

    def delete_before(self, topic: str, partition: int, offset: int) -> None:
        """Delete the records before an offset, as retention does."""
        wanted = [TopicPartition(topic, partition, offset)]
        admin = self.scene.kafka.admin()  # keep the client: its requests end with it
        for future in admin.delete_records(wanted).values():
            future.result(stretched(20))

    def command(self, *arguments: str) -> list[str]:
        """The command line of `flagpost` with arguments."""
        return [str(FLAGPOST), *arguments]

    def environment(self, **settings: object) -> dict[str, str]:
        """The scene's settings; a setting's dots are written as two underscores."""
        given = {key.replace("__", "."): value for key, value in settings.items()}
        return environment({**self.scene.settings, **given})

    def run(self, *arguments: str, **settings: object) -> subprocess.CompletedProcess[str]:
        """Run `flagpost` with the scene's settings, to its end."""
        return run(self.command(*arguments), self.environment(**settings), stretched(60))

    def reconcile(self, *arguments: str, code: int = 0, **settings: object) -> dict[str, Any]:
        """Run `flagpost reconcile --json`; fails unless its exit code is `code`."""
        done = self.run("reconcile", "--json", *arguments, **settings)
        assert done.returncode == code, (done.returncode, done.stdout, done.stderr)
        found: dict[str, Any] = orjson.loads(done.stdout)
        return found

    def reconcile_here(self, *arguments: str, code: int = 0) -> dict[str, Any]:
        """The same within this process, which saves the start of another one."""
        done = CliRunner().invoke(flagpost, ["reconcile", "--json", *arguments], env=self.environment())
        assert isinstance(done.exception, SystemExit | None), done.exc_info
        assert done.exit_code == code, (done.exit_code, done.stdout, done.stderr)
        found: dict[str, Any] = orjson.loads(done.stdout)
        return found


def entry(offset: int, kind: str = "track", outcome: str = "delivered", **fields: object) -> LedgerEntry:
    """A settlement."""
    return LedgerEntry(offset=offset, kind=kind, outcome=outcome, **{"reason": "ok", **fields})  # type: ignore[arg-type]
