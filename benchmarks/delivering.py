"""Delivering, side by side: Flagpost, a bare aiohttp loop, and peers that keep the same order, from a real Kafka.

    .venv/bin/python benchmarks/delivering.py
    .venv/bin/python benchmarks/delivering.py --row "5 ms zipf 64" --row "0 ms zipf 64 tls" --peers go

TrackEvents with five properties of 5,000 visitors lie in a topic of 24 partitions (Apache Kafka; Java 17 and Maven);
each sender, a process of its own, posts them to a receiver that answers after a latency and records the order. A
row is `<latency> ms zipf|uniform <connections> [tls]`. The bare loop reads no Kafka and keeps no order. What a
sender is built of is beside it in delivery/; one that cannot be had on this machine is left out by name.

Figures: events_per_second from the first receipt to the last answer; cpu_us_per_event of the whole process, from its
start to its end; events_per_cpu_second between the first receipt and the last answer; percent_of_bound, how near to
what the hottest visitor's strict order allows; hottest_cycle_ms, from one of its requests to the next;
receiver_percent, what the receiver used of its one core.
"""

from __future__ import annotations

import itertools
import re
import sys
import tempfile
from argparse import ArgumentTypeError
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Self

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from certificates import Authority
from delivery import senders
from delivery.events import Skew, fill
from delivery.measuring import committed, run_sender
from delivery.receiving import IN_PYTHON, receiver
from delivery.senders import BARE, FLAGPOST_SENDER, PEERS, MissingError, Sender, Task
from real_kafka import parts
from real_kafka.broker import OwnBroker
from side_by_side import Comparison, Side, arguments, cannot_be_had, compare, report

PARTITIONS = 24
EVENTS = 60_000
SECONDS = 12.0
"""A row has no more events than take so long when nothing but latency and order hold them."""
QUICK_PART = 0.05


@dataclass(frozen=True, slots=True)
class Row:
    """One kind of work."""

    latency_ms: int
    skew: Skew
    connections: int
    tls: bool = False

    @classmethod
    def parse(cls, text: str) -> Self:
        """Of "5 ms zipf 64 tls"; raises ArgumentTypeError."""
        found = re.fullmatch(r"(\d+) ms (zipf|uniform) (\d+)( tls)?", text)
        if found is None:
            raise ArgumentTypeError(f"{text!r} is not a row: <latency> ms zipf|uniform <connections> [tls]")
        return cls(int(found[1]), Skew(found[2]), int(found[3]), found[4] is not None)

    def __str__(self) -> str:
        return f"{self.latency_ms} ms {self.skew.value} {self.connections}{' tls' * self.tls}"

    @property
    def events(self) -> int:
        """How many events are delivered."""
        if self.latency_ms == 0:
            return EVENTS
        at_once = min(self.connections, 1 / self.skew.hottest_share)
        return min(EVENTS, int(SECONDS * at_once / (self.latency_ms / 1000)))


ROWS = [
    Row.parse(text)
    for text in (
        "0 ms zipf 64",
        "5 ms zipf 64",
        "5 ms uniform 64",
        "50 ms uniform 1000",
        "50 ms uniform 64",
        "50 ms zipf 64",
        "0 ms zipf 64 tls",
        "5 ms uniform 64 tls",
    )
]
QUICK_ROWS = ROWS[:2]
EVERY_ROW = [Row(*given) for given in itertools.product((0, 5, 50), Skew, (64, 1_000), (False, True))]


class World:
    """The broker, the certificates and the topics that all rows share."""

    def __init__(self, folder: Path, receiver_command: Sequence[str]) -> None:
        self._folder, self._receiver_command = folder, receiver_command
        self._broker = OwnBroker(folder)
        self._authority = Authority(folder)
        self._certificate = self._authority.vouch_for("localhost")
        self._filled: set[str] = set()
        self._runs = itertools.count()

    def stop(self) -> None:
        self._broker.stop()

    def run(self, sender: Sender, command: Sequence[str], row: Row, count: int) -> Mapping[str, float]:
        """Deliver so many events once; returns the figures."""
        name = f"run-{next(self._runs)}"
        pair = (self._certificate.certificate, self._certificate.key) if row.tls else None
        topic = self._topic(row.skew, count)
        ledger, dead_letters = f"{name}-ledger", f"{name}-dead-letters"
        if sender is FLAGPOST_SENDER:
            self._broker.create_topics(ledger, dead_letters, partitions=PARTITIONS)
        with receiver(self._receiver_command, row.latency_ms, count, pair) as receiving:
            task = Task(
                url=receiving.url,
                authority=str(self._authority.file) if row.tls else "",
                bootstrap_servers=self._broker.bootstrap_servers,
                topic=topic,
                ledger_topic=ledger,
                dead_letter_topic=dead_letters,
                group=name,
                connections=row.connections,
                skew=row.skew,
                events=count,
            )
            used = run_sender(command, sender.environment(task), receiving, self._folder / f"{name}.log")
        figures = summary(used, receiving.recorded, count)
        if sender.reads_kafka and row.latency_ms and row.skew is Skew.ZIPF:
            figures |= of_order(receiving.recorded)
        if sender.reads_kafka:
            done = committed(self._broker.bootstrap_servers, name, topic, PARTITIONS)
            figures["not_committed"] = count - done
        return figures

    def _topic(self, skew: Skew, count: int) -> str:
        """A topic with so many events; filled when it is first asked for."""
        topic = f"events-{skew.value}-{count}"
        if topic not in self._filled:
            self._broker.create_topics(topic, partitions=PARTITIONS)
            fill(self._broker.bootstrap_servers, topic, skew, count)
            self._filled.add(topic)
        return topic


