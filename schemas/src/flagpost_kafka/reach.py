"""Whether a librdkafka client reaches Kafka.

In: clients. Out: which of them Kafka answers. They are asked for metadata, which every broker has.

A broker that is not admitted to its cluster yet, after a restart or after it stood still, answers for a moment that
there are no brokers. librdkafka then gives up those that it knows, and may never connect again, whatever is tried:
https://github.com/confluentinc/librdkafka/issues/5301. Only another client helps.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from threading import Thread
from typing import TYPE_CHECKING, Final

from confluent_kafka import KafkaError, KafkaException

from flagpost_kafka import greenlets

if TYPE_CHECKING:
    from confluent_kafka import Consumer, Producer
    from confluent_kafka.admin import AdminClient

ANSWER_SECONDS: Final = 5.0
"""How long a client has for an answer."""
RECONNECT_SECONDS: Final = 15.0
"""How long a client has that a new one has overtaken: librdkafka connects again every 10 s by default
(`reconnect.backoff.max.ms`).
"""
AGAIN_SECONDS: Final = 0.5
"""When it is asked again."""
LET_GO_SECONDS: Final = 0.05
"""Until whoever lets a client go no longer refers to it."""

CUT_OFF: Final = KafkaError(
    KafkaError._TRANSPORT,  # noqa: SLF001 - librdkafka's public name
    "the client has lost its brokers, although Kafka answers a new client",
    fatal=True,
)


def answers(client: AdminClient | Consumer | Producer, topic: str, seconds: float = ANSWER_SECONDS) -> bool:
    """Whether Kafka answers a client, and names brokers. Waits for it."""
    try:
        found = greenlets.call(lambda: client.list_topics(topic, timeout=seconds))
    except KafkaException:
        return False
    return bool(found.brokers)


def is_cut_off(
    client: AdminClient | Consumer | Producer, new: AdminClient | Consumer | Producer, topic: str
) -> bool:
    """Whether a client does not reach Kafka although a new one does. Waits for both."""
    return not answers(client, topic) and answers(new, topic) and not _comes_back(client, topic)


def _comes_back(client: AdminClient | Consumer | Producer, topic: str) -> bool:
    """Whether Kafka answers a client before long. While it connects, a question may fail at once."""
    deadline = time.monotonic() + RECONNECT_SECONDS
    while not answers(client, topic, max(AGAIN_SECONDS, deadline - time.monotonic())):
        if time.monotonic() >= deadline:
            return False
        time.sleep(AGAIN_SECONDS)
    return True


def let_go(end: Callable[[], object]) -> None:
    """End a client in a thread of its own: by its `close`, or by the `clear` of a list that has the last reference.

    The end of a client that has lost its brokers may take minutes, or never come. Never raises.
    """
    ends = [_kept.popleft() for _ in range(len(_kept))]
    for each in (*ends, end):
        try:
            Thread(target=_end, args=(each,), name="flagpost-let-go", daemon=True).start()
        except RuntimeError:  # there can be no more threads for now
            _kept.append(each)


_kept: Final[deque[Callable[[], object]]] = deque()
"""What could not be ended, and is ended together with the next one."""


def close(client: Consumer, *, waits: bool) -> None:
    """Close a client, and wait for it or not (`let_go`). Who stops in order waits: its brokers may stop next."""
    if waits:
        client.close()
    else:
        let_go(client.close)


def _end(end: Callable[[], object]) -> None:
    time.sleep(LET_GO_SECONDS)
    greenlets.call(end)
