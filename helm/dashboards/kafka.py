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
            "Of all partitions of the events topic. Above 0 for seconds while partitions change hands; "
            "otherwise 0.",
            UNASSIGNED,
            "none",
            NONE_AT_ALL,
            runbook="FlagpostPartitionsUnassigned",
        ),
        stat(
            "Partitions stalled",
            "Assigned partitions that make no progress, for any reason; /status says why.",
            total(series("flagpost_stalled")),
            "none",
            NONE_AT_ALL,
            runbook="FlagpostPartitionsStalled",
        ),
        stat(
            "Offsets lost",
            "Records that Kafka deleted before a consumer read them, or that cannot be read, in the "
            "selected time range.",
            total(gained("flagpost_offsets_lost_total")),
            "none",
            NONE_AT_ALL,
            runbook="FlagpostOffsetsLost",
        ),
        stat(
            "Topics replaced",
            "Topics that were deleted and created again under their old name, and partitions that lost the "
            "end of their log, as counted by each consumer in the selected time range.",
            total(gained("flagpost_topic_replaced_total")),
            "none",
            NONE_AT_ALL,
            runbook="FlagpostTopicReplaced",
        ),
        stat(
            "Waiting for the registry",
            "Partitions whose next record needs a schema that the schema registry has not returned yet; "
            "/status lists the schema ids.",
            total(series("flagpost_registry_waiting")),
            "none",
            NONE_AT_ALL,
            runbook="FlagpostRegistryWaiting",
        ),
        stat(
            "Ledger records damaged",
            "Ledger records that were skipped because they cannot be read, in the selected time range. What "
            "they settled may be sent again.",
            total(gained("flagpost_ledger_damaged_total")),
            "none",
            NONE_AT_ALL,
            runbook="FlagpostLedgerDamaged",
        ),
        stat(
            "Last restore",
            "How long the slowest consumer read the ledger when it was last assigned a partition.",
            greatest(series("flagpost_ledger_restore_seconds")),
            "s",
            bad_from(5, 30),
        ),
        stat(
            "Settlements on their way",
            "Answers of Pendo whose settlement Kafka has not acknowledged, as a share of 2 x "
            "pendo.max_connections, where sending stops; in the consumer that has the most.",
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
            "Records that are not settled. If it grows while the sendable backlog is large, add pods. If it "
            "grows without one, the cause is Pendo, its limits, or visitors' pace.",
            "short",
            bad_from(100_000, 1_000_000),
            Query(series("release:flagpost_consumer_lag:sum", of=RELEASE), "{{release}} lag"),
            Query(series("release:flagpost_backlog_sendable:sum", of=RELEASE), "{{release}} sendable"),
            runbook="FlagpostLagGrows",
        ),
        graph(
            "Lag by partition",
            "Lag of the partitions that consumers have. If only one is high: a hot visitor, a held "
            "partition, or a stuck consumer.",
            "short",
            ANY,
            Query(greatest(series("flagpost_consumer_lag"), "partition"), "{{partition}}"),
            runbook="FlagpostPartitionsStalled",
        ),
        stack(
            "Stalled partitions by reason",
            "What partitions without progress wait for: for example the ledger to be read, a person, the "
            "schema registry, Kafka to accept settlements or dead letters, a correct clock, or records from "
            "Kafka.",
            "none",
            ANY,
            Query(total(series("flagpost_stalled"), "reason"), "{{reason}}"),
            runbook="FlagpostPartitionsStalled",
        ),
        graph(
            "Records read by pod",
            "Records read from the events topic. A consumer at 0 while others work has paused intake or has "
            "no partition.",
            "cps",
            ANY,
            Query(total(rate("flagpost_records_consumed_total"), "pod"), "{{pod}}"),
        ),
        graph(
            "Partitions by pod",
            "Even shares are normal. A pod without partitions is not needed.",
            "none",
            ANY,
            Query(total(series("flagpost_partitions_assigned"), "pod"), "{{pod}}"),
        ),
    ),
)

MOVES = Row(
    "Hand-overs and the ledger",
    (
        graph(
            "Rebalances",
            "Changes of assignment a minute. lost means that the group removed a consumer because it was "
            "too slow or frozen.",
            "none",
            bad_from(5, 20),
            Query(f"60 * {total(rate('flagpost_rebalances_total'), 'kind')}", "{{kind}}"),
            runbook="FlagpostNoConsumers",
        ),
        graph(
            "Seen again",
            "Records that are already settled in the ledger: read again after a restart or hand-over, but "
            "not sent again.",
            "cps",
            ANY,
            Query(total(rate("flagpost_redeliveries_total"), "pod"), "{{pod}}"),
        ),
        graph(
            "Restore",
            "How long each consumer read the ledger when a partition was last assigned. It grows with "
            "dedupe.ttl_seconds times the rate of events.",
            "s",
            bad_from(5, 30),
            Query(series("flagpost_ledger_restore_seconds"), "{{pod}}"),
        ),
        stack(
            "Settlements not acknowledged",
            "Answers of Pendo whose settlement Kafka has not acknowledged yet, by pod.",
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
