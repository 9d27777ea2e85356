"""The gateway as a program: builds the parts, connects them, and runs until it is stopped.

In: settings. Out: an exit code (see `command`). Only this module knows all the parts.
"""

from __future__ import annotations

import asyncio
import gc
import signal
import sys
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Final

import structlog

from flagpost_http.addresses import Proxies
from flagpost_publisher.gateway import routes
from flagpost_publisher.gateway.admin import AdminServer
from flagpost_publisher.gateway.admission import Admissions
from flagpost_publisher.gateway.browsers import Browsers
from flagpost_publisher.gateway.chores import until_done
from flagpost_publisher.gateway.event_writer import EventWriter
from flagpost_publisher.gateway.kafka_writer import KafkaWriter, writer_config
from flagpost_publisher.gateway.key_ring import KeyRing
from flagpost_publisher.gateway.metrics import GatewayMetrics
from flagpost_publisher.gateway.rates import Rates
from flagpost_publisher.gateway.secret_lines import SecretLines
from flagpost_publisher.gateway.server import GatewayServer
from flagpost_publisher.gateway.settings import Settings, load_settings
from flagpost_publisher.gateway.slices import Slices
from flagpost_publisher.gateway.write_keys import WriteKeys
from flagpost_publisher.producer import require_usable
from flagpost_publisher.registry import REGISTRY_PROPERTIES, USER_INFO_PROPERTY, Registry
from flagpost_settings.kafka import KafkaSettings
from flagpost_settings.logs import configure_logging, say_loop_error
from flagpost_settings.problems import Problem, SettingsError
from flagpost_settings.visible import visible_lines

log = structlog.get_logger(__name__)

SETTINGS_EXIT_CODE: Final = 2
REFRESH_SECONDS: Final = 1.0
"""How often to look at the secrets' files."""
STOP_SECONDS: Final = 10.0
"""How long requests in flight may take to end: most of the time for a stop, which in Kubernetes is 30 s by
default.
"""


def run(config_path: Path | None, environ: Mapping[str, str]) -> int:
    """Run until a signal comes; returns the exit code."""
    try:
        settings = load_settings(config_path, environ)
        config = _usable(writer_config(settings.kafka))
        _check_proxy(settings.kafka, environ)
    except SettingsError as error:
        sys.stderr.write(visible_lines(f"The settings cannot be used.\n{error}\n"))
        return SETTINGS_EXIT_CODE
    configure_logging(settings.log, sys.stderr)

    async def serve() -> int:
        return await Gateway(settings, config).run()

    # Permanent objects are excluded from garbage collection: while a long document was parsed, collections took ten
    # times as long as the parsing, and neither can be interrupted.
    gc.collect()
    gc.freeze()
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        return runner.run(serve())


