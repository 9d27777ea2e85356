"""What is around the pods: the gateway's way in, the network, monitoring, the notes."""

from __future__ import annotations

import json
from typing import Any

import pytest
import yaml

from helm.rendering import CHART, LONGEST_RELEASE_NAME, NAMESPACE, Object, rendered, rendered_set

RULE_FILES = sorted((CHART / "alerts").glob("*.yaml"))
DASHBOARDS = sorted((CHART / "dashboards").glob("*.json"))
RUNBOOKS = "https://git.example.com/flagpost/docs/runbooks/"
"""As values/monitoring.yaml has it."""


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


def test_without_a_gateway_there_is_nothing_of_it() -> None:
    ingress = {"enabled": True, "hosts": ["events.example.com"]}
    release = rendered({"gateway": {"ingress": ingress}, "networkPolicy": {"enabled": True}})
    components = {each["metadata"]["labels"].get("app.kubernetes.io/component") for each in release.objects}
    assert components == {None, "consumer", "check"}


def test_the_network_policy_allows_what_is_needed() -> None:
    release = rendered_set("networkpolicy")
    consumer, gateway = (release.one("NetworkPolicy", name)["spec"] for name in ("consumer", "gateway"))
    kafka_and_registry = {("TCP", port) for port in (9092, 9192, 8085)}
    names = {("UDP", 53), ("TCP", 53)}
    proxy = {("TCP", 3128)}
    assert _ports(consumer["egress"]) == kafka_and_registry | names | proxy | {("TCP", 443)}
    assert _ports(gateway["egress"]) == kafka_and_registry | names | proxy
    assert _ports(consumer["ingress"]) == {("TCP", "admin")}
    assert _ports(gateway["ingress"]) == {("TCP", "admin"), ("TCP", "http")}
    peers = {rule["ports"][0]["port"]: _peer(rule) for rule in gateway["ingress"]}
    assert peers == {"admin": "monitoring", "http": "ingress"}
    assert {each["policyTypes"] == ["Ingress", "Egress"] for each in (consumer, gateway)} == {True}
    (expression,) = consumer["podSelector"]["matchExpressions"]
    assert expression == {
        "key": "app.kubernetes.io/component",
        "operator": "In",
        "values": ["consumer", "check", "reconcile"],
    }


@pytest.mark.parametrize(
    ("config", "ports"),
    [
        ({"pendo": {"track_url": "http://relay:8000/track", "api_url": "https://relay"}}, {9092, 8000, 443}),
        ({"kafka": {"schema_registry": {"url": "http://registry"}}}, {9092, 80, 443}),
        ({"kafka": {"bootstrap_servers": "[fd00::1]:9095,b:9096"}}, {9095, 9096, 443}),
    ],
)
def test_the_network_policy_follows_the_settings(config: dict[str, Any], ports: set[int]) -> None:
    policy = rendered({"config": config, "networkPolicy": {"enabled": True}}).one("NetworkPolicy")
    assert {port for protocol, port in _ports(policy["spec"]["egress"]) if protocol == "TCP"} == {53, *ports}
    other = {"networkPolicy": {"enabled": True, "kafkaPorts": [9099]}}
    assert ("TCP", 9099) in _ports(rendered(other).one("NetworkPolicy")["spec"]["egress"])


def test_pods_are_scraped_with_the_label_that_rules_go_by() -> None:
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


def test_every_rule_is_loaded_as_it_is_but_for_the_runbooks_place() -> None:
    assert RULE_FILES
    loaded = rendered_set("monitoring").one("PrometheusRule")["spec"]["groups"]
    texts = (path.read_text().replace("docs/runbooks/", RUNBOOKS) for path in RULE_FILES)
    assert loaded == [group for text in texts for group in yaml.safe_load(text)["groups"]]


def test_every_dashboard_is_there_for_the_sidecar() -> None:
    assert DASHBOARDS
    found = {
        name: (each["metadata"], json.loads(text))
        for each in rendered_set("monitoring").all_of("ConfigMap")
        for name, text in each["data"].items()
        if name.endswith(".json")
    }
    assert found.keys() == {path.name for path in DASHBOARDS}
    for path in DASHBOARDS:
        metadata, dashboard = found[path.name]
        assert metadata["namespace"] == "monitoring"
        assert metadata["labels"]["grafana_dashboard"] == "1"
        assert dashboard == json.loads(path.read_text().replace("docs/runbooks/", RUNBOOKS))


def test_nothing_of_monitoring_unless_asked_for() -> None:
    kinds = {each["kind"] for each in rendered_set("default").objects}
    assert kinds == {"ConfigMap", "Deployment", "PodDisruptionBudget", "Pod", "ServiceAccount"}


def test_objects_are_in_the_releases_namespace_and_bear_its_name() -> None:
    release = rendered_set("long-release-name")
    for each in release.objects:
        assert each["metadata"]["namespace"] == NAMESPACE
        assert each["metadata"]["labels"]["app.kubernetes.io/instance"] == LONGEST_RELEASE_NAME
    names = {each["metadata"]["name"] for each in rendered_set("everything").all_of("Deployment")}
    assert names == {"fp-consumer", "fp-gateway"}


def test_notes_say_what_to_do_next() -> None:
    notes = rendered_set("default").notes
    assert "create secret generic flagpost" in notes
    for key in ("track-secret", "integration-key"):
        assert f"--from-file={key}=FILE" in notes
    for command in (
        "rollout status deployment/flagpost-consumer",
        "test flagpost --logs",
        "flagpost reconcile",
    ):
        assert command in notes
    assert "podMonitor" in notes


def test_notes_fit_the_values() -> None:
    inline, gateway = rendered_set("inline-secrets").notes, rendered_set("gateway").notes
    assert "create secret" not in inline
    assert "secrets.inline is for trials" in inline
    assert "http://flagpost-gateway.tracking:80/v1/events" in inline
    assert "https://events.example.com/v1/events" in gateway
    assert "--from-file=webhook-secret=FILE" in gateway
    assert "podMonitor" not in rendered_set("monitoring").notes


def _ports(rules: list[Object]) -> set[tuple[str, object]]:
    return {(port["protocol"], port["port"]) for rule in rules for port in rule["ports"]}


def _peer(rule: Object) -> str:
    (peer,) = rule["from"]
    namespace: str = peer["namespaceSelector"]["matchLabels"]["kubernetes.io/metadata.name"]
    return namespace
