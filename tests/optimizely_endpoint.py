"""A stand-in for Optimizely's event endpoint: receives the SDK's real event batches, and writes the export of them.

In: event batches as optimizely-sdk sends them (POST /v1/events). Out: an Experimentation Events Export, as far as
`flagpost reconcile --optimizely` reads it, without what was lost; the lost exposures, for the test.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from queue import Queue
from types import TracebackType
from typing import Any, NamedTuple, Self

import duckdb
import orjson
from aiohttp import web
from optimizely.event.event_processor import BatchEventProcessor
from optimizely.event_dispatcher import EventDispatcher
from optimizely.helpers.sdk_settings import OptimizelySdkSettings
from optimizely.notification_center import NotificationCenter
from optimizely.optimizely import Optimizely

HOLDOUT = "holdout"
DRAIN_SECONDS = 300
"""How long closing a client may wait for its events to be sent."""
COLUMNS = (
    "uuid",
    "timestamp",
    "process_timestamp",
    "visitor_id",
    "session_id",
    "account_id",
    "campaign_id",
    "experiment_id",
    "variation_id",
    "is_holdback",
    "client_engine",
    "client_version",
    "revision",
)
"""The export's columns for a decision, by the names of Optimizely's data specification."""

Exposure = tuple[str, str, str]
"""Experiment, variation, visitor; an empty string if the SDK sent none."""


class Decided(NamedTuple):
    """One decision of a batch."""

    row: dict[str, Any]

    @property
    def exposure(self) -> Exposure:
        row = self.row
        return row["experiment_id"] or "", row["variation_id"] or "", row["visitor_id"]


class OptimizelyEndpoint:
    """A server that accepts every batch and then loses some of them. An async context manager."""

    def __init__(self, loses: float, seed: int) -> None:
        """`loses`: the share of the batches that are lost, 0 to 1."""
        self._loses = loses
        self._chance = random.Random(seed)
        self.kept: list[Decided] = []
        self.lost: list[Decided] = []
        self.batches = 0
        self.lost_batches = 0
        self.url = ""

    async def __aenter__(self) -> Self:
        app = web.Application()
        app.router.add_post("/v1/events", self._take)
        self._runner = web.AppRunner(app)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        host, port = self._runner.addresses[0][:2]
        self.url = f"http://{host}:{port}/v1/events"
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._runner.cleanup()

    def dispatch_event(self, event: Any) -> None:
        """Send an event with the SDK's own dispatcher, to this server instead of Optimizely's."""
        event.url = self.url
        EventDispatcher.dispatch_event(event)

    def client(self, datafile: dict[str, Any], batch_size: int) -> Optimizely:
        """A client like a service's, with the SDK's own event processor; its queue is never full."""
        centre = NotificationCenter()
        return Optimizely(
            orjson.dumps(datafile).decode(),
            notification_center=centre,
            event_processor=BatchEventProcessor(
                self,
                event_queue=Queue(),
                batch_size=batch_size,
                timeout_interval=DRAIN_SECONDS,
                start_on_init=True,
                notification_center=centre,
            ),
            settings=OptimizelySdkSettings(odp_disabled=True),
        )

    def write_export(self, path: Path) -> Path:
        """Write the export of the decisions that were not lost; returns the path."""
        lines = path.with_suffix(".ndjson")
        lines.write_bytes(b"".join(orjson.dumps(decided.row) + b"\n" for decided in self.kept))
        if path.suffix != ".ndjson":
            columns = ", ".join(COLUMNS)
            duckdb.sql(f"copy (select {columns} from read_json('{lines}')) to '{path}' (format parquet)")  # noqa: S608 - our own words
        return path

    async def _take(self, request: web.Request) -> web.Response:
        decided = list(_decided_in(orjson.loads(await request.read())))
        self.batches += 1
        if self._chance.random() < self._loses:
            self.lost_batches += 1
            self.lost += decided
        else:
            self.kept += decided
        return web.Response(status=204)


def _decided_in(batch: dict[str, Any]) -> Iterator[Decided]:
    for visitor in batch["visitors"]:
        for snapshot in visitor["snapshots"]:
            (event,) = snapshot["events"]
            for decision in snapshot.get("decisions") or ():
                row = {
                    "uuid": event["uuid"],
                    "timestamp": event["timestamp"],
                    "process_timestamp": event["timestamp"],
                    "visitor_id": visitor["visitor_id"],
                    "session_id": "AUTO",
                    "account_id": batch["account_id"],
                    "campaign_id": decision["campaign_id"],
                    "experiment_id": decision["experiment_id"],
                    "variation_id": decision["variation_id"],
                    "is_holdback": decision["metadata"]["rule_type"] == HOLDOUT,
                    "client_engine": batch["client_name"],
                    "client_version": batch["client_version"],
                    "revision": batch["revision"],
                }
                assert row.keys() == set(COLUMNS)
                yield Decided(row)
