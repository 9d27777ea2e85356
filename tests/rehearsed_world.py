"""A world in virtual time that keeps the ledger's records as in Kafka, and the rehearsal of that ledger."""

from __future__ import annotations

from collections.abc import Iterable

from engine_world import Member, World, by_partition
from flagpost_consumer.adapters.ledger.writer import entry_of
from flagpost_consumer.commands.rehearse.differences import Differences
from flagpost_consumer.commands.rehearse.partition import PartitionRehearsal, Stretch
from flagpost_consumer.commands.rehearse.recorded import PartitionLedger
from flagpost_consumer.commands.sources.topic_reading import Span
from flagpost_consumer.core.books.deliveries import Settlement
from flagpost_consumer.core.planning.plan import Planner
from flagpost_consumer.core.policy import Policy
from flagpost_consumer.core.records import DecodeFailure, Record
from flagpost_schemas import Event, Settlements


class RecordedWorld(World):
    """Keeps the ledger's records, and sets the timestamp of each event's record to when it was published."""

    def __init__(self, *args: object, **kwargs: object) -> None:
        super().__init__(*args, **kwargs)  # type: ignore[arg-type]
        self.written: dict[int, list[Settlements]] = {number: [] for number in self.log}

    def publish(self, event: Event | DecodeFailure, key: str | None = None) -> Record:
        made = super().publish(event, key)._replace(timestamp_ms=self.instant.wall_ms)
        self.log[made.partition][made.offset] = made
        return made

    def _acknowledge(self, member: Member, settlements: list[Settlement]) -> None:
        before = {number: len(ledger) for number, ledger in self.ledger.items()}
        super()._acknowledge(member, settlements)
        for group in by_partition(settlements):
            number = group[0].delivery.partition.number
            if len(self.ledger[number]) > before[number]:
                self.written[number].append(written(group, f"m{member.number}", self.instant.wall_ms))


def written(settlements: Iterable[Settlement], member: str, settled_at: int) -> Settlements:
    """Settlements as a record of the ledger."""
    entries = [entry_of(settlement) for settlement in settlements]
    return Settlements(group="g", member=member, settled_at=settled_at, entries=entries, gaps=[])


def rehearse(
    world: RecordedWorld,
    policy: Policy | None = None,
    *,
    first: int = 0,
    counted_from: int = 0,
) -> Differences:
    """Rehearse all partitions from an offset on, with the world's policy or another one."""
    found, policy = Differences(), policy or world.policy
    for number, records in world.log.items():
        ledger = PartitionLedger(Span(first, len(records)), policy.dedupe)
        for offset, settlements in enumerate(world.written[number]):
            ledger.add(offset, settlements)
        stretch = Stretch(number, counted_from, is_whole=first == 0, committed=world.committed[number])
        rehearsal = PartitionRehearsal(policy, Planner(policy), ledger, stretch, found)
        for made in records[first:]:
            rehearsal.take(made)
        rehearsal.finish()
    return found


def told(found: Differences) -> dict[str, int]:
    """The count of each difference, by `kind: ledger -> rehearsed`."""
    return {
        f"{change.kind}: {change.ledger or '-'} -> {change.rehearsed or '-'}": row.count
        for change, row in sorted(found.rows.items(), key=str)
    }
