"""The objects around the pods: the gateway's Service and Ingress, network policies, monitoring, and the notes."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
import yaml

from helm.rendering import CHART, ROOT, Object, Rendered, rendered, rendered_set, value_sets

RULE_FILES = sorted((CHART / "alerts").glob("*.yaml"))
DASHBOARDS = sorted((CHART / "dashboards").glob("*.json"))
NAMES = {("UDP", 53), ("TCP", 53)}
KAFKA = ("TCP", 9092)
RUNBOOKS = "https://git.example.com/flagpost/docs/runbooks/"
"""The address in values/monitoring.yaml."""


def test_requests_reach_the_gateway_and_nothing_reaches_its_admin_port() -> None:
    release = rendered_set("gateway")
    (port,) = release.one("Service")["spec"]["ports"]
    assert (port["port"], port["targetPort"]) == (80, "http")
    spec = release.one("Ingress")["spec"]
    assert spec["ingressClassName"] == "nginx"
    assert spec["tls"] == [{"secretName": "events-tls", "hosts": ["events.example.com"]}]
    (rule,) = spec["rules"]
    (path,) = rule["http"]["paths"]
    assert (rule["host"], path["path"], path["pathType"]) == ("events.example.com", "/v1/", "Prefix")


def test_without_a_gateway_there_are_no_objects_of_it() -> None:
    ingress = {"enabled": True, "hosts": ["events.example.com"]}
    release = rendered({"gateway": {"ingress": ingress}})
    components = {each["metadata"]["labels"].get("app.kubernetes.io/component") for each in release.objects}
    assert components == {None, "consumer", "check", "topics"}


@pytest.mark.parametrize("name", [name for name in value_sets() if name != "no-networkpolicy"])
def test_every_pod_has_a_network_policy_for_both_directions(name: str) -> None:
    release = rendered_set(name)
    ruled = _policies(release)
    assert ruled.keys() == {component for component, _ in release.pods()}
    for spec in ruled.values():
        assert spec["policyTypes"] == ["Ingress", "Egress"]
        assert all(rule["from"] and rule["ports"] for rule in spec.get("ingress", ())), "anybody may come in"
        assert all(rule["ports"] for rule in spec["egress"])


def test_network_policies_can_be_disabled() -> None:
    assert rendered_set("no-networkpolicy").all_of("NetworkPolicy") == []


def test_the_network_policy_is_narrow_by_default() -> None:
    policies = _policies(rendered({"gateway": {"enabled": True}, "reconcile": {"schedule": "@daily"}}))
    prometheus = {
        "namespaceSelector": {},
        "podSelector": {"matchLabels": {"app.kubernetes.io/name": "prometheus"}},
    }
    own_namespace: Object = {"podSelector": {}}
    assert _let_in(policies["consumer"]) == {"admin": [prometheus]}
    assert _let_in(policies["gateway"]) == {"admin": [prometheus], "http": [own_namespace]}
    for component in ("topics", "reconcile", "check"):
        assert _let_in(policies[component]) == {}
    assert all(_ports(policies[c]["egress"]) == {*NAMES, KAFKA} for c in ("gateway", "topics", "reconcile"))
    for component in ("consumer", "check"):
        *others, pendo = policies[component]["egress"]
        assert _ports(others) == {*NAMES, KAFKA}
        assert _ports([pendo]) == {("TCP", 443)}
        blocks = [peer["ipBlock"] for peer in pendo["to"]]
        assert [block["cidr"] for block in blocks] == ["0.0.0.0/0", "::/0"]
        assert {"10.0.0.0/8", "169.254.0.0/16", "fc00::/7"} <= {
            each for block in blocks for each in block["except"]
        }
    for spec in policies.values():
        assert all("to" in rule for rule in spec["egress"] if _ports([rule]) == NAMES)


def test_the_network_policy_allows_what_is_named() -> None:
    policies = _policies(rendered_set("networkpolicy"))
    kafka = {("TCP", 9092), ("TCP", 9192)}
    registry, proxy, tracing = ("TCP", 8085), ("TCP", 3128), ("TCP", 4317)
    assert _ports(policies["consumer"]["egress"]) == {*kafka, *NAMES, registry, proxy, tracing}
    assert _ports(policies["gateway"]["egress"]) == {*kafka, *NAMES, registry, tracing}
    assert _ports(policies["topics"]["egress"]) == {*kafka, *NAMES, tracing}
    peers = {
        port: _namespace(rule["to"])
        for rule in policies["consumer"]["egress"]
        for _, port in _ports([rule])
        if "to" in rule
    }
    assert peers.items() >= {9092: "kafka", 9192: "kafka", 8085: "kafka", 3128: "egress"}.items()
    assert {port: _namespace(peers) for port, peers in _let_in(policies["gateway"]).items()} == {
        "admin": "monitoring",
        "http": "ingress",
    }


def test_with_an_empty_metrics_from_nobody_may_scrape() -> None:
    assert _let_in(_policies(rendered({"networkPolicy": {"metricsFrom": []}}))["consumer"]) == {}


@pytest.mark.parametrize(
    ("config", "ports"),
    [
        (
            {"pendo": {"track_url": "http://localhost:8000/track", "api_url": "https://relay"}},
            {9092, 8000, 443},
        ),
        ({"kafka": {"schema_registry": {"url": "http://registry"}}}, {9092, 80, 443}),
        ({"kafka": {"bootstrap_servers": "[fd00::1]:9095,b:9096, c"}}, {9095, 9096, 9092, 443}),
        ({"pendo": {"proxy": "none"}}, {9092, 443}),
    ],
)
def test_the_network_policy_follows_the_settings(config: dict[str, Any], ports: set[int]) -> None:
    policy = _policies(rendered({"config": config}))["consumer"]
    assert {port for protocol, port in _ports(policy["egress"]) if protocol == "TCP"} == {53, *ports}
    other = {"networkPolicy": {"kafkaPorts": [9099]}}
    assert ("TCP", 9099) in _ports(_policies(rendered(other))["consumer"]["egress"])


def test_pods_are_scraped_with_the_label_that_rules_use() -> None:
    release = rendered_set("monitoring")
    monitor = release.one("PodMonitor")
    assert monitor["metadata"]["labels"]["release"] == "kube-prometheus-stack"
    (endpoint,) = monitor["spec"]["podMetricsEndpoints"]
    ports = {port["name"] for port in release.container("consumer")["ports"]}
    assert endpoint["port"] in ports
    assert (endpoint["path"], endpoint["interval"]) == ("/metrics", "30s")
    assert endpoint["relabelings"] == [
        {"sourceLabels": ["__meta_kubernetes_pod_label_app_kubernetes_io_instance"], "targetLabel": "release"}
    ]


def test_every_rule_is_loaded_as_it_is() -> None:
    assert RULE_FILES
    loaded = rendered_set("scaled-gateway").one("PrometheusRule")["spec"]["groups"]
    assert loaded == [group for path in RULE_FILES for group in yaml.safe_load(path.read_text())["groups"]]


def test_alerts_link_to_runbooks_if_their_address_is_set() -> None:
    """A link that leads nowhere is worse than none."""
    groups = rendered_set("monitoring").one("PrometheusRule")["spec"]["groups"]
    alerts = [rule for group in groups for rule in group["rules"] if "alert" in rule]
    assert {rule["annotations"]["runbook_url"] for rule in alerts} == {
        f"{RUNBOOKS}{path.name}" for path in (ROOT / "docs" / "runbooks").glob("Flagpost*.md")
    }
    for group in groups:
        for rule in group["rules"]:
            rule.get("annotations", {}).pop("runbook_url", None)
    assert groups == rendered_set("scaled-gateway").one("PrometheusRule")["spec"]["groups"]


def test_every_dashboard_is_there_for_the_sidecar() -> None:
    assert DASHBOARDS
    found = _dashboards("monitoring")
    assert found.keys() == {path.name for path in DASHBOARDS}
    for path in DASHBOARDS:
        metadata, dashboard = found[path.name]
        assert metadata["namespace"] == "monitoring"
        assert metadata["labels"]["grafana_dashboard"] == "1"
        own = json.loads(path.read_text())
        assert _dashboards("scaled-gateway")[path.name][1] == own
        *others, runbooks = dashboard["links"]
        assert others == own["links"]
        assert runbooks["url"] == f"{RUNBOOKS}README.md"
        for panel, linked in zip(own["panels"], dashboard["panels"], strict=True):
            urls = [
                f"{RUNBOOKS}{name}.md"
                for name in re.findall(r"Runbook: (\w+)\.", panel.get("description", ""))
            ]
            assert [link["url"] for link in linked.get("links", ())] == urls
            assert {**panel, "links": linked.get("links")} == {**linked, "links": linked.get("links")}


def test_there_are_no_monitoring_objects_by_default() -> None:
    kinds = {each["kind"] for each in rendered_set("default").objects}
    assert kinds == {
        "ConfigMap", "Deployment", "Job", "NetworkPolicy", "PodDisruptionBudget", "Pod", "ServiceAccount"
    }  # fmt: skip


def test_fullname_override_sets_the_objects_names() -> None:
    names = {each["metadata"]["name"] for each in rendered_set("everything").all_of("Deployment")}
    assert names == {"fp-consumer", "fp-gateway"}


def test_notes_say_what_to_do_next() -> None:
    notes = rendered_set("default").notes
    assert "create secret generic flagpost-consumer" in notes
    for key in ("track-secret", "integration-key"):
        assert f"--from-file={key}=FILE" in notes
    for command in (
        "rollout status deployment/flagpost-consumer",
        "test flagpost --logs",
        "flagpost reconcile",
    ):
        assert command in notes
    assert "podMonitor" in notes
    assert "image.digest" in notes
    assert "image.digest" not in rendered_set("image-digest").notes


def test_notes_fit_the_values() -> None:
    inline, gateway = rendered_set("inline-secrets").notes, rendered_set("gateway").notes
    assert "create secret" not in inline
    assert "secrets.inline is for trials" in inline
    assert "http://flagpost-gateway.tracking:80/v1/events" in inline
    assert "https://events.example.com/v1/events" in gateway
    assert "--from-file=webhook-secret=FILE" in gateway
    assert "podMonitor" not in rendered_set("monitoring").notes


def _dashboards(name: str) -> dict[str, tuple[Object, Any]]:
    return {
        file: (each["metadata"], json.loads(text))
        for each in rendered_set(name).all_of("ConfigMap")
        for file, text in each.get("data", {}).items()
        if file.endswith(".json")
    }


def _policies(release: Rendered) -> dict[str, Object]:
    """The specs of the network policies, by component."""
    return {
        each["spec"]["podSelector"]["matchLabels"]["app.kubernetes.io/component"]: each["spec"]
        for each in release.all_of("NetworkPolicy")
    }


def _let_in(spec: Object) -> dict[str, list[Object]]:
    return {rule["ports"][0]["port"]: rule["from"] for rule in spec.get("ingress", ())}


def _ports(rules: list[Object]) -> set[tuple[str, object]]:
    return {(port["protocol"], port["port"]) for rule in rules for port in rule["ports"]}


def _namespace(peers: list[Object]) -> object:
    return peers[0].get("namespaceSelector", {}).get("matchLabels", {}).get("kubernetes.io/metadata.name")
