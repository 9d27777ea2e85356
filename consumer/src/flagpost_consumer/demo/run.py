"""The demo: the whole path on this machine, a live view, and the reconciliation.

In: how long, how fast, how many visitors; optionally a Kafka of the user's. Out: exit code 0 only if every
decision is accounted for. The application is a process of its own; the consumer is the real service, in this one.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
import time
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import Any

import click
import orjson
import uvloop
from confluent_kafka import Consumer, TopicPartition
from rich.live import Live

from flagpost_consumer.adapters.clocks import clock
from flagpost_consumer.core.books.deliveries import Settled
from flagpost_consumer.core.outcomes import Ending, Kind, Outcome
from flagpost_consumer.core.pendo.endpoint import EndpointName
from flagpost_consumer.demo.embedded_kafka import EmbeddedKafka, EmbeddedKafkaError
from flagpost_consumer.demo.journey import Journey, journey_of
from flagpost_consumer.demo.options import Interrupted, Options
from flagpost_consumer.demo.own_kafka import OwnKafkaError, own_kafka
from flagpost_consumer.demo.pendo_stand_in import Endpoint, MetadataField, PendoStandIn, StandInConfig
from flagpost_consumer.demo.reconciliation import Place, Published, Reconciliation, reconcile
from flagpost_consumer.demo.sample_app import FLAGS
from flagpost_consumer.demo.view import (
    PLAIN_LINE_SECONDS,
    Numbers,
    picture,
    plain_line,
    print_journey,
    print_next_steps,
    print_table,
)
from flagpost_consumer.service.service import Service
from flagpost_consumer.settings import LogSettings, Needs, Settings, load_settings
from flagpost_consumer.terminal.echo import echo_json
from flagpost_consumer.terminal.rich_console import Terminal
from flagpost_schemas import Decoder
from flagpost_settings.log_section import LogLevel
from flagpost_settings.logs import configure_logging

PARTITIONS = 6
CATCH_UP_SECONDS = 45.0
"""How long the consumer may go on after the application has ended: a visitor's events are sent one second apart."""
VIEW_SECONDS = 0.25
KAFKA_SECONDS = 10.0
FAULT_SHARE = 0.02
"""Pendo answers this share of requests with 503, so that there is something to retry."""


@dataclass(frozen=True, slots=True)
class Topics:
    """The names of one run."""

    prefix: str

    @property
    def events(self) -> str:
        """The events topic."""
        return f"{self.prefix}.events"

    @property
    def suppressions(self) -> str:
        """The topic of suppressed visitors."""
        return f"{self.prefix}.suppressions"

    def all(self) -> dict[str, int]:
        """Every topic and its number of partitions."""
        many = {f"{self.prefix}.{name}": PARTITIONS for name in ("events", "ledger", "dead-letters")}
        return {**many, self.suppressions: 1}


class DemoError(Exception):
    """The demo cannot run; the message says what to do."""


@dataclass(slots=True)
class Progress:
    """What the application and the consumer have reported so far."""

    app: dict[str, Any] = field(default_factory=dict)
    """The application's last line."""
    settled: dict[tuple[Place, Kind], Ending] = field(default_factory=dict)
    journey: Journey | None = None
    """The journey of the first delivered decision."""

    def note(self, settled: Settled) -> None:
        """A delivery has ended; of several endings of one delivery, the first is kept."""
        key = (settled.record.partition, settled.record.offset), settled.kind
        self.settled.setdefault(key, settled.ending)


def carry_out(options: Options, interrupted: Callable[[], bool], *, as_json: bool) -> bool:
    """Run the demo and show it; returns whether every decision is accounted for.

    `interrupted`: returns whether Ctrl-C has come.

    Raises:
        click.ClickException: it cannot run; the message says why.
        Interrupted: Ctrl-C came before anything was decided.
    """
    configure_logging(LogSettings(level=LogLevel.ERROR), sys.stderr)
    console = Terminal(stderr=as_json)
    try:
        table, journey = uvloop.run(run(options, None if as_json else console, interrupted))
    except (DemoError, EmbeddedKafkaError, OwnKafkaError) as error:
        raise click.ClickException(str(error)) from None
    if as_json:
        echo_json(table.as_json())
        return not table.disagreements()
    if not shows_picture(console):
        print_journey(console, journey)
    print_table(console, table)
    print_next_steps(console)
    return not table.disagreements()


def shows_picture(console: Terminal) -> bool:
    """Whether there is a terminal on which the view can be redrawn."""
    return console.is_terminal and not console.is_dumb_terminal


