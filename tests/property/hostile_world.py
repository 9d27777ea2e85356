"""A world that does not cooperate: everything around the engine fails in its own way, and some visitors always do.

In: a seed. Out: a run of ten minutes of virtual time. In the first half troubles come and go: outages of Pendo,
ledger partitions without a leader, dead letters that Kafka does not accept, loops that freeze, members that are cut
off from Kafka and do not know it yet, wall clocks that jump beyond every allowance, crashes, hand-overs, topics
created anew. In the second half only poisonous and hot visitors and large events remain.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import pairwise
from random import Random

from engine_world import (
    BROKEN,
    OK,
    REFUSED_CONNECTION,
    START_MS,
    TIMED_OUT,
    Member,
    Sight,
    World,
    by_partition,
    decision,
)
from flagpost_consumer.core.books.deliveries import Partition, Settlement
from flagpost_consumer.core.metadata.sending import MetadataAttempt
from flagpost_consumer.core.outcomes import Kind, Outcome, Reason
from flagpost_consumer.core.pendo.attempts import Attempt
from flagpost_consumer.core.pendo.endpoint import EndpointName
from flagpost_consumer.core.pendo.verdict import Answer
from flagpost_consumer.core.policy import (
    DecisionsSettings,
    DedupeSettings,
    DeliverySettings,
    EndpointLimits,
    MetadataSettings,
    Policy,
)
from flagpost_consumer.core.records import DecodeFailure, Record
from flagpost_consumer.core.tracks.track_sending import TrackAttempt
from flagpost_schemas import Event

PARTITIONS = 4
SESSION_SECONDS = 6.0
CALM_FROM = 300.0
END = 600.0
PROGRESS_SECONDS = 150.0
"""A healthy visitor's event is settled within this time while only other visitors are in trouble: the longest
pause between probes, the longest wait for a retry, and a few time-outs."""
POISONOUS = (Answer(500), Answer(404), Answer(403), Answer(302), TIMED_OUT)
"""Each poisonous visitor always gets one of these answers."""
FLAKY = (Answer(500), Answer(503, "3"), Answer(429), TIMED_OUT, BROKEN, REFUSED_CONNECTION)
"""Answers that any visitor may get now and then. 404 is none of them: a delivery that gets it twice by chance is
rightly dead-lettered (`test_random_refusals_kill_no_delivery` counts these)."""


def hostile_policy(draw: Random) -> Policy:
    return Policy(
        decisions=DecisionsSettings(visitor_metadata=draw.random() < 0.5),
        delivery=DeliverySettings(
            max_pending=draw.choice((120, 400)),
            max_pending_bytes=draw.choice((1_500_000, 64_000_000)),
            max_pending_per_visitor=draw.choice((30, 60)),
            visitor_interval_seconds=draw.choice((0.2, 1.0)),
            max_attempts=draw.choice((3, 10)),
        ),
        dedupe=DedupeSettings(ttl_seconds=60.0, max_entries=draw.choice((300, 100_000))),
        metadata=MetadataSettings(batch_size=draw.choice((3, 1000)), linger_seconds=0.5),
        limits=EndpointLimits(
            max_connections=draw.choice((4, 8)), request_timeout_seconds=2.0, metadata_timeout_seconds=4.0
        ),
    )


class HostileWorld(World):
    """The world; `run_all` runs it from the first event to the end, and checks progress on the way."""

    def __init__(self, seed: int) -> None:
        self.draw = Random(seed)
        super().__init__(
            hostile_policy(Random(seed ^ 0x5EED)),
            Random(seed),
            partitions=PARTITIONS,
            answering=HostileWorld.answer,
            batch=20,
            session_seconds=SESSION_SECONDS,
        )
        poisons = self.draw.choice((1, 2, 6))
        self.poison = {f"poison{number}": self.draw.choice(POISONOUS) for number in range(poisons)}
        self.outage: Answer | None = None
        """The answer to every request during an outage."""
        self.deaf: dict[int, float] = {}
        """Partitions whose ledger accepts nothing, each with the moment until which it does not."""
        self.dead_letters_from = 0.0
        """The dead-letter topic accepts nothing before this moment."""
        self.published_at: dict[tuple[int, int], float] = {}
        self.topic_of: dict[int, int] = dict.fromkeys(range(PARTITIONS), 0)
        """How often each partition has been created anew."""
        self.cut: set[tuple[int, int, int]] = set()
        """Events that were cut off their lane, by topic, partition and offset."""
        self.fresh_visitors: dict[int, set[bytes | None]] = {}
        """For each member, the keys of the fresh records that it has read."""
        self.sources: list[tuple[Partition | None, int]] = []
        """For each request that Pendo saw, the assignment of a partition that it came from, and the topic."""
        self.value_bytes = lambda event: (
            65_000 if getattr(event, "visitor_id", "").startswith("large") else 300
        )

    # Pendo

    @staticmethod
    def answer(world: World, attempt: Attempt) -> tuple[Answer, float, float]:
        assert isinstance(world, HostileWorld)
        draw = world.draw
        ids = (
            [attempt.lane.visitor_id]
            if isinstance(attempt, TrackAttempt)
            else attempt.batch.ids
            if isinstance(attempt, MetadataAttempt)
            else []
        )
        poisons = [world.poison[each] for each in ids if each in world.poison]
        answer = world.outage or (poisons[0] if poisons else OK)
        if answer is OK and world.now < CALM_FROM and draw.random() < 0.02:
            answer = draw.choice(FLAKY)
        # The HTTP client answers each request within its time-out.
        late = 1.5 if answer is BROKEN and draw.random() < 0.5 else 0.0
        return answer, draw.uniform(0, 0.01), draw.choice((0.0, 0.02, 0.3)) + late

    # Kafka

    def join(self, partitions: set[int] | None = None) -> Member:
        """A new process has the right clock: before it has read fresh records, it could not notice a wrong one."""
        self._set_clock()
        member = super().join(partitions)
        self.fresh_visitors[member.number] = set()
        return member

    def publish(self, event: Event | DecodeFailure, key: str | None = None) -> Record:
        made = super().publish(event, key)
        self.published_at[made.partition, made.offset] = self.now
        return made

    def _read(self, member: Member) -> None:
        for number in member.assigned & member.restored:
            records = self.log[number]
            for offset in range(
                member.positions[number], min(len(records), member.positions[number] + self.batch)
            ):
                fresh = self.now - self.published_at[number, offset] < 1.0
                if records[offset].fresh is not fresh:
                    records[offset] = records[offset]._replace(fresh=fresh)
                if fresh:
                    self.fresh_visitors[member.number].add(records[offset].key)
        super()._read(member)

    def write(self, member: Member, settlements: list[Settlement]) -> None:
        """Settlements wait until their partition's ledger accepts them; dead letters wait for their topic, too."""
        self.cut.update(
            (
                self.topic_of[each.delivery.record.partition],
                each.delivery.record.partition,
                each.delivery.record.offset,
            )
            for each in settlements
            if each.ending.reason is Reason.VISITOR_BACKLOG
        )
        for group in by_partition(settlements):
            dead = [each for each in group if each.ending.outcome is Outcome.DEAD_LETTERED]
            self._write_when_taken(member, [each for each in group if each not in dead], self.now)
            self._write_when_taken(member, dead, self.dead_letters_from)

    def _write_when_taken(self, member: Member, settlements: list[Settlement], earliest: float) -> None:
        if not settlements:
            return
        number = settlements[0].delivery.partition.number
        topic = self.topic_of[number]
        moment = max(self.now, earliest, self.deaf.get(number, 0.0)) + self.random.uniform(0, 0.05)

        def take() -> None:
            if self.topic_of[number] != topic:
                return  # settlements of the earlier topic settle nothing in the new one
            if member.cut_off or self.deaf.get(number, 0.0) > self.now:
                self.at(self.now + 0.5, take)
            else:
                self._acknowledge(member, settlements)

        self.at(moment, take)

    def beat(self) -> None:
        """Members that reach the group prove their membership; the others lose their partitions after a session."""
        for member in self.members:
            if not member.alive or not member.assigned:
                continue
            if not member.cut_off and not self.is_frozen(member):
                self.commit(member)
                self.prove(member)
                self._act(member)
            elif self.now >= member.proven_at + SESSION_SECONDS:
                self._expel(member)
        if self.now < END:
            self.at(self.now + SESSION_SECONDS / 3, self.beat)

    def _expel(self, member: Member) -> None:
        """The group gives the partitions of a silent member to others; that member learns of it later."""
        partitions, member.assigned = member.assigned, set()
        member.restored -= partitions
        self.give(partitions, but=member)

        def hear() -> None:
            if member.cut_off or self.is_frozen(member):
                self.at(self.now + 0.5, hear)
            elif member.alive:
                # A partition that it was assigned again meanwhile is another assignment.
                member.engine.forget(sorted(partitions - member.assigned), self.instant)
                self._act(member)

        hear()

    def give(self, partitions: set[int], but: Member | None = None) -> None:
        usable = [
            m for m in self.members if m.alive and m is not but and not m.cut_off and not self.is_frozen(m)
        ]
        if partitions:
            self.assign(self.draw.choice(usable) if usable else self.join(set()), partitions)

    # Troubles

    def any_member(self) -> Member:
        living = [member for member in self.members if member.alive and member.assigned]
        return self.draw.choice(living) if living else self.join(set())

    def do_outage(self) -> None:
        self.outage = self.draw.choice(
            (Answer(503), Answer(401), TIMED_OUT, REFUSED_CONNECTION, Answer(429, "2"))
        )
        self.at(self.now + self.draw.choice((5.0, 40.0)), self._end_outage)

    def _end_outage(self) -> None:
        self.outage = None

    def do_leaderless(self) -> None:
        self.deaf[self.draw.randrange(PARTITIONS)] = self.now + self.draw.choice((3.0, 30.0))

    def do_deaf_dead_letters(self) -> None:
        self.dead_letters_from = self.now + self.draw.choice((3.0, 60.0))

    def do_freeze(self) -> None:
        self.any_member().frozen_until = self.now + self.draw.choice((0.5, 2.5, 5.0, 15.0))

    def do_cut_off(self) -> None:
        member = self.any_member()
        member.cut_off = True

        def back() -> None:
            member.cut_off = False
            self._read(member)

        self.at(self.now + self.draw.choice((2.0, 5.0, 20.0)), back)

    def do_jump(self) -> None:
        """Step the wall clock if every member can notice it: after it has read fresh records of three visitors."""
        if any(len(self.fresh_visitors[member.number]) < 3 for member in self.members if member.alive):
            return
        self.wall_step_ms = self.draw.choice((-3_600_000, -400_000, 400_000, 8 * 86_400_000))
        self.at(self.now + self.draw.choice((5.0, 40.0)), self._set_clock)

    def _set_clock(self) -> None:
        self.wall_step_ms = 0

    def do_crash(self) -> None:
        freed = self.crash(self.any_member())
        self.at(self.now + SESSION_SECONDS, lambda: self.give(freed))

    def do_hand_over(self) -> None:
        member = self.any_member()
        if self.is_frozen(member) or member.cut_off:
            return
        moved = {number for number in member.assigned if self.draw.random() < 0.6}
        self.revoke(member, moved, lambda: self.give(moved, but=member))

    def do_replace_topic(self) -> None:
        """A partition is created anew: its undelivered records are gone, and new records begin at offset 0."""
        number = self.draw.randrange(PARTITIONS)
        for member in self.members:
            if member.alive and number in member.assigned:
                if self.is_frozen(member) or member.cut_off:
                    return
                member.engine.forget([number], self.instant)
                self.log[number] = []
                self.committed[number] = self.needed_from[number] = 0
                self.ledger[number] = []
                for key in [key for key in self.settled if key[0] == number]:
                    del self.settled[key]
                self.topic_of[number] += 1
                self.assign(member, {number})
                return

    # Traffic

    def publish_everything(self) -> None:
        seconds = 0.0
        number = 0
        while seconds < END - PROGRESS_SECONDS:
            seconds += self.draw.expovariate(2.5)
            number += 1
            who = self.draw.choices(
                (f"v{self.draw.randrange(20)}", f"hot{self.draw.randrange(12)}", self.draw.choice(list(self.poison)),
                 f"large{self.draw.randrange(3)}"),
                (8, 8, 2, 0.3),
            )[0]  # fmt: skip
            count = 6 if who.startswith("hot") else 1
            for repeat in range(count):
                event = decision(
                    who,
                    f"flag{number}-{repeat}",
                    self.draw.choice(("a", "b", None)),
                    event_id=f"e{number}-{repeat}",
                    occurred_at=START_MS + int(seconds * 1000),
                )
                self.publish_at(seconds, event)

    def run_all(self) -> None:
        self.join({0, 1})
        self.join({2, 3})
        self.publish_everything()
        self.at(SESSION_SECONDS / 3, self.beat)
        troubles: list[Callable[[], None]] = [
            self.do_outage, self.do_leaderless, self.do_deaf_dead_letters, self.do_freeze, self.do_cut_off,
            self.do_jump, self.do_crash, self.do_hand_over, self.do_replace_topic,
        ]  # fmt: skip
        for _ in range(self.draw.randrange(4, 16)):
            self.at(self.draw.uniform(1, CALM_FROM - 60), self.draw.choice(troubles))
        for moment in range(int(CALM_FROM + PROGRESS_SECONDS), int(END) + 1, 10):
            self.at(float(moment), partial(self.check_progress, float(moment)))
        self.run(until=END)

    # What must hold

    def _send(self, member: Member, attempt: Attempt) -> None:
        seen = len(self.sights)
        super()._send(member, attempt)
        stay = attempt.lane.queue[0].partition if isinstance(attempt, TrackAttempt) else None
        topic = 0 if stay is None else self.topic_of[stay.number]
        self.sources += [(stay, topic)] * (len(self.sights) - seen)

    def _track_sights(self) -> list[tuple[Sight, Partition | None, int]]:
        """The track requests as they arrived, each with its assignment and its topic."""
        found = [
            (sight, *source)
            for sight, source in zip(self.sights, self.sources, strict=True)
            if sight.endpoint is EndpointName.TRACK
        ]
        return sorted(found, key=lambda each: each[0].arrived_at)

    def check_order_in_each_stay(self) -> None:
        """As long as a member has a partition, each visitor's requests come in the order of the offsets."""
        reached: dict[tuple[Partition | None, str], int] = {}
        for sight, stay, _ in self._track_sights():
            key, offset = (stay, sight.ids[0]), sight.offset or 0
            assert offset >= reached.get(key, 0), sight
            reached[key] = offset

    def check_order_of_deliveries(self) -> None:
        """An event is first delivered after the earlier events of its visitor, whichever member sends it.

        Except an event that was cut off its lane: if its dead letter is lost, like any settlement, it is sent later.
        """
        reached: dict[tuple[int, int, str], int] = {}
        delivered: set[tuple[int, int, int]] = set()
        for sight, _, topic in self._track_sights():
            offset, partition = sight.offset or 0, sight.partition or 0
            is_first = sight.answer.status == 200 and (topic, partition, offset) not in delivered
            if is_first and (topic, partition, offset) not in self.cut:
                delivered.add((topic, partition, offset))
                key = topic, partition, sight.ids[0]
                assert offset >= reached.get(key, 0), sight
                reached[key] = offset

    def is_healthy(self, made: Record) -> bool:
        return (made.key or b"").startswith(b"v")

    def check_progress(self, moment: float) -> None:
        """Every healthy visitor's event older than `PROGRESS_SECONDS` is settled, whatever the other visitors do."""
        for number, records in self.log.items():
            for made in records:
                age = moment - self.published_at[number, made.offset]
                if self.is_healthy(made) and age > PROGRESS_SECONDS:
                    assert self.settled[number, made.offset, Kind.TRACK], (
                        f"{made.key!r} at {number}/{made.offset}, published {age:.0f} s ago, is not settled"
                    )

    def check_spacing_from_answers(self) -> None:
        """No two track requests of a visitor closer than the interval, from answer to arrival, whoever sends them."""
        interval = self.policy.delivery.visitor_interval_seconds
        for sights in self.by_visitor().values():
            for before, after in pairwise(sights):
                assert after.arrived_at >= before.answered_at + interval - 1e-6, (before, after)


def metadata_ids_never_overlap(world: World) -> None:
    """Within one member no two metadata requests of an id are under way at once."""
    busy: dict[tuple[int, str], float] = {}
    for sight in sorted(world.sights, key=lambda sight: sight.arrived_at):
        for target in sight.ids if sight.endpoint is EndpointName.METADATA else ():
            assert sight.arrived_at >= busy.get((sight.member, target), 0.0)
            busy[sight.member, target] = sight.answered_at