def summary(used: Mapping[str, float], recorded: Mapping[str, float], count: int) -> dict[str, float]:
    """The figures of one delivery, of what the sender used and what the receiver recorded."""
    seconds = recorded["seconds"]
    return {
        "events_per_second": count / seconds,
        "cpu_us_per_event": 1e6 * used["cpu_seconds"] / count,
        "events_per_cpu_second": count / used["working_cpu_seconds"],
        "peak_mb": used["peak_mb"],
        "order_violations": recorded["order_violations"],
        "repeats": recorded["received"] - count,
        "receiver_percent": 100 * recorded["cpu_seconds"] / seconds,
        "receiver_latency_ms": recorded["latency_ms"],
    }


def of_order(recorded: Mapping[str, float]) -> dict[str, float]:
    """How near a sender that keeps the order came to its bound: the hottest visitor's answers without a gap."""
    return {
        "hottest_cycle_ms": recorded["cycle_ms"],
        "percent_of_bound": 100 * recorded["hottest_seconds"] / recorded["seconds"],
    }


def measure(
    rows: Sequence[Row], all_senders: Sequence[Sender], rounds: int, part: float
) -> Iterator[Comparison]:
    """Compare the senders, row by row; `part` of the events only."""
    receiver_command, spoken = receiver_program()
    commands = {sender.name: prepared(sender) for sender in all_senders}
    with tempfile.TemporaryDirectory() as folder:
        world = World(Path(folder), receiver_command)
        try:
            for row in rows:
                sides = []
                for sender in all_senders:
                    count = int(min(row.events, sender.events_at_most or row.events) * part)
                    command = commands[sender.name]
                    if isinstance(command, MissingError):
                        sides.append(Side(sender.name, dict, missing=str(command)))
                    else:
                        sides.append(Side(sender.name, partial(world.run, sender, command, row, count)))
                yield compare(f"{row}: {int(row.events * part)} events, receiver in {spoken}", sides, rounds)
        finally:
            world.stop()


def receiver_program() -> tuple[Sequence[str], str]:
    """The receiver's command, and the language that it is written in."""
    try:
        return senders.build_go("receiver"), "Go"
    except MissingError as missing:
        return IN_PYTHON, f"Python ({missing})"


def prepared(sender: Sender) -> list[str] | MissingError:
    try:
        return sender.prepare()
    except MissingError as missing:
        return missing


def table(comparisons: Sequence[Comparison]) -> str:
    """A line for each row: events a second and CPU time an event of each sender, for a document."""
    names = list(dict.fromkeys(name for one in comparisons for name in (*one.rounds, *one.missing)))
    lines = [f"| events/s (CPU us an event) | {' | '.join(names)} |", "|---" * (len(names) + 1) + "|"]
    for one in comparisons:
        cells = [
            f"{one.median(name, 'events_per_second'):,.0f} ({one.median(name, 'cpu_us_per_event'):.0f})"
            if name in one.rounds
            else ""
            for name in names
        ]
        lines.append(f"| {one.title.partition(':')[0]} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument(
        "--row", type=Row.parse, action="append", dest="rows", help="not the usual ones, but this"
    )
    parser.add_argument("--every", action="store_const", const=EVERY_ROW, dest="rows", help="all 24 rows")
    parser.add_argument("--peers", nargs="*", choices=PEERS, default=list(PEERS), help="none, or which")
    given = parser.parse_args()
    if missing := parts.missing():
        cannot_be_had(f"a real Apache Kafka: {missing}")
    rows = given.rows or (QUICK_ROWS if given.quick else ROWS)
    all_senders = [BARE, FLAGPOST_SENDER, *(PEERS[name] for name in given.peers)]
    rounds, part = (1, QUICK_PART) if given.quick else (given.rounds, 1.0)
    known: list[Comparison] = []
    report(noted(measure(rows, all_senders, rounds, part), known), given.json)
    print(table(known))


def noted(comparisons: Iterator[Comparison], known: list[Comparison]) -> Iterator[Comparison]:
    """Passes on what becomes known, and keeps it."""
    for one in comparisons:
        known.append(one)
        yield one


if __name__ == "__main__":
    main()
