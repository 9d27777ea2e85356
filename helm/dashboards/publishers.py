"""Publishers and gateway: where events come from."""

from __future__ import annotations

from dashboards.dashboard import Dashboard, Row
from dashboards.panels import ANY, NONE_AT_ALL, Query, bad_from, good_from, graph, stack, stat
from dashboards.promql import gained, quantile, rate, ratio, seen, series, total

REQUESTS = "flagpost_gateway_requests_total"
SERVICES = 'namespace=~"$namespace"'
"""Services with a publisher are of no release: of the variables only the namespace chooses."""

NOW = Row(
    "Do events come in?",
    (
        stat(
            "Published by services",
            "Events that publishers gave to Kafka in the time that is looked at, of the chosen namespaces: "
            "services belong to no release.",
            total(gained("flagpost_publisher_delivered_total", of=SERVICES)),
            "short",
            ANY,
        ),
        stat(
            "Refused or failed",
            "Events that publishers could not publish, in the time that is looked at. They are lost; the "
            "applications go on.",
            f"{total(gained('flagpost_publisher_refused_total', of=SERVICES))}"
            f" + {total(gained('flagpost_publisher_failed_total', of=SERVICES))}",
            "none",
            NONE_AT_ALL,
            runbook="FlagpostPublisherRefusing",
        ),
        stat(
            "Accepted by the gateway",
            "Events that Kafka acknowledged, in the time that is looked at.",
            total(gained("flagpost_gateway_events_total", 'outcome="accepted"')),
            "short",
            ANY,
        ),
        stat(
            "Gateways with Kafka",
            "The share of gateways that Kafka takes events from. Those without answer 503.",
            f"avg({series('flagpost_gateway_kafka_up')})",
            "percentunit",
            good_from(0.5, 1),
            runbook="FlagpostGatewayUnavailable",
        ),
        stat(
            "Answers 5xx",
            "The share of the gateway's answers: Kafka does not take events, or too many requests at once.",
            ratio(total(gained(REQUESTS, 'status=~"5.."')), total(gained(REQUESTS))),
            "percentunit",
            bad_from(0.001, 0.01),
            runbook="FlagpostGatewayUnavailable",
        ),
        stat(
            "Answers 4xx",
            "The share of the gateway's answers: what a client sent cannot be taken.",
            ratio(total(gained(REQUESTS, 'status=~"4.."')), total(gained(REQUESTS))),
            "percentunit",
            bad_from(0.01, 0.05),
            runbook="FlagpostGatewayRefusing",
        ),
    ),
)

PUBLISHERS = Row(
    "Publishers in services",
    (
        stack(
            "What became of events",
            "accepted are on their way to Kafka or there; duplicates need not go; refused and failed are "
            "lost.",
            "ops",
            ANY,
            *(
                Query(total(rate(f"flagpost_publisher_{what}_total", of=SERVICES)), what)
                for what in ("accepted", "duplicates", "refused", "failed")
            ),
            runbook="FlagpostPublisherRefusing",
        ),
        graph(
            "Queued",
            "Events on their way to Kafka, by pod; at the publisher's own queue_max_messages the next are refused. "
            "One that only grows: Kafka takes nothing.",
            "short",
            ANY,
            Query(series("flagpost_publisher_queued", of=SERVICES), "{{namespace}} {{pod}}"),
            runbook="FlagpostPublisherStuck",
        ),
    ),
)

GATEWAY = Row(
    "Gateway: rate, errors, duration",
    (
        stack(
            "Requests by route and status",
            "Requests a second. 202 and 200: Kafka has it. 503: Kafka does not take events; clients should "
            "try again.",
            "reqps",
            ANY,
            Query(seen(total(rate(REQUESTS), "route", "status")), "{{route}} {{status}}"),
            runbook="FlagpostGatewayRefusing",
        ),
        graph(
            "Duration",
            "From a request's headers to its answer, which waits for Kafka's acknowledgement.",
            "s",
            bad_from(0.5, 5),
            Query(quantile(0.5, "flagpost_gateway_request_seconds"), "50 %"),
            Query(quantile(0.99, "flagpost_gateway_request_seconds"), "99 %"),
            runbook="FlagpostGatewayUnavailable",
        ),
        stack(
            "Events by type",
            "Events of well-formed requests. refused: answered 503.",
            "ops",
            ANY,
            Query(total(rate("flagpost_gateway_events_total"), "type", "outcome"), "{{type}} {{outcome}}"),
            runbook="FlagpostGatewayUnavailable",
        ),
        stack(
            "Set aside, and webhooks",
            "What was accepted and is not for Pendo, by reason; webhooks of Pendo's, published or seen "
            "before.",
            "ops",
            ANY,
            Query(total(rate("flagpost_gateway_set_aside_total"), "reason"), "set aside {{reason}}"),
            Query(
                total(rate("flagpost_gateway_times_not_believed_total"), "reason"), "not believed {{reason}}"
            ),
            Query(
                seen(total(rate("flagpost_gateway_webhooks_total"), "event_type", "outcome")),
                "webhook {{event_type}} {{outcome}}",
            ),
        ),
    ),
)

