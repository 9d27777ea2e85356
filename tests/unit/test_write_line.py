"""A line of writes: bounded bytes in flight, one probe after a refusal, all at once after a success."""

from __future__ import annotations

from collections.abc import Callable

from flagpost_consumer.adapters.kafka import write_line
from flagpost_consumer.adapters.kafka.write_line import WriteLine
from flagpost_kafka.backoff import Backoff


class Item:
    """Something to write."""

    def __init__(self, name: str, size: int = 1) -> None:
        self.name = name
        self.size = size
        self.wanted = True


class Alarm:
    """A timer that the test fires."""

    def __init__(self, seconds: float, action: Callable[[], None]) -> None:
        self.seconds = seconds
        self.action = action
        self.cancelled = False

    def cancel(self) -> None:
        self.cancelled = True


class Kafka:
    """Keeps what is sent, and the timers."""

    def __init__(self) -> None:
        self.sent: list[str] = []
        self.now = 0.0
        self.alarms: list[Alarm] = []
        self.line: WriteLine[Item] = WriteLine(
            lambda item: self.sent.append(item.name),
            lambda item: item.wanted,
            lambda item: item.size,
            backoff=Backoff(1.0, 30.0, lambda: 1.0),
            clock=lambda: self.now,
            call_later=self._call_later,
        )

    def _call_later(self, seconds: float, action: Callable[[], None]) -> Alarm:
        self.alarms.append(Alarm(seconds, action))
        return self.alarms[-1]

    def fire(self) -> float:
        """Fire the newest timer; returns its duration in seconds."""
        alarm = self.alarms[-1]
        assert not alarm.cancelled
        self.now += alarm.seconds
        alarm.action()
        return alarm.seconds


def items(count: int, size: int = 1) -> list[Item]:
    return [Item(f"{number}", size) for number in range(count)]


def test_bytes_in_flight_are_bounded_and_the_rest_waits() -> None:
    kafka = Kafka()
    many = items(20_000, write_line.MAX_SENT_BYTES // 4)
    for item in many:
        kafka.line.offer(item)
    assert len(kafka.sent) == 4
    assert len(kafka.line) == 20_000
    for item in many[:8]:
        kafka.line.taken(item)
    assert kafka.sent == [item.name for item in many[:12]]


def test_an_item_that_is_larger_than_the_bound_is_sent_alone() -> None:
    kafka = Kafka()
    large, small = Item("large", 2 * write_line.MAX_SENT_BYTES), Item("small")
    kafka.line.offer(large)
    kafka.line.offer(small)
    assert kafka.sent == ["large"]
    kafka.line.taken(large)
    assert kafka.sent == ["large", "small"]


def test_entries_that_are_no_longer_wanted_are_dropped_when_their_turn_comes() -> None:
    kafka = Kafka()
    first, second, third = Item("first", write_line.MAX_SENT_BYTES), Item("second"), Item("third")
    for item in (first, second, third):
        kafka.line.offer(item)
    second.wanted = False
    kafka.line.taken(first)
    assert kafka.sent == ["first", "third"]
    kafka.line.taken(third)
    assert len(kafka.line) == 0


def test_after_refusals_one_item_is_sent_at_a_time_and_after_a_success_all_at_once() -> None:
    """Before the fix, 20,000 refused items caused 20,000 writes a second, each with its own timer."""
    kafka = Kafka()
    many = items(20_000)
    for item in many:
        kafka.line.offer(item)
    for item in many:
        kafka.line.refused(item, "no leader")
    kafka.sent.clear()
    pauses = []
    for number in range(8):
        pauses.append(kafka.fire())
        assert kafka.sent == [f"{tried}" for tried in range(number + 1)]
        kafka.line.refused(many[number], "no leader")
    assert pauses == [1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0, 30.0]
    kafka.fire()
    newest = Item("newest")
    kafka.line.offer(newest)
    assert len(kafka.sent) == 9, "what is new waits for the one that is tried"
    kafka.line.taken(many[8])
    assert sorted(kafka.sent[9:]) == sorted([item.name for item in many if item is not many[8]] + ["newest"])
    kafka.line.refused(newest, "again")
    assert kafka.alarms[-1].seconds == 1.0, "a success ends the backoff"


def test_a_success_during_the_pause_ends_it() -> None:
    kafka = Kafka()
    slow, refused = Item("slow"), Item("refused")
    kafka.line.offer(slow)
    kafka.line.offer(refused)
    kafka.line.refused(refused, "no leader")
    kafka.line.taken(slow)
    assert kafka.alarms[-1].cancelled
    assert kafka.sent == ["slow", "refused", "refused"]


def test_a_recalled_item_is_the_next_unless_it_is_no_longer_wanted() -> None:
    kafka = Kafka()
    kept, given_up = Item("kept"), Item("given up")
    kafka.line.offer(kept)
    kafka.line.offer(given_up)
    given_up.wanted = False
    kafka.line.recalled(given_up)
    kafka.line.recalled(kept)
    assert kafka.sent == ["kept", "given up", "kept"]
    assert len(kafka.line) == 1


def test_a_line_is_stalled_when_nothing_was_taken_for_a_while() -> None:
    kafka = Kafka()
    line = kafka.line
    first, second = items(2)
    told = [line.stalled]
    line.offer(first)
    kafka.now = write_line.STALLED_SECONDS - 0.1
    told.append(line.stalled)
    kafka.now = write_line.STALLED_SECONDS
    told.append(line.stalled)
    line.refused(first, "no right")
    told.append(line.stalled)
    kafka.fire()
    line.offer(second)
    line.taken(first)
    told.append(line.stalled)
    kafka.now += write_line.STALLED_SECONDS
    told.append(line.stalled)
    line.taken(second)
    kafka.now += 100.0
    told.append(line.stalled)
    assert told == [None, None, "Kafka does not answer", "no right", None, "Kafka does not answer", None]


def test_a_line_whose_waiting_items_were_all_dropped_is_no_longer_stalled() -> None:
    kafka = Kafka()
    (item,) = items(1)
    kafka.line.hold(item, "too large")
    item.wanted = False
    kafka.now = 100.0
    kafka.line.prune()
    assert kafka.line.stalled is None
    assert kafka.alarms[-1].cancelled
