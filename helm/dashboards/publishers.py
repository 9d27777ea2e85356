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
            "Events that publishers wrote to Kafka in the selected time range, in the chosen namespaces: "
            "services belong to no release.",
            total(gained("flagpost_publisher_delivered_total", of=SERVICES)),
            "short",
            ANY,
        ),
        stat(
            "Refused or failed",
            "Events that publishers could not publish in the selected time range. These events are lost; "
            "the applications continue.",
            f"{total(gained('flagpost_publisher_refused_total', of=SERVICES))}"
            f" + {total(gained('flagpost_publisher_failed_total', of=SERVICES))}",
            "none",
            NONE_AT_ALL,
            runbook="FlagpostPublisherRefusing",
        ),
        stat(
            "Accepted by the gateway",
            "Events from the gateway that Kafka acknowledged in the selected time range.",
            total(gained("flagpost_gateway_events_total", 'outcome="accepted"')),
            "short",
            ANY,
        ),
        stat(
            "Gateways with Kafka",
            "The share of gateways whose events Kafka accepts. The others answer 503.",
            f"avg({series('flagpost_gateway_kafka_up')})",
            "percentunit",
            good_from(0.5, 1),
            runbook="FlagpostGatewayUnavailable",
        ),
        stat(
            "Answers 5xx",
            "The share of the gateway's answers that are 5xx: Kafka does not accept events, or there are "
            "too many requests at once.",
            ratio(total(gained(REQUESTS, 'status=~"5.."')), total(gained(REQUESTS))),
            "percentunit",
            bad_from(0.001, 0.01),
            runbook="FlagpostGatewayUnavailable",
        ),
        stat(
            "Answers 4xx",
            "The share of the gateway's answers that are 4xx: the gateway cannot accept what a client sent.",
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
            "accepted: in Kafka, or on the way there. duplicates: need not be sent. refused and failed: "
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
            "Events on their way to Kafka, by pod. At the publisher's own queue_max_messages, further "
            "events are refused. If a queue only grows, Kafka accepts nothing.",
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
            "Requests a second. 202 and 200: Kafka has the events. 503: Kafka does not accept events; "
            "clients should retry.",
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
            "Events of well-formed requests, by type and outcome. refused: answered 503.",
            "ops",
            ANY,
            Query(total(rate("flagpost_gateway_events_total"), "type", "outcome"), "{{type}} {{outcome}}"),
            runbook="FlagpostGatewayUnavailable",
        ),
        stack(
            "Set aside, and webhooks",
            "Events that were accepted but are not for Pendo, by reason; and Pendo's webhooks, by whether "
            "they were published or seen before.",
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
            "Events by the name of the key that they were sent with. refused: answered 503.",
            "ops",
            ANY,
            Query(
                seen(total(rate("flagpost_gateway_key_events_total"), "key", "outcome")),
                "{{key}} {{outcome}}",
            ),
        ),
        stack(
            "Requests beyond a key's rate",
            "Requests answered 429 because their key is over its rate: see gateway.keys.",
            "reqps",
            ANY,
            Query(seen(total(rate("flagpost_gateway_key_limited_total"), "key")), "{{key}}"),
            runbook="FlagpostGatewayRefusing",
        ),
        graph(
            "Files of keys that cannot be used",
            "The number of lines that cannot be a key or secret; 1 for a file that is empty or cannot be "
            "read.",
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
            "Records that Kafka has not acknowledged yet. Each request waits for the acknowledgement of its "
            "records.",
            "short",
            ANY,
            Query(series("flagpost_gateway_kafka_queued"), "{{pod}}"),
            runbook="FlagpostGatewayUnavailable",
        ),
        graph(
            "Kafka's answers",
            "Records that Kafka acknowledged, and records that it did not accept in time.",
            "ops",
            ANY,
            Query(total(rate("flagpost_gateway_kafka_acknowledged_total")), "acknowledged"),
            Query(total(rate("flagpost_gateway_kafka_failed_total")), "failed"),
            runbook="FlagpostGatewayUnavailable",
        ),
        graph(
            "Requests in flight",
            "Requests in flight. Each gateway takes at most 1,000 at once and answers further ones with 503.",
            "none",
            bad_from(800, 1000),
            Query(series("flagpost_gateway_requests_in_flight"), "{{pod}}"),
            runbook="FlagpostGatewayUnavailable",
        ),
        graph(
            "Bytes",
            "Bodies in memory (at most 30 MiB in each gateway), records on their way to Kafka, and bytes of "
            "bodies read a second.",
            "bytes",
            ANY,
            Query(total(series("flagpost_gateway_body_bytes_in_flight")), "bodies in memory"),
            Query(total(series("flagpost_gateway_kafka_queued_bytes")), "on their way"),
            Query(total(rate("flagpost_gateway_body_bytes_total")), "read a second"),
        ),
        graph(
            "Connections",
            "Open connections on the gateway's port, at most 900 in each gateway. If there are many, the "
            "gateway drops the oldest of those that have sent no valid key.",
            "none",
            bad_from(700, 900),
            Query(series("flagpost_gateway_connections"), "{{pod}}"),
            runbook="FlagpostGatewayRefusing",
        ),
        stack(
            "Connections dropped",
            "Connections that ended before they got an answer. malformed: not an HTTP request that the "
            "gateway accepts. The other reasons: clients without a key that were too slow or too many, or "
            "did not read their answers.",
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
