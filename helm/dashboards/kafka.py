"""Kafka: lag, partitions and who has them, hand-overs, and the ledger."""

from __future__ import annotations

from dashboards.dashboard import Dashboard, Row
from dashboards.overview import UNASSIGNED
from dashboards.panels import ANY, NONE_AT_ALL, Query, bad_from, graph, stack, stat
from dashboards.promql import RELEASE, gained, greatest, of_limit, rate, series, total

NOW = Row(
    "Is every partition consumed?",
    (
        stat(
            "Partitions without a consumer",
            "Of all that the events topic has. For seconds while partitions change hands; otherwise 0.",
            UNASSIGNED,
            "none",
            NONE_AT_ALL,
            runbook="FlagpostPartitionsUnassigned",
        ),
        stat(
            "Partitions stalled",
            "Assigned and without progress, whatever they wait for; /status says why.",
            total(series("flagpost_stalled")),
            "none",
            NONE_AT_ALL,
            runbook="FlagpostPartitionsStalled",
        ),
        stat(
            "Offsets lost",
            "Records that Kafka deleted before they were read, or that cannot be read, in the time that is looked "
            "at.",
            total(gained("flagpost_offsets_lost_total")),
            "none",
            NONE_AT_ALL,
            runbook="FlagpostOffsetsLost",
        ),
        stat(
            "Topics made anew",
            "Topics deleted and made anew under their old name, and logs that went back, as each consumer tells of "
            "it, in the time that is looked at.",
            total(gained("flagpost_topic_replaced_total")),
            "none",
            NONE_AT_ALL,
            runbook="FlagpostTopicReplaced",
        ),
        stat(
            "Waiting for the registry",
            "Partitions whose next record waits for a schema of the schema registry; /status says which ids.",
            total(series("flagpost_registry_waiting")),
            "none",
            NONE_AT_ALL,
            runbook="FlagpostRegistryWaiting",
        ),
        stat(
            "Ledger records damaged",
            "Passed over, in the time that is looked at: what they settled may be sent again.",
            total(gained("flagpost_ledger_damaged_total")),
            "none",
            NONE_AT_ALL,
            runbook="FlagpostLedgerDamaged",
        ),
        stat(
            "Last restore",
            "How long the slowest consumer read the ledger when it was last given a partition.",
            greatest(series("flagpost_ledger_restore_seconds")),
            "s",
            bad_from(5, 30),
        ),
        stat(
            "Settlements on their way",
            "Answers of Pendo whose settlement Kafka has not acknowledged, as a share of 2 x pendo.max_connections, "
            "where sending stops; in the consumer that has most of them.",
            greatest(of_limit(series("flagpost_ledger_unacknowledged"), "pendo.max_connections", 2)),
            "percentunit",
            bad_from(0.75, 1),
            runbook="FlagpostLedgerSlow",
        ),
    ),
)

LAG = Row(
    "How far behind?",
    (
        graph(
            "Lag",
            "Records that are not settled. Growing while the sendable backlog is large: more pods. Growing "
            "without: Pendo, its limits, or visitors' pace.",
            "short",
            bad_from(100_000, 1_000_000),
            Query(series("release:flagpost_consumer_lag:sum", of=RELEASE), "{{release}} lag"),
            Query(series("release:flagpost_backlog_sendable:sum", of=RELEASE), "{{release}} sendable"),
            runbook="FlagpostLagGrows",
        ),
        graph(
            "Lag by partition",
            "Of partitions that a consumer has. One alone: a hot visitor, a partition that is held, or a consumer "
            "that is stuck.",
            "short",
            ANY,
            Query(greatest(series("flagpost_consumer_lag"), "partition"), "{{partition}}"),
            runbook="FlagpostPartitionsStalled",
        ),
        stack(
            "Stalled partitions by reason",
            "What partitions without progress wait for: their ledger to be read, a person, the schema registry, "
            "Kafka to take settlements or dead letters, a right clock, or Kafka's records.",
            "none",
            ANY,
            Query(total(series("flagpost_stalled"), "reason"), "{{reason}}"),
            runbook="FlagpostPartitionsStalled",
        ),
        graph(
            "Records read by pod",
            "Records taken in from the events topic. A consumer at 0 while others work: intake paused, or "
            "no partition.",
            "cps",
            ANY,
            Query(total(rate("flagpost_records_consumed_total"), "pod"), "{{pod}}"),
        ),
        graph(
            "Partitions by pod",
            "Even shares are normal; a pod with none is one too many.",
            "none",
            ANY,
            Query(total(series("flagpost_partitions_assigned"), "pod"), "{{pod}}"),
        ),
    ),
)

MOVES = Row(
    "What moves?",
    (
        graph(
            "Rebalances",
            "Changes of assignment a minute. lost: a consumer was taken for dead, too slow or frozen.",
            "none",
            bad_from(5, 20),
            Query(f"60 * {total(rate('flagpost_rebalances_total'), 'kind')}", "{{kind}}"),
            runbook="FlagpostNoConsumers",
        ),
        graph(
            "Seen again",
            "Records that the ledger already settles: read again after a restart or hand-over, and not sent "
            "again.",
            "cps",
            ANY,
            Query(total(rate("flagpost_redeliveries_total"), "pod"), "{{pod}}"),
        ),
        graph(
            "Restore",
            "How long the ledger was read when a partition was last assigned. It grows with "
            "dedupe.ttl_seconds times the rate of events.",
            "s",
            bad_from(5, 30),
            Query(series("flagpost_ledger_restore_seconds"), "{{pod}}"),
        ),
        stack(
            "Settlements not acknowledged",
            "Answers of Pendo whose settlement Kafka has not taken yet, by pod.",
            "none",
            ANY,
            Query(series("flagpost_ledger_unacknowledged"), "{{pod}}"),
            runbook="FlagpostLedgerSlow",
        ),
    ),
)

DASHBOARD = Dashboard(
    "kafka",
    "Kafka",
    "Lag, partitions and who has them, rebalances, the ledger and its restores.",
    (NOW, LAG, MOVES),
)
