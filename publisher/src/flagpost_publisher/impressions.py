"""Counts what an Optimizely SDK told Optimizely: impressions by flag, variation and rule, and what became here of
their decisions.

In: the SDK's LOG_EVENTs, and the claims of decisions that were not published. Out: now and then a report, JSON, that
adds up with the events on the topic: impressions = published + duplicates + refused + failed. It contains no ids;
visitors whose decisions were refused or failed are listed by digests, as far as there is room. It also contains the
traffic allocations of the experiments that were shown.

Noting what the SDK calls takes a moment, also within decide(); the publisher's thread does the counting.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict, deque
from threading import RLock
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple, TypeAlias
from uuid import uuid4

from flagpost_schemas.exposures import exposure_digest

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from flagpost_publisher.duplicates import Said
    from flagpost_publisher.rule_types import RuleTypes
    from flagpost_schemas import Source
    from flagpost_schemas.exposures import Exposure

MAX_WAITING: Final = 1_000
"""LOG_EVENTs that wait for the thread; each holds ten impressions, which is the SDK's batch size."""

MAX_ROWS: Final = 1_000
"""Rows of either kind in a report; further flags, variations and rules of a minute are counted as `uncounted`."""

MAX_REPORT_BYTES: Final = 900_000
"""Limit for a report with keys longer than Optimizely's: Kafka takes a megabyte. The report says how many rows there
were.
"""

MAX_LISTED: Final = 10_000
"""Visitors in a report whose decisions were refused or failed, 115 bytes each in memory; further ones are only
counted.
"""

Fate: TypeAlias = Literal["duplicates", "refused", "failed"]
"""What became of a decision that has an impression at Optimizely and is not on the topic."""


class Shown(NamedTuple):
    """What an impression says was shown; `variation_key` as sent."""

    flag_key: str
    variation_key: str | None
    rule_key: str | None
    rule_type: str | None


class Unpublished(NamedTuple):
    """Decisions that are not on the topic."""

    flag_key: str
    variation_key: str | None
    rule_type: str | None
    fate: Fate
    reason: str | None
    """Why it was refused or failed; None for duplicates."""


class Report(NamedTuple):
    """A record's key and value. The same report may be written twice: `instance` and `sequence` identify it."""

    key: str
    value: bytes


