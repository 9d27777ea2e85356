"""Decisions that did not reach Kafka because a publisher refused them or Kafka did not take them.

In: the reports that publishers write to the topic of impressions. Out: how many there were, by whom and why; and for
a visitor of an experiment's variation, what became of the decision, if a report lists it. No I/O.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from flagpost_schemas.exposures import Exposure, exposure_digest

MAX_LISTED = 1_000_000
"""Digests that are held, about 150 bytes each; visitors beyond these are not found."""
FATES = frozenset({"refused", "failed"})
UNKNOWN = "unknown"
"""The reason in reports of publishers that give none."""


class Service(NamedTuple):
    """A publishing service: reports are about the decisions of all its processes."""

    name: str | None
    environment: str | None

    @property
    def title(self) -> str:
        """Its name within a sentence for people."""
        name = self.name or "a service without a name"
        return name if self.environment is None else f"{name} ({self.environment})"


class Lost(NamedTuple):
    """Decisions with the same end at the same publisher."""

    service: Service
    flag_key: str
    variation_key: str | None
    rule_type: str | None
    fate: str
    """refused or failed."""
    reason: str


@dataclass(slots=True)
class Extent:
    """How many there were."""

    decisions: int = 0
    listed: int = 0
    """Visitors whom the reports list, each once for each report."""


class Reported(NamedTuple):
    """A row of a report."""

    lost: Lost
    decisions: int
    exposures: tuple[str, ...]


def lost_in(report: Mapping[str, Any], service: Service) -> Iterator[Reported]:
    """The rows of a report. Raises for a report of another form."""
    for row in report["unpublished"]:
        if row["fate"] in FATES:
            lost = Lost(
                service,
                str(row["flag_key"]),
                text_or_none(row["variation_key"]),
                text_or_none(row["rule_type"]),
                row["fate"],
                text_or_none(row.get("reason")) or UNKNOWN,
            )
            yield Reported(lost, int(row["count"]), tuple(map(str, row.get("exposures", ()))))


def text_or_none(value: object) -> str | None:
    """A text of a report, or null. Raises TypeError."""
    if value is None or isinstance(value, str):
        return value
    raise TypeError(f"{type(value).__name__} where a text is wanted")


class LostAtPublishers:
    """The contents of reports, in any order."""

    def __init__(self) -> None:
        self.extents: defaultdict[Lost, Extent] = defaultdict(Extent)
        self._listed: dict[str, dict[str, Lost]] = {}
        self._list_length = 0

    def count(self, row: Reported) -> None:
        """Count a row of a report that belongs to the window."""
        extent = self.extents[row.lost]
        extent.decisions += row.decisions
        extent.listed += len(row.exposures)

    def hold_list(self, instance: str, row: Reported) -> None:
        """Note the visitors in a row of a process's report."""
        held = self._listed.setdefault(instance, {})
        for digest in row.exposures:
            known = held.get(digest)
            if known is not None:
                held[digest] = max(known, row.lost, key=_nearness)
            elif self._list_length < MAX_LISTED:
                held[digest] = row.lost
                self._list_length += 1

    def end_of(self, exposure: Exposure) -> Lost | None:
        """How a visitor's decision was lost at a publisher; of several ends, the one nearest to Kafka. None: no
        report lists it.
        """
        ends = (
            held.get(exposure_digest(instance, exposure)) for instance, held in self._listed.items() if held
        )
        return max((end for end in ends if end is not None), key=_nearness, default=None)

    def by_service(self, flag_key: str, rule_type: str | None) -> Counter[tuple[Service, str, str]]:
        """Decisions about a flag by rules of one type: by service, fate and reason."""
        found: Counter[tuple[Service, str, str]] = Counter()
        for lost, extent in self.extents.items():
            if (lost.flag_key, lost.rule_type) == (flag_key, rule_type):
                found[lost.service, lost.fate, lost.reason] += extent.decisions
        return found

    def of_variation(self, flag_key: str, variation_key: str | None) -> dict[Lost, Extent]:
        """The same for a flag's variation."""
        return {
            lost: extent
            for lost, extent in self.extents.items()
            if (lost.flag_key, lost.variation_key) == (flag_key, variation_key)
        }


def _nearness(lost: Lost) -> bool:
    return lost.fate == "failed"


def _in_order(row: tuple[tuple[Service, str, str], int]) -> tuple[str, bool, str]:
    (service, fate, reason), _ = row
    return service.title, fate != "refused", reason


def told_in_words(counts: Counter[tuple[Service, str, str]]) -> str:
    """`shop refused 9 (queue_full), failed 3 (msg_timed_out)`, service by service; empty for none."""
    by_service: defaultdict[Service, list[str]] = defaultdict(list)
    for (service, fate, reason), count in sorted(counts.items(), key=_in_order):
        by_service[service].append(f"{fate} {count:,} ({reason})")
    return "; ".join(f"{service.title} {', '.join(ends)}" for service, ends in by_service.items())