async def run(
    options: Options, console: Terminal | None, interrupted: Callable[[], bool]
) -> tuple[Reconciliation, Journey | None]:
    """Run the demo; `console`: where to show the view, if at all."""
    topics = Topics(f"flagpost-demo-{uuid.uuid4().hex[:8]}")
    fields = tuple(MetadataField(f"optimizely_{flag}", f"[Optimizely] {flag}") for flag in FLAGS)
    with kafka(options.bootstrap_servers, topics) as bootstrap_servers:
        async with PendoStandIn(StandInConfig(fields=fields)) as pendo:
            pendo.faults.mix(1, [(FAULT_SHARE, 503)])
            settings = demo_settings(bootstrap_servers, topics, pendo)
            demo = Demo(options, settings, pendo, console)
            demo.heed_signals()
            if interrupted():
                raise Interrupted
            return await demo.run(), demo.journey


@contextmanager
def kafka(bootstrap_servers: str | None, topics: Topics) -> Iterator[str]:
    """The user's broker with topics for this run, removed again at the end; or the embedded one."""
    if bootstrap_servers is not None:
        with own_kafka(bootstrap_servers, topics.all()) as servers:
            yield servers
    else:
        with EmbeddedKafka(topics.all()) as embedded:
            yield embedded.bootstrap_servers


def demo_settings(bootstrap_servers: str, topics: Topics, pendo: PendoStandIn) -> Settings:
    """The consumer's settings: the defaults, except the addresses and how soon metadata is sent."""
    values = {
        "KAFKA__BOOTSTRAP_SERVERS": bootstrap_servers,
        "KAFKA__GROUP_ID": topics.prefix,
        "KAFKA__TOPIC": topics.events,
        "KAFKA__LEDGER_TOPIC": f"{topics.prefix}.ledger",
        "KAFKA__DEAD_LETTER_TOPIC": f"{topics.prefix}.dead-letters",
        "KAFKA__SUPPRESSIONS_TOPIC": topics.suppressions,
        "PENDO__TRACK_URL": pendo.track_url,
        "PENDO__API_URL": pendo.api_url,
        "PENDO__TRACK_SECRET": pendo.keys.track_secret,
        "PENDO__INTEGRATION_KEY": pendo.keys.integration_key,
        "ADMIN__HOST": "127.0.0.1",
        "ADMIN__PORT": "0",
    }
    environ = {f"FLAGPOST_{name}": value for name, value in values.items()}
    return load_settings(None, environ, Needs.KAFKA | Needs.PENDO)


