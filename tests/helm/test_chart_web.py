"""The web page in the chart: who can reach it, what it connects to, and that it is absent by default."""

from __future__ import annotations

import json
from typing import Any

import pytest

from flagpost_consumer.settings import WebSettings
from helm.rendering import Object, Refused, Rendered, rendered, rendered_set


def environment(container: Object) -> dict[str, Any]:
    return {each["name"]: each.get("value") for each in container["env"]}


def policy(release: Rendered, component: str) -> Any:
    (found,) = [
        each["spec"]
        for each in release.all_of("NetworkPolicy")
        if each["spec"]["podSelector"]["matchLabels"]["app.kubernetes.io/component"] == component
    ]
    return found


def test_the_page_is_absent_by_default() -> None:
    release = rendered_set("default")
    assert not any("web" in name or "consumers" in name for name, _ in release.templates())
    assert not any(each["metadata"]["name"].endswith("-consumers") for each in release.all_of("Service"))


def test_the_page_serves_its_own_hosts_and_asks_every_consumer() -> None:
    release = rendered_set("web")
    container = release.container("web")
    assert container["command"] == ["flagpost", "web"]
    variables = environment(container)
    assert variables["FLAGPOST_WEB__HOST"] == "0.0.0.0"  # noqa: S104 - in a pod
    assert "flags.example.com" in json.loads(variables["FLAGPOST_WEB__HOSTS"])
    assert "flagpost-web" in json.loads(variables["FLAGPOST_WEB__HOSTS"])
    assert json.loads(variables["FLAGPOST_WEB__CONSUMERS"]) == ["http://flagpost-consumers:8080"]
    assert variables["FLAGPOST_WEB__TOKEN_FILE"] == "/run/secrets/flagpost/web.token"
    assert "FLAGPOST_PENDO__TRACK_SECRET_FILE" not in variables
    probes = {"startupProbe": "/livez", "livenessProbe": "/livez", "readinessProbe": "/readyz"}
    for probe, path in probes.items():
        assert container[probe]["httpGet"] == {"path": path, "port": "web"}
    needed = WebSettings().max_bytes + 256 * 2**20
    assert container["resources"]["limits"]["memory"] == f"{needed // 2**20}Mi"
    consumers = release.one("Service", "consumers")["spec"]
    assert (consumers["clusterIP"], consumers["publishNotReadyAddresses"]) == ("None", True)
    ingress = release.one("Ingress", "web")["spec"]["rules"]
    assert [rule["host"] for rule in ingress] == ["flags.example.com"]


def test_only_the_page_has_the_token() -> None:
    release = rendered_set("web")
    assert "FLAGPOST_WEB__TOKEN_FILE" not in environment(release.container("consumer"))
    inline = {"consumer": {"track-secret": "x", "integration-key": "y"}}
    secrets = {"inline": inline, "consumer": {"webToken": "web-token"}}
    with pytest.raises(Refused, match="lacks web-token"):
        rendered({"secrets": secrets, "web": {"enabled": True}})


def test_only_named_peers_reach_the_page_and_it_reaches_kafka_and_the_consumers() -> None:
    release = rendered_set("web")
    web, consumer = policy(release, "web"), policy(release, "consumer")
    (way_in,) = web["ingress"]
    assert way_in["ports"][0]["port"] == "web"
    assert "ingress-nginx" in json.dumps(way_in["from"])
    ways_out = {port["port"] for rule in web["egress"] for port in rule["ports"]}
    assert {9092, 8080} <= ways_out
    assert 443 not in ways_out
    lets_in = json.dumps(consumer["ingress"])
    assert '"app.kubernetes.io/component": "web"' in lets_in
    assert "component" not in json.dumps(policy(rendered_set("default"), "consumer")["ingress"])


def test_with_a_login_sidecar_only_the_login_can_be_reached() -> None:
    release = rendered_set("web-sidecar")
    assert release.one("Service", "web")["spec"]["ports"][0]["targetPort"] == "login"
    (way_in,) = policy(release, "web")["ingress"]
    assert [port["port"] for port in way_in["ports"]] == ["login"]
    assert "FLAGPOST_WEB__HOSTS" not in environment(release.container("web"))


def test_an_ingress_without_hosts_is_refused() -> None:
    with pytest.raises(Refused, match=r"web\.ingress\.hosts is required"):
        rendered({"web": {"enabled": True, "ingress": {"enabled": True}}})
