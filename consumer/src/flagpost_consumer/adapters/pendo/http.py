"""The HTTP client for Pendo.

In: attempts that the engine starts. Out: for each attempt exactly one answer: a status, or why there is none,
whatever happens to its task, its connection or the loop. It follows no redirect and retries nothing; the engine
decides what an answer means.

A request's time is measured on a clock that runs while the process is frozen. What has not been written when its time
is over is not written any more: Pendo cannot have seen it. A written request is given up only after the loop has had
turns to read what arrived meanwhile.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import chain, takewhile

import structlog

from flagpost_consumer.adapters.clocks import steady_seconds
from flagpost_consumer.adapters.http.answers import Reply
from flagpost_consumer.adapters.http.client import (
    NOT_SENT,
    Exchange,
    HttpClient,
    NoReply,
    Target,
    header_lines,
    request_bytes,
)
from flagpost_consumer.adapters.pendo.address import INTEGRATION_KEY_HEADER, PendoAddress
from flagpost_consumer.adapters.pendo.secret_echoes import STARS, echoes_of
from flagpost_consumer.core.metadata.sending import MetadataAttempt
from flagpost_consumer.core.pendo.attempts import Attempt
from flagpost_consumer.core.pendo.endpoint import EndpointName
from flagpost_consumer.core.pendo.verdict import Answer, Failure
from flagpost_settings.logs import Lately
from flagpost_settings.outbound import Outbound
from flagpost_settings.tls_failures import tls_failure

log = structlog.get_logger(__name__)

SWEEP_SECONDS = 0.05
"""How often to look for requests whose time may be over."""
GRACE_SWEEPS = 2
"""A written request is given up only after this many more sweeps. Between two of them the loop reads every socket, so
what arrived while the loop stood still is read first. A time-out is late by 3 sweeps at most: 0.15 s.
"""
LATE_SECONDS = SWEEP_SECONDS * (GRACE_SWEEPS + 1)
"""How much later than its time-out the answer to a request may be known."""
FORGOTTEN_WATCHES = 30
"""After this many calls of `watch` that find an attempt overdue, our own code must have lost it. Calls are counted,
not seconds: a process that was frozen has lost nothing. With a call a second, it is half a minute.
"""

RETRY_AFTER_STATUSES = frozenset({429, 503})
PROXY_REFUSES = 407
"""A proxy answers this itself: Pendo has not seen the request."""

OnAnswer = Callable[[Attempt, Answer, float], None]
"""Called with the attempt, its answer, and the seconds that it took."""


DIRECT = Outbound("pendo")
UNSENT = Answer(failure=Failure.UNREACHABLE)


@dataclass(slots=True, eq=False)
class _Request:
    """An attempt that has no answer yet."""

    attempt: Attempt
    started: float
    deadline: float
    task: asyncio.Task[None] | None = None
    exchange: Exchange | None = None
    overdue_sweeps: int = 0
    overdue_watches: int = 0
    answered: bool = False
    unsent: Answer = UNSENT
    """The answer if it is never written."""

    @property
    def is_sent(self) -> bool:
        """Whether it has been written; until then Pendo cannot have seen it."""
        return self.exchange is not None and self.exchange.is_sent


class PendoHttp:
    """Makes requests; the engine decides how many at once."""

    def __init__(
        self,
        address: PendoAddress,
        on_answer: OnAnswer,
        outbound: Outbound = DIRECT,
        now: Callable[[], float] = steady_seconds,
    ) -> None:
        """`now` returns seconds on a clock that never steps, and runs while the process is frozen.

        Raises:
            SettingsError: the environment's proxy cannot be used.
        """
        self._address = address
        self._on_answer = on_answer
        self._now = now
        self._client = HttpClient(outbound)
        for url in (address.track_url, address.api_url):
            self._client.check_proxy(url)
        self._targets: dict[tuple[str, str] | None, Target] = {}
        self._headers: dict[EndpointName, bytes] = {}
        self._secrets: dict[EndpointName, str] = {}
        self._echoes: dict[EndpointName, re.Pattern[bytes]] = {}
        self._timeouts = {
            EndpointName.TRACK: address.request_timeout_seconds,
            EndpointName.METADATA: address.metadata_timeout_seconds,
        }
        # Requests without an answer, by endpoint, the oldest first: it is the next of that endpoint to time out.
        self._under_way: dict[EndpointName, dict[_Request, None]] = {name: {} for name in EndpointName}
        self._sweep: asyncio.TimerHandle | None = None
        self._is_open = False
        self._lately = Lately()

    @property
    def oldest_attempt_seconds(self) -> float:
        """How long the oldest attempt has waited for its answer; 0.0 when none does."""
        oldest = [next(iter(requests)).started for requests in self._under_way.values() if requests]
        return max(0.0, self._now() - min(oldest)) if oldest else 0.0

    def set_secret(self, endpoint: EndpointName, secret: str) -> bool:
        """Use a credential from the next request on; returns whether it differs from the one before."""
        if self._secrets.get(endpoint) == secret:
            return False
        self._secrets[endpoint] = secret
        self._echoes[endpoint] = echoes_of(secret)
        self._headers[endpoint] = header_lines(self._address.headers(endpoint, secret))
        return True

    def has_secret(self, endpoint: EndpointName) -> bool:
        """Whether requests can be made to an endpoint."""
        return endpoint in self._secrets

    def open(self) -> None:
        """Get ready to connect; needs the running loop.

        Raises:
            SettingsError: a file of certificates cannot be used.
        """
        self._client.open()
        self._is_open = True

    def start(self, attempt: Attempt) -> None:
        """Make a request; `on_answer` is called with its answer later."""
        loop = asyncio.get_running_loop()
        started = self._now()
        request = _Request(attempt, started, started + self._timeouts[attempt.endpoint])
        self._under_way[attempt.endpoint][request] = None
        if not self._is_open:
            loop.call_soon(self._answer, request, UNSENT)
            return
        self._sweep_later()
        if not self._send_at_once(request):
            request.task = loop.create_task(self._connect_and_send(request))
            request.task.add_done_callback(partial(self._task_ended, request))

    async def close(self) -> None:
        """Give up what is in flight, each with its answer, and close the connections."""
        self._is_open = False
        left = list(chain.from_iterable(self._under_way.values()))
        for request in left:
            self._give_up(request, Failure.BROKEN)
        await asyncio.gather(*(r.task for r in left if r.task is not None), return_exceptions=True)
        if self._sweep is not None:
            self._sweep.cancel()
        await self._client.close()

    def watch(self) -> None:
        """Answer attempts that have been lost, so that nothing waits for them for ever. Call it every second.

        There are none unless our own code is broken: the sweep ends what is overdue.
        """
        now = self._now()
        for request in list(chain.from_iterable(self._under_way.values())):
            request.overdue_watches += now >= request.deadline
            if request.overdue_watches > FORGOTTEN_WATCHES:
                log.error(
                    "a defect: an attempt got no answer and is given up",
                    endpoint=request.attempt.endpoint.value,
                    seconds=round(now - request.started, 1),
                )
                self._give_up(request, Failure.BROKEN)

    async def get_json(self, path: str) -> bytes | None:
        """Read a JSON document of Pendo's API; None if there is no 2xx in time."""
        endpoint = EndpointName.METADATA
        headers = {INTEGRATION_KEY_HEADER: self._secrets[endpoint]}
        try:
            reply = await self._client.fetch(
                "GET",
                self._address.api_url + path,
                headers,
                timeout_seconds=self._timeouts[endpoint],
            )
        except NoReply:
            return None
        return self._without_secret(reply.body, endpoint) if 200 <= reply.status < 300 else None

    # One request

    def _send_at_once(self, request: _Request) -> bool:
        """Write the request to an idle connection; False: there is none. If writing fails, the answer follows
        soon.
        """
        try:
            target = self._target(request.attempt)
            exchange = self._client.reuse(target, partial(self._exchange_ended, request))
            if exchange is None:
                return False
            self._write(request, target, exchange)
        except Exception as error:  # noqa: BLE001 - nobody thought of this one; the answer is the same
            self._failed(request, error)
            asyncio.get_running_loop().call_soon(self._give_up, request, Failure.BROKEN)
        return True

    async def _connect_and_send(self, request: _Request) -> None:
        """Make a connection, and write the request to it."""
        try:
            target = self._target(request.attempt)
            exchange = await self._client.connect(target, partial(self._exchange_ended, request))
            if request.answered or self._now() >= request.deadline:
                exchange.hand_back()
            else:
                self._write(request, target, exchange)
        except Exception as error:  # noqa: BLE001 - as above
            self._failed(request, error)

    def _failed(self, request: _Request, error: Exception) -> None:
        endpoint = request.attempt.endpoint.value
        if not isinstance(error, NOT_SENT):
            log.error("a request failed in an unknown way", endpoint=endpoint, exc_info=error)
        elif (wrong := tls_failure(error)) is not None:
            request.unsent = UNSENT._replace(detail=wrong)
            if self._lately.is_news((endpoint, wrong)):
                log.warning("Pendo cannot be reached", endpoint=endpoint, reason=wrong)

    def _write(self, request: _Request, target: Target, exchange: Exchange) -> None:
        """Write the request. From then on its exchange reports the result."""
        request.exchange = exchange
        exchange.send(request_bytes(target, self._headers[request.attempt.endpoint], request.attempt.body))

    def _target(self, attempt: Attempt) -> Target:
        batch = attempt.batch if isinstance(attempt, MetadataAttempt) else None
        key = None if batch is None else (batch.target, batch.group)
        if key not in self._targets:
            url = self._address.track_url if key is None else self._address.metadata_url(*key)
            self._targets[key] = self._client.target("POST", url)
        return self._targets[key]

    def _task_ended(self, request: _Request, task: asyncio.Task[None]) -> None:
        """A task has ended, in whatever way: what it did not write was not sent."""
        if not task.cancelled():
            task.exception()  # a BaseException is raised by the loop itself
        if not request.is_sent:
            self._answer(request, request.unsent)

    def _exchange_ended(self, request: _Request, reply: Reply | None) -> None:
        self._answer(request, self._answer_of(request, reply, Failure.BROKEN))

    def _give_up(self, request: _Request, failure: Failure) -> None:
        """Wait no longer. If a status has arrived it is the answer, whatever is missing of the rest."""
        if request.task is not None:
            request.task.cancel()
        reply = None if request.exchange is None else request.exchange.give_up()
        self._answer(request, self._answer_of(request, reply, failure) if request.is_sent else UNSENT)

    def _answer(self, request: _Request, answer: Answer) -> None:
        """Report the answer once; later calls do nothing."""
        if request.answered:
            return
        request.answered = True
        request.exchange = (
            None  # the two refer to each other: otherwise both would wait for the garbage collector
        )
        del self._under_way[request.attempt.endpoint][request]
        self._on_answer(request.attempt, answer, self._now() - request.started)

    def _answer_of(self, request: _Request, reply: Reply | None, failure: Failure) -> Answer:
        if reply is None:
            return Answer(failure=failure)
        if reply.status == PROXY_REFUSES and self._target(request.attempt).is_forwarded:
            return UNSENT
        retry_after = reply.headers.get("Retry-After") if reply.status in RETRY_AFTER_STATUSES else None
        body = self._without_secret(reply.body, request.attempt.endpoint)
        return Answer(reply.status, retry_after, body)

    def _without_secret(self, content: bytes, endpoint: EndpointName) -> bytes:
        """An answer may echo the request's headers, and its text may go into dead letters: remove the secret."""
        return self._echoes[endpoint].sub(STARS, content)

    # Time-outs

    def _sweep_later(self) -> None:
        """One sweep for all requests: a timer for each would cost more."""
        if self._sweep is None:
            self._sweep = asyncio.get_running_loop().call_later(SWEEP_SECONDS, self._end_overdue)

    def _end_overdue(self) -> None:
        """End requests whose time is over."""
        self._sweep = None
        if any(self._under_way.values()):
            self._sweep_later()
        now = self._now()
        for requests in self._under_way.values():
            for request in list(takewhile(lambda r: r.deadline <= now, requests)):
                request.overdue_sweeps += 1
                if not request.is_sent or request.overdue_sweeps > GRACE_SWEEPS:
                    self._give_up(request, Failure.TIMEOUT)