class Demo:
    """One run."""

    def __init__(
        self, options: Options, settings: Settings, pendo: PendoStandIn, console: Terminal | None
    ) -> None:
        self._options = options
        self._settings = settings
        self._pendo = pendo
        self._console = console
        self._progress = Progress()
        self._service = Service(settings, on_settled=self._note, announce=False)
        self._begin = time.monotonic()
        self._phase = "the application decides"
        self._interrupted = asyncio.Event()

    async def run(self) -> Reconciliation:
        """Run all parts to their end, and compare their reports."""
        since_ms = clock().wall_ms
        async with self._view():
            serving = asyncio.ensure_future(self._service.run())
            try:
                await self._let_application_run(serving)
            except Interrupted:
                self._service.stop()
                await serving
                raise
            self._phase = "the consumer catches up"
            await self._let_consumer_catch_up(serving)
            self._phase = "comparing"
            self._service.stop()
            code = await serving
        if code != 0:
            raise DemoError(f"the consumer ended with exit code {code}; run flagpost consume to see why")
        table = await asyncio.to_thread(self._compare)
        table.since_ms, table.until_ms = since_ms, clock().wall_ms
        return table

    def heed_signals(self) -> None:
        """From now on the first Ctrl-C ends the traffic, and the second one ends the wait for the consumer."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self._interrupted.set)

    @property
    def journey(self) -> Journey | None:
        """The journey of the first delivered decision; None: none was delivered yet."""
        return self._progress.journey

    def _note(self, settled: Settled) -> None:
        self._progress.note(settled)
        if self._progress.journey is None:
            self._progress.journey = journey_of(settled, self._pendo.received.of(Endpoint.TRACK))

    # The application

    async def _let_application_run(self, serving: asyncio.Future[int]) -> None:
        process = await asyncio.create_subprocess_exec(
            *self._command(),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            start_new_session=True,  # a Ctrl-C is for this process, which then ends the application
        )
        reading = asyncio.ensure_future(self._read(process))
        interrupted = asyncio.ensure_future(self._interrupted.wait())
        parts: set[asyncio.Future[Any]] = {reading, interrupted, serving}
        await asyncio.wait(parts, return_when=asyncio.FIRST_COMPLETED)
        interrupted.cancel()
        if not reading.done():
            process.terminate()
        await reading
        if serving.done():
            raise DemoError("the consumer ended early; run flagpost consume to see why")
        if self._progress.app.get("kind") != "final":
            if self._interrupted.is_set():
                raise Interrupted
            said = (await process.stderr.read()).decode().strip() if process.stderr else ""
            raise DemoError(f"the sample application failed: {said or 'it said nothing'}")

    def _command(self) -> list[str]:
        options = {
            "--bootstrap-servers": self._settings.kafka.bootstrap_servers,
            "--topic": self._settings.kafka.topic,
            "--rate": self._options.rate,
            "--seconds": self._options.seconds,
            "--visitors": self._options.visitors,
        }
        module = [sys.executable, "-m", "flagpost_consumer.demo.sample_app"]
        return [*module, *(str(part) for option in options.items() for part in option)]

    async def _read(self, process: asyncio.subprocess.Process) -> None:
        if process.stdout is not None:
            async for line in process.stdout:
                self._progress.app = orjson.loads(line)
        await process.wait()

    # The consumer

    async def _let_consumer_catch_up(self, serving: asyncio.Future[int]) -> None:
        accounts = self._service.engine.accounts
        deadline = time.monotonic() + CATCH_UP_SECONDS
        self._interrupted.clear()
        while time.monotonic() < deadline and not self._interrupted.is_set() and not serving.done():
            if accounts.records >= self._published() and not any(accounts.pending.values()):
                return
            await asyncio.sleep(VIEW_SECONDS)

    def _published(self) -> int:
        return int(self._progress.app["publisher"]["delivered"]) if self._progress.app else 0

    # The comparison

    def _compare(self) -> Reconciliation:
        published, committed = read_topic(self._settings)
        table = reconcile(published, self._progress.settled, committed)
        app = self._progress.app
        table.decided = Counter({(r["flag_key"], r["variation_key"]): r["decisions"] for r in app["rows"]})
        stats = app["publisher"]
        table.removed_at_source = stats["duplicates"] + stats["refused"] + stats["failed"]
        table.at_pendo = Counter(self._pendo.received.decisions)
        return table

    # The view

    @asynccontextmanager
    async def _view(self) -> AsyncIterator[None]:
        if self._console is None:
            yield
            return
        showing = asyncio.ensure_future(
            self._show_picture(self._console)
            if shows_picture(self._console)
            else self._show_lines(self._console)
        )
        try:
            yield
        finally:
            showing.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await showing

    async def _show_picture(self, console: Terminal) -> None:
        with Live(picture(self._numbers()), console=console, auto_refresh=False) as live:
            try:
                while True:
                    live.update(picture(self._numbers()), refresh=True)
                    await asyncio.sleep(VIEW_SECONDS)
            finally:
                live.update(picture(self._numbers()), refresh=True)

    async def _show_lines(self, console: Terminal) -> None:
        while True:
            console.print(plain_line(self._numbers()), highlight=False, soft_wrap=True)
            await asyncio.sleep(PLAIN_LINE_SECONDS)

    def _numbers(self) -> Numbers:
        engine, app, received = self._service.engine, self._progress.app, self._pendo.received
        now = clock()
        stats = app.get("publisher", {})
        requests = self._service.metrics.observed.requests
        answers: Counter[str] = Counter()
        for (_, status), count in requests.items():
            answers[status] += count
        metadata_requests = sum(n for (name, _), n in requests.items() if name is EndpointName.METADATA)
        return Numbers(
            phase=self._phase,
            seconds=time.monotonic() - self._begin,
            decisions=app.get("decisions", 0),
            removed_by_publisher=stats.get("duplicates", 0),
            published=stats.get("accepted", 0),
            consumed=engine.accounts.records,
            duplicates=engine.accounts.total(Kind.TRACK, Outcome.DUPLICATE),
            paced=engine.paced(now),
            ready=engine.sendable(now),
            in_flight=engine.track.in_flight,
            delivered=received.recorded(Endpoint.TRACK),
            metadata_values=received.metadata_records,
            answers=dict(answers),
            metadata_requests=metadata_requests,
            journey=self._progress.journey,
        )


def read_topic(settings: Settings) -> tuple[list[Published], dict[int, int]]:
    """Read the whole events topic again, and the group's committed positions."""
    kafka_settings, topic = settings.kafka, settings.kafka.topic
    reader = Consumer({**kafka_settings.client_properties(), "group.id": kafka_settings.group_id})
    try:
        partitions = [TopicPartition(topic, number, 0) for number in range(PARTITIONS)]
        ends = {p.partition: reader.get_watermark_offsets(p, KAFKA_SECONDS)[1] for p in partitions}
        committed = {p.partition: max(0, p.offset) for p in reader.committed(partitions, KAFKA_SECONDS)}
        reader.assign(partitions)
        published = list(_read_to(reader, ends))
    finally:
        reader.close()
    return published, committed


def _read_to(reader: Consumer, ends: dict[int, int]) -> Iterator[Published]:
    decoder = Decoder()
    left = sum(ends.values())
    deadline = time.monotonic() + KAFKA_SECONDS
    while left:
        messages = reader.consume(min(left, 1000), 0.2)
        for message in messages:
            if message.error() is None:
                left -= 1
                place = message.partition() or 0, message.offset() or 0
                yield Published(place, decoder.decode(message.value()))
        if messages:
            deadline = time.monotonic() + KAFKA_SECONDS
        elif time.monotonic() > deadline:
            raise DemoError(f"{left} records of the events topic could not be read again")
