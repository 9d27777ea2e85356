"""What an Optimizely SDK told Optimizely, counted: impressions by flag, variation and rule, and what became here of
the decisions that they stand for.

In: the SDK's LOG_EVENTs, and the claims of decisions that were not published. Out: now and then a report, JSON, that
adds up with the events on the topic: impressions = published + duplicates + refused + failed. No ids are in it.
The traffic allocations of the experiments that were shown go with it.

What the SDK calls takes a moment to note, also within decide(); counting is the publisher's thread's.
"""

from __future__ import annotations

import json
from collections import Counter, deque
from threading import RLock
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple, TypeAlias
from uuid import uuid4

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from flagpost_publisher.duplicates import Said
    from flagpost_publisher.rule_types import RuleTypes
    from flagpost_schemas import Source

MAX_WAITING: Final = 1_000
"""LOG_EVENTs that wait for the thread; each holds ten impressions, as the SDK batches them."""

MAX_ROWS: Final = 1_000
"""Rows of either kind in a report; a minute with more flags, variations and rules has the rest as `uncounted`."""

MAX_REPORT_BYTES: Final = 900_000
"""Of one with keys that are longer than Optimizely's: Kafka takes a megabyte. It says how many there were."""

Fate: TypeAlias = Literal["duplicates", "refused", "failed"]
"""Of a decision that Optimizely was sent an impression of, and that is not on the topic."""


class Shown(NamedTuple):
    """What an impression says was shown; `variation_key` as sent."""

    flag_key: str
    variation_key: str | None
    rule_key: str | None
    rule_type: str | None


class Unpublished(NamedTuple):
    """Decisions that an event on the topic would be of, and is not."""

    flag_key: str
    variation_key: str | None
    rule_type: str | None
    fate: Fate


class Report(NamedTuple):
    """A record's key and value. The same report may be written twice: `instance` and `sequence` tell."""

    key: str
    value: bytes


class Impressions:
    """Counts of one publisher in one process. Threads may share it."""

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
        self._uncounted = 0
        self._splits: dict[tuple[str, str | None], Mapping[str, int]] = {}
        """Of the experiments that were shown, as the newest datafile has them."""

    def hear(self, impressions: Mapping[str, Any], rules: RuleTypes) -> None:
        """The SDK sends these, a LOG_EVENT's; `rules` are those of its datafile."""
        with self._lock:
            if len(self._waiting) < MAX_WAITING:
                self._waiting.append((impressions, rules))
            else:
                self._uncounted += len(impressions["visitors"])

    def note(self, fate: Fate, flag_key: str, said: Said) -> None:
        """A decision that said this of a flag is not on the topic."""
        variation, _, dispatched, rule_type = said
        if dispatched:
            self._add(self._unpublished, Unpublished(flag_key, variation, rule_type, fate))

    def count(self) -> None:
        """Count what was heard; called by the publisher's thread."""
        while self._waiting:
            impressions, rules = self._waiting.popleft()
            for shown in _shown_in(impressions, rules):
                self._add(self._shown, shown)
                self._note_split(shown.flag_key, shown.rule_key, rules)

    def report(self, now_ms: int) -> Report | None:
        """The counts since the last report, which begin anew; None: there is nothing to report."""
        self.count()
        with self._lock:
            shown, self._shown = self._shown, Counter()
            unpublished, self._unpublished = self._unpublished, Counter()
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
            "unpublished": [{**row._asdict(), "count": number} for row, number in unpublished.items()],
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

    def _add(self, counts: Counter[Any], row: Shown | Unpublished) -> None:
        with self._lock:
            if row in counts or len(counts) < MAX_ROWS:
                counts[row] += 1
            else:
                self._uncounted += 1


def _json(document: Mapping[str, Any]) -> bytes:
    return json.dumps(document, separators=(",", ":")).encode()


def _shown_in(impressions: Mapping[str, Any], rules: RuleTypes) -> Iterator[Shown]:
    """The impressions of decide() among a LOG_EVENT's; those of older calls name no flag, and are no events here."""
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
