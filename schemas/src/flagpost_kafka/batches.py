"""How large a batch of events may be.

In: the largest event that is permitted. Out: librdkafka's `batch.size`.
"""

from __future__ import annotations


def batch_bytes(max_event_bytes: int) -> int:
    """The largest batch of several events: it fits a topic that takes the largest event, which is a batch by itself.

    A topic's `max.message.bytes` limits batches, and librdkafka does not split one that the topic refuses: all its
    events would fail. The framing of a batch and of its events is counted.
    """
    return max_event_bytes
