"""Visitors and dedupe: what waits and for what, the longest lanes, and what need not be sent."""

from __future__ import annotations

from dashboards.dashboard import Dashboard, Row
from dashboards.overview import DELIVERIES
from dashboards.panels import ANY, NO_RATE, NONE_AT_ALL, Query, bad_from, graph, stack, stat
from dashboards.promql import gained, greatest, of_limit, rate, ratio, series, total

DUPLICATES = 'outcome="duplicate"'
PENDING = series("flagpost_deliveries_pending")
PACED = series("flagpost_backlog_paced")
LANE_LIMIT = series("flagpost_limit", 'setting="delivery.max_pending_per_visitor"')
TRACK = 'kind="track"'
METADATA = 'kind=~".*_metadata"'
VALUES_DELIVERED = total(gained(DELIVERIES, METADATA, 'outcome="delivered"'))
BATCHES_DELIVERED = total(gained("flagpost_pendo_requests_total", 'endpoint="metadata"', 'status=~"2.."'))

WAITING = Row(
    "What waits, and for what?",
    (
        stack(
            "Pending",
            "Paced deliveries wait for their visitor's next second. The rest is ready, in flight, or waits "
            "for a retry, the budget, Pendo, or Kafka's acknowledgement of its settlement.",
            "short",
            ANY,
            Query(total(PACED), "paced"),
            Query(f"clamp_min({total(PENDING)} - {total(PACED)}, 0)", "the rest"),
            runbook="FlagpostOldEventsPending",
        ),
        graph(
            "Longest lanes",
            "Deliveries that wait in the longest lanes, by rank. A visitor far above the others is a "
            'catch-all id (a robot, "anonymous"). While memory is full, the newest deliveries beyond '
            "delivery.max_pending_per_visitor are dead-lettered.",
            "short",
            ANY,
            Query(greatest(series("flagpost_hottest_lanes"), "rank"), "{{rank}}"),
            Query(f"min({LANE_LIMIT}) > 0", "delivery.max_pending_per_visitor"),
            runbook="FlagpostOldEventsPending",
        ),
    ),
)

SAVED = Row(
    "What need not be sent?",
    (
        stat(
            "Requests saved",
            "Duplicates that were not sent, and metadata values that shared a request, in the selected time "
            "range.",
            f"{total(gained(DELIVERIES, DUPLICATES))} + clamp_min({VALUES_DELIVERED} - {BATCHES_DELIVERED}, 0)",
            "short",
            ANY,
            width=6,
        ),
        stat(
            "Share of track events that are duplicates",
            "A duplicate has the same visitor, flag and variation as another event within "
            "dedupe.ttl_seconds; for a TrackEvent: the same event id.",
            ratio(total(gained(DELIVERIES, DUPLICATES, TRACK)), total(gained(DELIVERIES, TRACK))),
            "percentunit",
            ANY,
            width=6,
        ),
        stat(
            "Keys evicted early",
            "Keys forgotten early because dedupe.max_entries was reached: duplicates of them are sent.",
            total(gained("flagpost_dedupe_evicted_early_total")),
            "none",
            NONE_AT_ALL,
            runbook="FlagpostDedupeTooSmall",
            width=6,
        ),
        stat(
            "Lanes on a wrong partition",
            "Lanes that began with a record on a wrong partition: its producer uses another partitioner "
            "than Flagpost's publisher.",
            total(gained("flagpost_mispartitioned_total")),
            "none",
            NONE_AT_ALL,
            runbook="FlagpostMispartitioned",
            width=6,
        ),
        stack(
            "Duplicates by reason",
            "dedupe: a track event that was sent before. superseded: a newer value of the field has "
            "replaced it. unchanged: the same value as the one sent last.",
            "ops",
            ANY,
            Query(total(rate(DELIVERIES, DUPLICATES), "kind", "reason"), "{{kind}} {{reason}}"),
        ),
        graph(
            "Keys remembered",
            "Keys of sent deliveries that are remembered to find duplicates, by pod, as a share of "
            "dedupe.max_entries. At 100 % the oldest keys are forgotten early.",
            "percentunit",
            bad_from(0.8, 1),
            Query(of_limit(series("flagpost_dedupe_entries"), "dedupe.max_entries"), "{{pod}}"),
            runbook="FlagpostDedupeTooSmall",
        ),
        graph(
            "Late events",
            "Events more than one dedupe.ttl_seconds older than the newest of their partition: their "
            "duplicates may not be recognised.",
            "cps",
            bad_from(1, 10),
            Query(total(rate("flagpost_dedupe_late_total")), "late"),
            runbook="FlagpostEventsLate",
        ),
        graph(
            "Evicted early, and on a wrong partition",
            "Both should be 0. Evicted early: duplicates are sent. On a wrong partition: order, pace and "
            "duplicate detection do not work for these visitors.",
            "cps",
            NO_RATE,
            Query(total(rate("flagpost_dedupe_evicted_early_total")), "evicted early"),
            Query(total(rate("flagpost_mispartitioned_total")), "on a wrong partition"),
            runbook="FlagpostMispartitioned",
        ),
    ),
)

DASHBOARD = Dashboard(
    "visitors",
    "Visitors and dedupe",
    "What waits for its visitor's turn, the longest lanes, duplicates removed, requests saved.",
    (WAITING, SAVED),
)
