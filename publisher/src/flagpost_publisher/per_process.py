"""The parts that a publisher has in each process: counters, a memory of duplicates, a way to Kafka.

In: the publisher's options. Out: this process's own parts, which no other process has touched. A fork copies locks in
their present state, held by threads that it does not copy, and a producer whose threads stay with the parent.
"""

from __future__ import annotations

from os import getpid
from random import Random
from typing import TYPE_CHECKING

from flagpost_publisher.complaints import Complaints
from flagpost_publisher.duplicates import Duplicates
from flagpost_publisher.impressions import Impressions
from flagpost_publisher.kafka_output import KafkaOutput
from flagpost_publisher.listener import now_ms
from flagpost_publisher.processes import hear_of_the_end
from flagpost_publisher.reporting import Reporting
from flagpost_publisher.stats import Tally

if TYPE_CHECKING:
    from collections.abc import Callable

    from flagpost_publisher.arguments import Options
    from flagpost_schemas import Event, Source


class OwnedHere:
    """One process's parts of a publisher. Starts nothing: the first event does."""

    __slots__ = ("complaints", "duplicates", "impressions", "output", "random_bits", "reporting", "tally")

    def __init__(
        self, options: Options, source: Source, on_undelivered: Callable[[Event | None, str], None]
    ) -> None:
        """`on_undelivered` is called with what Kafka did not take, and why; None: some that are not remembered."""
        self.tally = Tally()
        self.complaints = Complaints(options.on_error)
        self.duplicates = Duplicates(options.dedupe_ttl_seconds, options.dedupe_max_entries)
        self.impressions = Impressions(source, now_ms())
        self.reporting = Reporting(options, self.impressions, self.complaints)
        self.output = KafkaOutput(options, self.complaints, on_undelivered, self.reporting.tend)
        self.random_bits = Random().getrandbits  # noqa: S311 - ids must differ, they need not be secret

    def forget_duplicates(self, options: Options) -> None:
        """Forget all decisions, so that each is published again."""
        self.duplicates = Duplicates(options.dedupe_ttl_seconds, options.dedupe_max_entries)


class PerProcess:
    """Returns each process its own parts, identified by the process id at each call.

    No hook covers every fork: uWSGI forks in C, without Python's hooks. No lock is taken here: a thread that a fork
    does not copy might hold it.
    """

    def __init__(self, make: Callable[[], OwnedHere]) -> None:
        """`make` makes the parts; its result may be thrown away."""
        self._make = make
        self._by_process = {getpid(): make()}

    def __call__(self) -> OwnedHere:
        """The parts of this process. Threads may call it: it asks for the process id, and little else."""
        return self._by_process.get(getpid()) or self._begin_anew()

    def _begin_anew(self) -> OwnedHere:
        hear_of_the_end()
        # If two threads come here, one wins: setdefault is atomic.
        here = self._by_process.setdefault(getpid(), self._make())
        for process in list(self._by_process):
            if process != getpid():
                inherited = self._by_process.pop(process, None)
                if inherited is not None:
                    inherited.output.abandon()
                    inherited.reporting.abandon()
        return here
