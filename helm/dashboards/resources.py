"""Resources: what the processes use, how late their loops run, and which versions they are."""

from __future__ import annotations

from dashboards.dashboard import Dashboard, Row
from dashboards.panels import ANY, Query, bad_from, graph, stat, table
from dashboards.promql import of_limit, of_ours, of_program, quantile, rate, seen, series, total

MEBIBYTE = 1024 * 1024

PROCESSES = Row(
    "What do the processes use?",
    (
        graph(
            "CPU",
            "Cores that each consumer and gateway uses. A consumer's event loop is one thread: at 1 core it "
            "is at its limit.",
            "none",
            bad_from(0.8, 1),
            Query(of_ours(rate("process_cpu_seconds_total")), "{{pod}}"),
            runbook="FlagpostLagGrows",
        ),
        graph(
            "Memory of consumers",
            "Resident memory. The chart gives each consumer 512 MiB; the kernel kills a process that goes "
            "over its limit.",
            "bytes",
            bad_from(400 * MEBIBYTE, 480 * MEBIBYTE),
            Query(of_program(series("process_resident_memory_bytes"), "flagpost_build_info"), "{{pod}}"),
            runbook="FlagpostDedupeTooSmall",
        ),
        graph(
            "Memory of gateways",
            "Resident memory. The chart gives each gateway 256 MiB.",
            "bytes",
            bad_from(200 * MEBIBYTE, 240 * MEBIBYTE),
            Query(
                of_program(series("process_resident_memory_bytes"), "flagpost_gateway_build_info"), "{{pod}}"
            ),
        ),
        graph(
            "Bytes held",
            "Memory used by pending records (keys, values, headers and their events), as a share of "
            "delivery.max_pending_bytes. At 100 % a consumer reads no more.",
            "percentunit",
            bad_from(0.8, 1),
            Query(of_limit(series("flagpost_pending_bytes"), "delivery.max_pending_bytes"), "{{pod}}"),
        ),
        graph(
            "Loop lag",
            "How late a consumer's event loop runs. Above 0.25 s for minutes means too little CPU.",
            "s",
            bad_from(0.1, 0.25),
            Query(series("flagpost_loop_lag_seconds"), "{{pod}}"),
            runbook="FlagpostLoopSlow",
        ),
        graph(
            "Open files",
            "Share of the files and sockets that a process may open.",
            "percentunit",
            bad_from(0.5, 0.9),
            Query(
                of_ours(f"{series('process_open_fds')} / {series('process_max_fds')}"),
                "{{pod}}",
            ),
        ),
        graph(
            "Dropped on the admin port",
            "Connections to a consumer's admin port that ended before they got an answer: malformed, too "
            "slow, or too many. Only Prometheus and Kubernetes should connect to this port.",
            "ops",
            ANY,
            Query(
                seen(total(rate("flagpost_admin_connections_dropped_total"), "pod", "reason")),
                "{{pod}} {{reason}}",
            ),
        ),
    ),
)

VERSIONS = Row(
    "What runs?",
    (
        stat(
            "Youngest process",
            "How long ago the last consumer or gateway started. If this is often short, pods restart; "
            "kubectl shows why.",
            f"time() - max({of_ours(series('process_start_time_seconds'))})",
            "s",
            ((None, "orange"), (600, "green")),
            width=6,
        ),
        stat(
            "Oldest process",
            "How long the oldest consumer or gateway has run.",
            f"time() - min({of_ours(series('process_start_time_seconds'))})",
            "s",
            ANY,
            width=6,
        ),
        table(
            "Consumers by version",
            "If there is more than one version for long, a roll-out is stuck.",
            "none",
            ANY,
            f"count by (namespace, release, version) ({series('flagpost_build_info')})",
            width=6,
        ),
        table(
            "Gateways by version",
            "If there is more than one version for long, a roll-out is stuck.",
            "none",
            ANY,
            f"count by (namespace, release, version) ({series('flagpost_gateway_build_info')})",
            width=6,
        ),
        graph(
            "Slowest requests to Pendo, by pod",
            "The 99th percentile. If only one pod is slow: its node or its CPU. If all are slow: Pendo.",
            "s",
            bad_from(1, 5),
            Query(quantile(0.99, "flagpost_pendo_request_seconds", "pod"), "{{pod}}"),
            runbook="FlagpostLoopSlow",
        ),
    ),
)

DASHBOARD = Dashboard(
    "resources",
    "Resources",
    "CPU, memory, files and the event loop of each process, and the versions that run.",
    (PROCESSES, VERSIONS),
)
