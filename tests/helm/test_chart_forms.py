"""Every set of values renders objects that the API server would accept; wrong values are refused by name."""

from __future__ import annotations

from typing import Any

import pytest

from helm.api_schemas import require_valid
from helm.rendering import Object, Refused, complaints, rendered, rendered_set, value_sets, values_of

SETS = value_sets()

REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"replicaCount": 3}, "replicaCount"),
    ({"image": {"name": "flagpost"}}, "'name'"),
    ({"consumer": {"replica": 3}}, "'replica'"),
    ({"consumer": {"autoscaling": {"keda": {"threshold": 5}}}}, "'threshold'"),
    ({"gateway": {"ingress": {"host": "a.example.com"}}}, "'host'"),
    ({"secrets": {"pendoKey": "x"}}, "'pendoKey'"),
    ({"topics": {"partition": 12}}, "'partition'"),
    ({"networkPolicy": {"enable": True}}, "'enable'"),
    ({"config": {"kafak": {}}}, "'kafak'"),
    ({"consumer": {"replicas": "two"}}, "/consumer/replicas"),
    ({"image": {"digest": "sha256:short"}}, "/image/digest"),
    ({"consumer": {"autoscaling": {"kind": "both"}}}, "/consumer/autoscaling/kind"),
    ({"consumer": {"autoscaling": {"kind": "keda", "minReplicas": 0}}}, "/consumer/autoscaling/minReplicas"),
    ({"enabled": False}, "enabled is false"),
    ({"commonLabels": {"team": "on call"}}, "/commonLabels/team"),
    ({"commonLabels": {"team": 7}}, "/commonLabels/team"),
    ({"nameOverride": "4711"}, "/nameOverride"),
    ({"fullnameOverride": "dotted.name"}, "/fullnameOverride"),
    ({"runbookBaseUrl": "docs/runbooks/"}, "/runbookBaseUrl"),
    ({"consumer": {"livenessProbe": {"httpGet": {}}}}, "/consumer/livenessProbe"),
    ({"networkPolicy": {"metricsFrom": [{"namespace": "monitoring"}]}}, "/networkPolicy/metricsFrom/0"),
    ({"consumer": {"replicas": 25}}, "consumer.replicas is 25 and topics.partitions 24"),
    ({"consumer": {"autoscaling": {"kind": "hpa", "maxReplicas": 25}}}, "maxReplicas is 25"),
    ({"consumer": {"autoscaling": {"kind": "keda"}}}, "keda.serverAddress is required"),
    (
        {"consumer": {"autoscaling": {"kind": "hpa", "minReplicas": 13}}},
        "minReplicas is 13 and maxReplicas 12",
    ),
    (
        {"consumer": {"autoscaling": {"kind": "hpa", "keda": {"fallbackReplicas": 13}}}},
        "fallbackReplicas is 13",
    ),
    ({"gateway": {"autoscaling": {"enabled": True, "minReplicas": 9}}}, "minReplicas is 9 and maxReplicas 8"),
    (
        {"networkPolicy": {"enabled": False}, "gateway": {"enabled": True, "ingress": {"enabled": True}}},
        "gateway.ingress.hosts is required",
    ),
    ({"gateway": {"enabled": True, "service": {"type": "NodePort"}}}, "networkPolicy.gatewayFrom is empty"),
    (
        {"secrets": {"consumer": {"existingSecret": "a"}, "inline": {"consumer": {"b": "c"}}}},
        "secrets.consumer.existingSecret and secrets.inline.consumer",
    ),
    (
        {"secrets": {"inline": {"consumer": {"track-secret": "x"}}}},
        "secrets.inline.consumer lacks integration-key",
    ),
    ({"secrets": {"inline": {"gatway": {}}}}, "'gatway'"),
]


@pytest.mark.parametrize("name", SETS)
def test_the_api_server_would_accept_the_objects(name: str) -> None:
    objects = rendered_set(name).objects
    assert objects
    for each in objects:
        require_valid(each)


@pytest.mark.parametrize("name", SETS)
def test_helms_linter_finds_nothing(name: str) -> None:
    assert complaints(values_of(name)) == []


@pytest.mark.parametrize("name", SETS)
def test_objects_refer_only_to_objects_of_the_release(name: str) -> None:
    release = rendered_set(name)
    templates = dict(release.templates())
    for kind in ("HorizontalPodAutoscaler", "ScaledObject"):
        for scaler in release.all_of(kind):
            assert scaler["spec"]["scaleTargetRef"]["name"] in templates
    for selector in _selectors(release.objects):
        chosen = [pod for pod in templates.values() if selector.items() <= pod["metadata"]["labels"].items()]
        assert chosen, f"{selector} selects nothing"
    for backend in _backends(release.objects):
        (service,) = [
            each for each in release.all_of("Service") if each["metadata"]["name"] == backend["name"]
        ]
        assert backend["port"]["name"] in {port["name"] for port in service["spec"]["ports"]}


@pytest.mark.parametrize(("values", "told"), REFUSED, ids=[told for _, told in REFUSED])
def test_wrong_values_are_refused_by_name(values: dict[str, Any], told: str) -> None:
    with pytest.raises(Refused) as refusal:
        rendered(values)
    assert told in str(refusal.value)


def test_an_unknown_field_is_refused() -> None:
    """The check itself finds an unknown field, in Kubernetes' own kinds and in others."""
    release = rendered_set("everything")
    for kind in ("ScaledObject", "PodMonitor", "PrometheusRule", "Deployment"):
        found = release.all_of(kind)[0]
        with pytest.raises(Exception, match="unheardOf"):
            require_valid({**found, "spec": {**found["spec"], "unheardOf": 1}})


def _selectors(objects: tuple[Object, ...]) -> list[dict[str, str]]:
    services = [each["spec"]["selector"] for each in objects if each["kind"] == "Service"]
    others = [
        each["spec"][key]["matchLabels"]
        for each in objects
        for key in ("selector", "podSelector")
        if each["kind"] in ("Deployment", "PodDisruptionBudget", "PodMonitor", "NetworkPolicy")
        and key in each["spec"]
    ]
    return services + others


def _backends(objects: tuple[Object, ...]) -> list[Object]:
    return [
        path["backend"]["service"]
        for each in objects
        if each["kind"] == "Ingress"
        for rule in each["spec"]["rules"]
        for path in rule["http"]["paths"]
    ]
