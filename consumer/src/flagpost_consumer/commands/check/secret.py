"""Whether the track secret is valid: only sending an event can tell, because Pendo has no endpoint that verifies it.

In: settings, and the visitor of a test event if one is to be sent. Out: checks. Without a test event, what a running
consumer says of Pendo is used, if one can be asked.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator

from flagpost_consumer.adapters.http.answers import Reply
from flagpost_consumer.adapters.http.client import HttpClient, NoAnswerInTime, NoReply
from flagpost_consumer.adapters.pendo.address import pendo_address
from flagpost_consumer.adapters.pendo.advice import what_to_do
from flagpost_consumer.adapters.pendo.http import PROXY_REFUSES
from flagpost_consumer.adapters.pendo.secret_echoes import STARS, echoes_of
from flagpost_consumer.commands.check.results import Check, fail, ok, warn
from flagpost_consumer.commands.privacy.suppressed import read_suppressions
from flagpost_consumer.commands.sources.consumer_state import ConsumerState, EndpointSaid, ask_consumer
from flagpost_consumer.commands.sources.kafka_admin import KafkaUnavailable
from flagpost_consumer.commands.sources.topic_reading import TopicReader
from flagpost_consumer.core.pendo.endpoint import EndpointName, EndpointState
from flagpost_consumer.core.pendo.verdict import Answer, Failure, Verdict, judge
from flagpost_consumer.core.planning.legible import legible
from flagpost_consumer.core.planning.mapping import Track, track_body
from flagpost_consumer.settings import KafkaSettings, PendoSettings, Settings

TRACK_SECRET = "pendo track secret"  # noqa: S105 (a check's name)
CONSUMER = "consumer"
TEST_EVENT = "Flagpost check"
TIMEOUT_SECONDS = 10.0
MAX_ANSWER_CHARACTERS = 200
TRY_IT = (
    "to test it, run flagpost check --send-test-event VISITOR: it sends one event and prints Pendo's answer"
)


async def check_track_secret(settings: Settings, test_visitor: str | None) -> list[Check]:
    """Check the secret, with an event of `test_visitor` if given."""
    if test_visitor is not None:
        return [await _sent(settings, test_visitor)]
    consumer = await ask_consumer(settings)
    return [_unsent(settings.pendo, consumer), *_consumers(consumer)]


# Without an event


def _unsent(pendo: PendoSettings, consumer: ConsumerState | None) -> Check:
    track, key = pendo.track_secret_source, pendo.integration_key_source
    if track is not None and key is not None and track.current() == key.current():
        return warn(
            TRACK_SECRET,
            "it is the same as the integration key; Pendo's shared secret for track events is another value",
            "copy the Track Event shared secret from your application's settings in Pendo",
        )
    said = None if consumer is None else consumer.endpoints[EndpointName.TRACK]
    if consumer is None or said is None or said.state != EndpointState.OK or not said.successes:
        return warn(TRACK_SECRET, "it is set but not tested: that needs an event to be sent", TRY_IT)
    taken = f"Pendo has accepted {said.successes:,} events from the consumer at {consumer.url}"
    return ok(TRACK_SECRET, f"it is set but not tested here; {taken}")


def _consumers(consumer: ConsumerState | None) -> Iterator[Check]:
    if consumer is None:
        return
    for name, said in consumer.endpoints.items():
        yield _endpoint(f"{CONSUMER}, pendo {name.value}", consumer.url, said)


def _endpoint(name: str, url: str, said: EndpointSaid) -> Check:
    if said.state == EndpointState.OK:
        return ok(name, f"{url}: Pendo's state is ok, and {said.successes:,} requests were accepted")
    answered = f", Pendo answers {said.status}" if said.status else ""
    report = warn if said.state == EndpointState.THROTTLED else fail
    return report(name, f"{url}: Pendo's state is {said.state}{answered}", said.to_do)


# With an event


async def _sent(settings: Settings, visitor: str) -> Check:
    """Send one event of a visitor who is not suppressed."""
    try:
        is_suppressed = await asyncio.to_thread(_is_suppressed, settings.kafka, visitor)
    except KafkaUnavailable as error:
        why = f"no event was sent, because it is not known who is suppressed: {error}"
        return fail(TRACK_SECRET, why, "fix what the checks of Kafka report")
    if is_suppressed:
        return fail(TRACK_SECRET, "no event was sent: the visitor is suppressed", "give another visitor")
    return await send_test_event(settings, visitor)


def _is_suppressed(kafka: KafkaSettings, visitor: str) -> bool:
    with TopicReader(kafka) as reader:
        return read_suppressions(reader, kafka.suppressions_topic).hold(visitor)


async def send_test_event(settings: Settings, visitor: str) -> Check:
    """Send one event, once, like the consumer; returns Pendo's answer as a check."""
    source = settings.pendo.track_secret_source
    if source is None:
        return fail(TRACK_SECRET, "no secret is set", "set pendo.track_secret")
    secret, address = source.current(), pendo_address(settings)
    body = track_body(Track(visitor, None, TEST_EVENT, time.time_ns() // 1_000_000, {}, None))
    headers = address.headers(EndpointName.TRACK, secret)
    async with HttpClient(settings.pendo.outbound) as http:
        try:
            reply = await http.fetch(
                "POST", address.track_url, headers, timeout_seconds=TIMEOUT_SECONDS, body=body
            )
        except NoReply as error:
            maybe = "; Pendo may have accepted it" if isinstance(error, NoAnswerInTime) else ""
            why = f"{address.track_url}: {legible(str(error), MAX_ANSWER_CHARACTERS)}{maybe}"
            to_do = what_to_do(EndpointName.TRACK, Answer(failure=Failure.UNREACHABLE))
            return fail(TRACK_SECRET, f"the test event got no answer: {why}", to_do)
    return _judged(reply, secret)


def _judged(reply: Reply, secret: str) -> Check:
    answer = Answer(reply.status)
    said = legible(echoes_of(secret).sub(STARS, reply.body).decode(errors="replace"), MAX_ANSWER_CHARACTERS)
    answered = f"Pendo answers {reply.status}{f': {said}' if said else ''}"
    if reply.status == PROXY_REFUSES:
        to_do = "set pendo.proxy, with its user name and password"
        return fail(TRACK_SECRET, f"the test event was refused: the proxy answers {reply.status}", to_do)
    if judge(answer) is Verdict.DELIVERED:
        where = f'Pendo lists "{TEST_EVENT}" under Product > Track Events of the application with this secret'
        return ok(TRACK_SECRET, f"the test event was accepted: {answered}; {where}")
    return fail(
        TRACK_SECRET, f"the test event was not accepted: {answered}", what_to_do(EndpointName.TRACK, answer)
    )