class Impressions:
    """The counts of one publisher in one process. Threads may share it."""

    def __init__(self, source: Source, now_ms: int) -> None:
        """`source`: who reports. The first report begins at `now_ms`."""
        self._source = source
        self._instance = str(uuid4())
        self._sequence = 0
        self._since = now_ms
        self._lock = RLock()  # re-entrant: a signal handler may call decide()
        self._waiting: deque[tuple[Mapping[str, Any], RuleTypes]] = deque()
        self._shown: Counter[Shown] = Counter()
        self._unpublished: Counter[Unpublished] = Counter()
        self._listed: defaultdict[Unpublished, set[str]] = defaultdict(set)
        self._list_length = 0
        self._uncounted = 0
        self._splits: dict[tuple[str, str | None], Mapping[str, int]] = {}
        """Of the experiments that were shown, from the newest datafile."""

    def hear(self, impressions: Mapping[str, Any], rules: RuleTypes) -> None:
        """The SDK sends a LOG_EVENT with these impressions; `rules` are those of its datafile."""
        with self._lock:
            if len(self._waiting) < MAX_WAITING:
                self._waiting.append((impressions, rules))
            else:
                self._uncounted += len(impressions["visitors"])

    def note_duplicate(self, flag_key: str, said: Said) -> None:
        """A decision with this content about a flag is not on the topic because it is a duplicate."""
        self._note("duplicates", None, flag_key, said)

    def note_lost(self, fate: Fate, reason: str, flag_key: str, said: Said, exposure: Exposure) -> None:
        """A decision with this content about a flag is not on the topic, for this reason; `exposure`: what it
        showed.
        """
        with self._lock:
            row = self._note(fate, reason, flag_key, said)
            if row is not None and self._list_length < MAX_LISTED:
                digest = exposure_digest(self._instance, exposure)
                listed = self._listed[row]
                self._list_length += digest not in listed
                listed.add(digest)

    def count(self) -> None:
        """Count what was noted; called by the publisher's thread."""
        while self._waiting:
            impressions, rules = self._waiting.popleft()
            for shown in _shown_in(impressions, rules):
                self._add(self._shown, shown)
                self._note_split(shown.flag_key, shown.rule_key, rules)

    def report(self, now_ms: int) -> Report | None:
        """The counts since the last report, which start again; None: there is nothing to report."""
        self.count()
        with self._lock:
            shown, self._shown = self._shown, Counter()
            unpublished, self._unpublished = self._unpublished, Counter()
            listed, self._listed, self._list_length = self._listed, defaultdict(set), 0
            uncounted, self._uncounted = self._uncounted, 0
            splits, self._splits = self._splits, {}
        if not (shown or unpublished or uncounted):
            return None
        document: dict[str, Any] = {
            "instance": self._instance,
            "sequence": self._sequence,
            "since": self._since,
            "until": now_ms,
            "service": self._source.service,
            "environment": self._source.environment,
            "sdk": self._source.sdk,
            "sdk_version": self._source.sdk_version,
            "impressions": [{**row._asdict(), "count": number} for row, number in shown.items()],
            "unpublished": [
                {**row._asdict(), "count": number, "exposures": sorted(listed.get(row, ()))}
                for row, number in unpublished.items()
            ],
            "splits": [
                {"flag_key": flag_key, "rule_key": rule_key, "shares": shares}
                for (flag_key, rule_key), shares in splits.items()
            ],
            "uncounted": uncounted,
        }
        self._sequence += 1
        self._since = now_ms
        value = _json(document)
        if len(value) > MAX_REPORT_BYTES:
            uncounted += shown.total() + unpublished.total()
            value = _json(
                {**document, "impressions": [], "unpublished": [], "splits": [], "uncounted": uncounted}
            )
        return Report(self._instance, value)

    def _note_split(self, flag_key: str, rule_key: str | None, rules: RuleTypes) -> None:
        shares = rules.splits.get((flag_key, rule_key))
        if shares is not None and len(self._splits) < MAX_ROWS:
            with self._lock:
                self._splits[flag_key, rule_key] = shares

    def _note(self, fate: Fate, reason: str | None, flag_key: str, said: Said) -> Unpublished | None:
        """The row in which a decision was counted; None: there is no room, or nothing to count."""
        variation, _, dispatched, rule_type = said
        row = Unpublished(flag_key, variation, rule_type, fate, reason)
        return row if dispatched and self._add(self._unpublished, row) else None

    def _add(self, counts: Counter[Any], row: Shown | Unpublished) -> bool:
        with self._lock:
            if row in counts or len(counts) < MAX_ROWS:
                counts[row] += 1
                return True
            self._uncounted += 1
            return False


def _json(document: Mapping[str, Any]) -> bytes:
    return json.dumps(document, separators=(",", ":")).encode()


def _shown_in(impressions: Mapping[str, Any], rules: RuleTypes) -> Iterator[Shown]:
    """The impressions of decide() in a LOG_EVENT; those of older calls name no flag, and are no events here."""
    for visitor in impressions["visitors"]:
        for snapshot in visitor["snapshots"]:
            for decision in snapshot.get("decisions") or ():
                told = decision["metadata"]
                if told["flag_key"]:
                    rule_key = told["rule_key"] or None
                    variation = (told["variation_key"] or None) if told["enabled"] else "off"
                    kind = rules.of(
                        {**told, "rule_key": rule_key, "experiment_id": decision["experiment_id"]}
                    )
                    yield Shown(told["flag_key"], variation, rule_key, kind)