KEYS = Row(
    "Gateway: by write key",
    (
        stack(
            "Events by key",
            "Events by the name of the key that they came with. refused: answered 503.",
            "ops",
            ANY,
            Query(
                seen(total(rate("flagpost_gateway_key_events_total"), "key", "outcome")),
                "{{key}} {{outcome}}",
            ),
        ),
        stack(
            "Requests beyond a key's rate",
            "Answered 429, by key: see gateway.keys.",
            "reqps",
            ANY,
            Query(seen(total(rate("flagpost_gateway_key_limited_total"), "key")), "{{key}}"),
            runbook="FlagpostGatewayRefusing",
        ),
        graph(
            "Files of keys that cannot be used",
            "Lines that can be no key or secret; 1 for a file that is empty or cannot be read.",
            "short",
            ANY,
            Query(series("flagpost_gateway_secrets_wrong"), "{{pod}} {{setting}}"),
            runbook="FlagpostGatewayKeysWrong",
        ),
    ),
)

LIMITS = Row(
    "Gateway: what it holds",
    (
        graph(
            "Records on their way to Kafka",
            "Each request waits for the acknowledgement of its own.",
            "short",
            ANY,
            Query(series("flagpost_gateway_kafka_queued"), "{{pod}}"),
            runbook="FlagpostGatewayUnavailable",
        ),
        graph(
            "Kafka's answers",
            "Records that Kafka acknowledged, and those that it did not take in time.",
            "ops",
            ANY,
            Query(total(rate("flagpost_gateway_kafka_acknowledged_total")), "acknowledged"),
            Query(total(rate("flagpost_gateway_kafka_failed_total")), "failed"),
            runbook="FlagpostGatewayUnavailable",
        ),
        graph(
            "Requests worked on",
            "Of each gateway at most 1,000 at once; the next are answered 503.",
            "none",
            bad_from(800, 1000),
            Query(series("flagpost_gateway_requests_in_flight"), "{{pod}}"),
            runbook="FlagpostGatewayUnavailable",
        ),
        graph(
            "Bytes",
            "Bodies in memory (at most 30 MiB in each gateway), records on their way to Kafka, and bodies "
            "read a second.",
            "bytes",
            ANY,
            Query(total(series("flagpost_gateway_body_bytes_in_flight")), "bodies in memory"),
            Query(total(series("flagpost_gateway_kafka_queued_bytes")), "on their way"),
            Query(total(rate("flagpost_gateway_body_bytes_total")), "read a second"),
        ),
        graph(
            "Connections",
            "Open on the gateway's port, at most 900 in each. Of those that have shown no key, the oldest are "
            "dropped when there are many.",
            "none",
            bad_from(700, 900),
            Query(series("flagpost_gateway_connections"), "{{pod}}"),
            runbook="FlagpostGatewayRefusing",
        ),
        stack(
            "Connections dropped",
            "Before they had their answer. malformed: no HTTP request that is taken here. The others: strangers who "
            "were too slow or too many, or did not read their answers.",
            "ops",
            ANY,
            Query(
                seen(total(rate("flagpost_gateway_connections_dropped_total"), "port", "reason")),
                "{{port}} {{reason}}",
            ),
            runbook="FlagpostGatewayRefusing",
        ),
    ),
)

DASHBOARD = Dashboard(
    "publishers",
    "Publishers and gateway",
    "Events on their way to Kafka: from services with the library, and through the gateway.",
    (NOW, PUBLISHERS, GATEWAY, KEYS, LIMITS),
)