class Gateway:
    """One gateway process. Create it on the event loop."""

    def __init__(self, settings: Settings, config: Mapping[str, Any]) -> None:
        """`config` is librdkafka's."""
        self._gateway = settings.gateway
        source = self._gateway.webhook_secret_source
        self._webhook_secret = None if source is None else SecretLines(source)
        self._key_ring = KeyRing(self._gateway)
        self._stop_requested = asyncio.Event()
        self._abort_requested = asyncio.Event()
        self._failed = False
        self._metrics = metrics = GatewayMetrics(routes.SET_ASIDE_REASONS, routes.NOT_BELIEVED_REASONS)
        topics = [settings.kafka.topic, *([self._gateway.webhook_topic] if self._webhook_secret else [])]
        self._kafka = KafkaWriter(config, topics, self._fail)
        self._events = EventWriter(
            self._kafka,
            settings.kafka,
            settings.delivery.max_future_seconds,
            None if settings.kafka.schema_registry.url is None else partial(_registry, settings.kafka),
            metrics,
        )
        table = routes.table(
            routes.Parts(
                self._gateway,
                WriteKeys(self._key_ring, Rates(), metrics.limited),
                self._webhook_secret,
                self._kafka,
                self._events,
                Slices(),
                metrics,
            )
        )
        self._admissions = Admissions()
        self._server = GatewayServer(
            table,
            self._admissions,
            Browsers(self._gateway.known_keys),
            self._gateway.max_body_bytes,
            metrics,
            Proxies(tuple(self._gateway.trusted_proxies)),
        )
        self._admin = AdminServer(self._wrong_alive, self._wrong_ready, metrics)
        metrics.expect(route.path for route in table)
        metrics.know(self._key_ring.names)
        secrets = [*self._key_ring.files, *([self._webhook_secret] if self._webhook_secret else [])]
        metrics.watch(self._kafka, self._admissions, lambda: self._server.connections, secrets)

    async def run(self) -> int:
        """Serve until `stop` is called; returns the exit code."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.stop)
        loop.set_exception_handler(say_loop_error)
        if not await self._listen():
            return 1
        self._kafka.start()
        chores = [
            asyncio.create_task(chore)
            for chore in (
                self._events.learn(),
                until_done("reading write keys", self._refresh_keys, REFRESH_SECONDS),
                until_done("reading webhook secrets", self._refresh_webhook_secret, REFRESH_SECONDS),
            )
        ]
        await self._stop_requested.wait()
        code = await self._end()
        for chore in chores:
            chore.cancel()
        if not self._abort_requested.is_set():
            await self._server.close()
            await self._admin.close()
        return code

    def stop(self) -> None:
        """Let requests in flight end, and end; called a second time, end at once."""
        if self._stop_requested.is_set():
            self._abort_requested.set()
        self._stop_requested.set()

    def _fail(self) -> None:
        self._failed = True
        self._stop_requested.set()

    async def _listen(self) -> bool:
        host, port, admin_port = self._gateway.host, self._gateway.port, self._gateway.admin_port
        try:
            url = await self._server.start(host, port)
            admin_url = await self._admin.start(host, admin_port)
        except OSError as error:
            log.error(  # noqa: TRY400 - a traceback tells an operator nothing here
                "cannot listen: set gateway.host, gateway.port and gateway.admin_port",
                host=host,
                port=port,
                admin_port=admin_port,
                reason=error.strerror,
            )
            await self._server.close()
            return False
        sys.stderr.write(f"gateway {url}\nadmin {admin_url}\n")
        sys.stderr.flush()
        return True

    async def _end(self) -> int:
        log.info("stopping", requests=self._admissions.requests)
        await self._server.stop_listening()
        ending = asyncio.create_task(self._finish())
        aborting = asyncio.create_task(self._abort_requested.wait())
        await asyncio.wait({ending, aborting}, return_when=asyncio.FIRST_COMPLETED)
        clean = ending.done() and ending.result() and not self._failed
        for task in (ending, aborting):
            task.cancel()
        log.info("stopped", clean=clean)
        return 0 if clean else 1

    async def _finish(self) -> bool:
        """Let requests and records in flight end; returns whether all did in time."""
        try:
            async with asyncio.timeout(STOP_SECONDS):
                await self._admissions.until_idle()
        except TimeoutError:
            log.warning("requests are given up", requests=self._admissions.requests)
        else:  # a connection that is kept open could bring a request while Kafka takes the last records
            await self._server.close()
        drained = await self._kafka.stop(STOP_SECONDS)
        await self._server.close()
        if cut_off := self._server.unanswered:
            log.warning("requests were cut off", requests=cut_off)
        return drained and not cut_off

    async def _refresh_keys(self) -> bool:
        if self._key_ring.refresh():
            self._metrics.know(self._key_ring.names)
        return False  # never done

    async def _refresh_webhook_secret(self) -> bool:
        if self._webhook_secret is None:
            return True
        if self._webhook_secret.refresh():
            log.info("webhook secrets have changed", usable=len(self._webhook_secret.secrets))
        return False

    def _wrong_alive(self) -> str | None:
        return None if self._kafka.is_alive else "the thread that listens to Kafka makes no progress"

    def _wrong_ready(self) -> str | None:
        if self._stop_requested.is_set():
            return "the gateway is stopping"
        return self._kafka.trouble or self._events.trouble


def _usable(config: dict[str, Any]) -> dict[str, Any]:
    try:
        require_usable(config)
    except ValueError as error:
        raise SettingsError([Problem("kafka.properties", "", f"librdkafka refuses them: {error}")]) from None
    return config


def _check_proxy(kafka: KafkaSettings, environ: Mapping[str, str]) -> None:
    """Raises SettingsError if the environment's proxy cannot be used for the registry."""
    if kafka.schema_registry.url is not None:
        kafka.schema_registry.outbound.proxy_to(kafka.schema_registry.url, environ)


def _registry(kafka: KafkaSettings) -> Registry:
    """The registry, with the present user name and password. Raises SettingsError if a file cannot be read."""
    registry = kafka.schema_registry
    files = {name: file for name, file in kafka.property_sources.items() if name in REGISTRY_PROPERTIES}
    properties = {**kafka.properties, **{name: file.current() for name, file in files.items()}}
    if registry.username is not None:
        password = "" if registry.password_source is None else registry.password_source.current()
        properties[USER_INFO_PROPERTY] = f"{registry.username}:{password}"
    return Registry(registry.url or "", properties, registry.outbound)


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop]:
    """uvloop's, if it is installed (not on Windows)."""
    try:
        import uvloop  # noqa: PLC0415 - not everywhere
    except ModuleNotFoundError:
        return asyncio.new_event_loop
    return uvloop.new_event_loop
