"""How a metadata delivery that sets several fields ends: as the strongest of its fields' endings."""

from __future__ import annotations

from itertools import combinations

import pytest

from flagpost_consumer.core.books.metadata_items import Item
from flagpost_consumer.core.outcomes import DELIVERED, Ending, Reason
from flagpost_consumer.core.planning.mapping import Metadata

STRONGEST_FIRST = [
    Reason.REJECTED,
    Reason.ATTEMPTS_EXHAUSTED,
    Reason.SUPPRESSED,
    Reason.FIELD_MISSING,
    Reason.SUPERSEDED,
    Reason.UNCHANGED,
]


def item(*endings: Ending, missing: bool = False, accepted: bool = False) -> Item[None]:
    metadata = Metadata("visitor", "custom", "v", {"plan": "pro"})
    subject = Item(None, metadata, partition=0, offset=0, occurred_at=0, missing=missing, accepted=accepted)
    subject.endings.extend(endings)
    return subject


@pytest.mark.parametrize(("stronger", "weaker"), list(combinations(STRONGEST_FIRST, 2)))
def test_the_delivery_ends_with_the_first_reason_by_precedence(stronger: Reason, weaker: Reason) -> None:
    expected = Ending(stronger, "of the stronger")
    for endings in [(expected, Ending(weaker)), (Ending(weaker), expected)]:
        assert item(*endings).ending() == expected


def test_one_accepted_field_is_a_delivery() -> None:
    assert item(Ending(Reason.REJECTED), missing=True, accepted=True).ending() == DELIVERED


def test_a_missing_field_counts_as_an_ending_and_an_existing_detail_is_kept() -> None:
    assert item(missing=True).ending() == Ending(Reason.FIELD_MISSING)
    assert item(Ending(Reason.UNCHANGED), missing=True).ending() == Ending(Reason.FIELD_MISSING)
    told = Ending(Reason.FIELD_MISSING, "which one")
    assert item(told, missing=True).ending() == told
