"""Broken and hostile records in the decoder and the engine, under virtual time: each is settled with a reason.

The long form, a hundred thousand of them through the real consumer, is tests/chaos/fuzz_records.py.
"""

from __future__ import annotations

from itertools import islice
from random import Random

from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from chaos.fuzz_books import as_read, personal_texts
from chaos.mutations import Mutant, Mutants
from chaos.understood import complaints
from engine_world import START_MS, World
from example_counts import examples
from flagpost_consumer.core.outcomes import Outcome, Reason
from flagpost_consumer.core.pendo.endpoint import EndpointName
from flagpost_consumer.core.planning.partitioner import partition_of
from flagpost_consumer.core.policy import (
    AnonymousPolicy,
    DecisionsSettings,
    DeliverySettings,
    MappingSettings,
    Policy,
    PropertiesPolicy,
)
from flagpost_consumer.core.records import DecodeFailure, Record
from flagpost_consumer.demo.pendo_stand_in import Kind
from flagpost_consumer.demo.pendo_stand_in.rules import Breach, read_metadata, read_track
from flagpost_schemas import (
    EVENT_TYPES,
    DecodeError,
    Decoder,
    Event,
    SchemaNeeded,
    UnknownSchema,
    schema_of,
)

SCHEMA_IDS = {event_type: number for number, event_type in enumerate(EVENT_TYPES, 1)}
RECORDS = 150

POLICIES = st.builds(
    lambda anonymous, policy, attributes: Policy(
        delivery=DeliverySettings(visitor_interval_seconds=0.01),
        decisions=DecisionsSettings(attribute_properties=attributes),
        mapping=MappingSettings(
            anonymous=anonymous, properties_policy=policy, identity_properties=["anonymous_id", "locale"]
        ),
    ),
    st.sampled_from(AnonymousPolicy),
    st.sampled_from(PropertiesPolicy),
    st.lists(st.sampled_from(["plan", "error", "2nd", "", "\x00", "flag_key"]), unique=True),
)


def decode(decoder: Decoder, value: bytes | None) -> Event | DecodeFailure:
    """Decode as the service does, with a registry that knows the four schemas and no other."""
    while True:
        try:
            return decoder.decode(value)
        except SchemaNeeded as needed:
            decoder.refuse_schema(needed.schema_id, f"the registry has no schema with id {needed.schema_id}")
        except UnknownSchema as error:
            return DecodeFailure(Reason.UNKNOWN_SCHEMA, str(error))
        except DecodeError as error:
            return DecodeFailure(
                Reason.UNDECODABLE,
                f"{error}; look for what writes to this topic besides Flagpost's publisher and gateway",
            )


def append(world: World, mutant: Mutant, decoder: Decoder) -> None:
    number = partition_of(mutant.key or b"", world.partitions)
    headers = tuple((str(name), value) for name, value in as_read(mutant.headers))
    offset = len(world.log[number])
    event = decode(decoder, mutant.value)
    world.log[number].append(
        Record(number, offset, mutant.timestamp_ms, mutant.key, mutant.value, headers, event)
    )


def breaches(endpoint: EndpointName, body: bytes) -> list[Breach]:
    """Pendo's rules that a request breaks, as the stand-in checks them."""
    if endpoint is EndpointName.TRACK:
        return read_track("application/json", body)[1]
    kind = Kind.ACCOUNT if b'"accountId":' in body[:20] else Kind.VISITOR
    return read_metadata(kind, "application/json", body)[1]


@given(seed=st.integers(0, 2**32), policy=POLICIES)
@settings(deadline=None, max_examples=examples(36), phases=(Phase.explicit, Phase.reuse, Phase.generate))
def test_every_record_ends_with_a_reason_that_a_person_understands(seed: int, policy: Policy) -> None:
    decoder = Decoder()
    for event_type, number in SCHEMA_IDS.items():
        decoder.add_schema(number, schema_of(event_type).text)
    world = World(policy, Random(seed), partitions=3)
    for mutant in islice(Mutants(seed, START_MS, SCHEMA_IDS), RECORDS):
        append(world, mutant, decoder)

    world.join()
    world.run()

    world.check_nothing_lost()
    assert sum(map(len, world.log.values())) == RECORDS
    for settlements in world.settled.values():
        (settlement,) = settlements
        record, ending = settlement.delivery.record, settlement.ending
        if ending.outcome is Outcome.DEAD_LETTERED:
            assert (
                list(
                    complaints(
                        ending.reason,
                        ending.detail,
                        personal_texts(world.log[record.partition][record.offset].event),
                    )
                )
                == []
            )
    for sight in world.sights:
        assert breaches(sight.endpoint, sight.body) == []
