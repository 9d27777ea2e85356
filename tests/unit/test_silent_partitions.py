"""When a client that returns no records is replaced; the tests set the clock."""

from __future__ import annotations

from flagpost_consumer.adapters.kafka.client_replacement import APART_SECONDS, ClientReplacement
from flagpost_consumer.adapters.kafka.reading_silence import (
    ASK_SECONDS,
    MOST_SILENT_SECONDS,
    SILENT_SECONDS,
    UNNOTED_SECONDS,
    ReadingSilence,
)


class Noted:
    """A ReadingSilence that is notified of partition 0 once a second."""

    def __init__(self) -> None:
        self.watch = ReadingSilence()
        self.now = 0.0

    def silent_after(self, seconds: float, position: int, end: int | None) -> bool:
        """Whether the partition is silent after so many seconds at a position; `end` None: Kafka does not answer."""
        for _ in range(int(seconds)):
            self.now += 1.0
            self.watch.note({0: position}, {} if end is None else {0: end}, self.now)
        return self.watch.silent(self.now) == {0}


def test_a_partition_that_has_records_but_returns_none_is_silent() -> None:
    noted = Noted()
    assert not noted.silent_after(SILENT_SECONDS, 5, 9)
    assert noted.silent_after(1, 5, 9)


def test_a_partition_whose_log_ends_before_the_position_is_silent() -> None:
    noted = Noted()
    assert noted.silent_after(SILENT_SECONDS + 1, 500, 9)


def test_an_idle_partition_is_not_silent_and_its_time_begins_with_its_next_record() -> None:
    noted = Noted()
    assert not noted.silent_after(1000, 5, 5)
    assert noted.watch.asked(noted.now) == {0}, "the client might not know of its end"
    assert not noted.silent_after(SILENT_SECONDS, 5, 6)
    assert noted.silent_after(1, 5, 6)


def test_while_kafka_does_not_answer_nothing_is_silent() -> None:
    noted = Noted()
    assert not noted.silent_after(SILENT_SECONDS, 5, 9)
    assert not noted.silent_after(300, 5, None)
    assert not noted.silent_after(SILENT_SECONDS, 5, 9)


def test_each_record_resets_the_time() -> None:
    noted = Noted()
    assert not noted.silent_after(SILENT_SECONDS, 5, 9)
    assert not noted.silent_after(SILENT_SECONDS, 6, 9)
    assert noted.watch.asked(noted.now) == {0}
    assert not noted.silent_after(ASK_SECONDS, 7, 9)
    assert noted.watch.asked(noted.now) == set()


def test_a_pause_resets_the_time() -> None:
    noted = Noted()
    assert not noted.silent_after(SILENT_SECONDS, 5, 9)
    noted.watch.note({}, {}, noted.now)
    assert not noted.silent_after(SILENT_SECONDS, 5, 9)


def test_after_a_thread_stood_still_its_partitions_are_not_reported() -> None:
    """A process that was frozen for a minute has read nothing, but its client works."""
    noted = Noted()
    assert not noted.silent_after(SILENT_SECONDS, 5, 9)
    noted.now += UNNOTED_SECONDS + 1
    assert not noted.silent_after(SILENT_SECONDS, 5, 9)


def test_a_partition_that_stays_silent_with_new_clients_is_given_more_time_after_each() -> None:
    noted = Noted()
    pauses: list[float] = []
    while noted.now < 10_000:
        began_at = noted.now
        while not noted.silent_after(1, 5, 9):
            assert noted.now < began_at + 2 * MOST_SILENT_SECONDS
        pauses.append(noted.now - began_at)
        noted.watch.replaced(noted.now)
    assert pauses[:3] == [SILENT_SECONDS + 1, 2 * SILENT_SECONDS + 1, 4 * SILENT_SECONDS + 1]
    assert max(pauses) == pauses[-1] == MOST_SILENT_SECONDS + 1
    assert not noted.silent_after(4 * MOST_SILENT_SECONDS, 9, 9)
    assert noted.silent_after(SILENT_SECONDS + 1, 9, 10), "long after, a first silence is a first one again"


def test_clients_are_replaced_at_a_limited_rate() -> None:
    now = [100.0]
    replacement = ClientReplacement(lambda: now[0])
    assert not replacement.is_due()
    replacement.ask("one")
    replacement.ask("another")
    assert replacement.is_due()
    replacement.happened()
    assert not replacement.is_due()
    replaced = 0
    for _ in range(400):
        now[0] += 0.25
        replacement.ask("again and again")
        if replacement.is_due():
            replacement.happened()
            replaced += 1
    assert replaced == 100.0 // APART_SECONDS
