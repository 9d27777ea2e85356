"""The chart's life on a real API server: installed, upgraded, rolled back, uninstalled; and what it refuses.

`make cluster-test` runs this file. `make test` does not collect it (its name does not begin with test_), because
building the server takes minutes. Without Go or openssl it is skipped, or fails if CI is set, and names the tool.
"""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from cluster import cluster_parts
from cluster.api_server import ApiServer, Refused, running_api_server
from helm.missing_tools import do_without

pytestmark = pytest.mark.timeout(3 * cluster_parts.BUILD_SECONDS)

TESTS: Final = Path(__file__).parents[1]
CHART: Final = TESTS.parent / "helm" / "flagpost"
VALUE_SETS: Final = sorted((TESTS / "helm" / "values").glob("*.yaml"))
DEFINITIONS: Final = sorted((TESTS / "helm" / "schemas").glob("*.yaml"))
HELM_SECONDS: Final = 120
DEFINED_SECONDS: Final = 60
PAUSE_SECONDS: Final = 0.1
NAMESPACE: Final = "tracking"
RESTRICTED: Final = {"pod-security.kubernetes.io/enforce": "restricted"}

DEPLOYMENT: Final = f"/apis/apps/v1/namespaces/{NAMESPACE}/deployments/flagpost-consumer"
PODS_TRIED: Final = f"/api/v1/namespaces/{NAMESPACE}/pods?dryRun=All&fieldValidation=Strict"
KINDS: Final = {
    "ConfigMap": f"/api/v1/namespaces/{NAMESPACE}/configmaps",
    "CronJob": f"/apis/batch/v1/namespaces/{NAMESPACE}/cronjobs",
    "Deployment": f"/apis/apps/v1/namespaces/{NAMESPACE}/deployments",
    "Ingress": f"/apis/networking.k8s.io/v1/namespaces/{NAMESPACE}/ingresses",
    "Job": f"/apis/batch/v1/namespaces/{NAMESPACE}/jobs",
    "NetworkPolicy": f"/apis/networking.k8s.io/v1/namespaces/{NAMESPACE}/networkpolicies",
    "PodDisruptionBudget": f"/apis/policy/v1/namespaces/{NAMESPACE}/poddisruptionbudgets",
    "PodMonitor": f"/apis/monitoring.coreos.com/v1/namespaces/{NAMESPACE}/podmonitors",
    "PrometheusRule": f"/apis/monitoring.coreos.com/v1/namespaces/{NAMESPACE}/prometheusrules",
    "ScaledObject": f"/apis/keda.sh/v1alpha1/namespaces/{NAMESPACE}/scaledobjects",
    "Service": f"/api/v1/namespaces/{NAMESPACE}/services",
    "ServiceAccount": f"/api/v1/namespaces/{NAMESPACE}/serviceaccounts",
}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiServer]:
    """A server that knows KEDA's and the Prometheus operator's kinds, with namespaces for restricted pods only."""
    missing = cluster_parts.missing()
    if missing is not None:
        do_without(missing, "install it, the API server is built here")
    with running_api_server(tmp_path_factory.mktemp("cluster")) as running:
        for path in DEFINITIONS:
            _define(running, yaml.safe_load(path.read_text()))
        for name in (NAMESPACE, "monitoring"):
            running.post("/api/v1/namespaces", {"metadata": {"name": name, "labels": RESTRICTED}})
        for name in ("default", "shared"):  # a controller would create the first one
            running.post(KINDS["ServiceAccount"], {"metadata": {"name": name}})
        running.post("/apis/scheduling.k8s.io/v1/priorityclasses", {"metadata": {"name": "high"}, "value": 1})
        yield running


def test_install_upgrade_roll_back_uninstall(server: ApiServer) -> None:
    everything = str(TESTS / "helm" / "values" / "everything.yaml")
    _helm(server, "install", "flagpost", str(CHART), "--set", "config.dedupe.ttl_seconds=60")
    first = server.get(DEPLOYMENT)
    assert _settings(server, "flagpost")["dedupe"] == {"ttl_seconds": 60}

    _helm(server, "upgrade", "flagpost", str(CHART), "--values", everything, "--set", "fullnameOverride=")
    second = server.get(DEPLOYMENT)
    assert _checksum(second) != _checksum(first)
    assert second["metadata"]["uid"] == first["metadata"]["uid"], "it was replaced, not changed"
    for kind, path in KINDS.items():
        assert server.names(path), f"no {kind}"

    _helm(server, "rollback", "flagpost", "1")
    third = server.get(DEPLOYMENT)
    assert third["spec"]["template"] == first["spec"]["template"]
    assert _settings(server, "flagpost")["dedupe"] == {"ttl_seconds": 60}
    assert server.names(KINDS["ScaledObject"]) == []
    assert "deployed" in _helm(server, "status", "flagpost")

    _helm(server, "uninstall", "flagpost")
    left = {kind: names for kind, path in KINDS.items() if (names := server.names(path))}
    assert left == {"ServiceAccount": ["default", "shared"]}


@pytest.mark.parametrize("values", VALUE_SETS, ids=lambda path: path.stem)
def test_every_set_of_values_is_installed_and_its_pods_admitted(server: ApiServer, values: Path) -> None:
    """A field that the server does not know would be refused: Helm uses strict validation."""
    _helm(server, "install", "release", str(CHART), "--values", str(values))
    try:
        templates = [each["spec"]["template"] for each in server.get(KINDS["Deployment"])["items"]]
        for pod in [*templates, yaml.safe_load(_helm(server, "get", "hooks", "release"))]:
            metadata = {"name": "try", "labels": pod["metadata"]["labels"]}
            admitted = server.post(PODS_TRIED, {"metadata": metadata, "spec": pod["spec"]})
            assert admitted["spec"]["containers"]
    finally:
        _helm(server, "uninstall", "release")


def test_the_server_does_refuse(server: ApiServer) -> None:
    """The check itself works: a pod that may become root is refused, and so is a field that KEDA does not have."""
    container = {"name": "it", "image": "it"}
    with pytest.raises(Refused, match="violates PodSecurity"):
        server.post(PODS_TRIED, {"metadata": {"name": "root"}, "spec": {"containers": [container]}})
    scaled = {"scaleTargetRef": {"name": "it"}, "triggers": [], "maxReplicas": 3}
    with pytest.raises(Refused, match="maxReplicas"):
        server.post(
            f"{KINDS['ScaledObject']}?fieldValidation=Strict",
            {
                "apiVersion": "keda.sh/v1alpha1",
                "kind": "ScaledObject",
                "metadata": {"name": "it"},
                "spec": scaled,
            },
        )


def _define(server: ApiServer, definition: dict[str, Any]) -> None:
    """Create a custom resource definition, and wait until the server serves it."""
    at = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
    server.post(at, definition)
    name = definition["metadata"]["name"]
    deadline = time.monotonic() + DEFINED_SECONDS
    while not _is_established(server.get(f"{at}/{name}")):
        assert time.monotonic() < deadline, f"{name} is not served after {DEFINED_SECONDS} s"
        time.sleep(PAUSE_SECONDS)


def _is_established(definition: dict[str, Any]) -> bool:
    conditions = definition.get("status", {}).get("conditions", ())
    return any((each["type"], each["status"]) == ("Established", "True") for each in conditions)


def _helm(server: ApiServer, *arguments: str) -> str:
    done = subprocess.run(
        [str(cluster_parts.helm()), "--namespace", NAMESPACE, *arguments],
        env={**os.environ, "KUBECONFIG": str(server.kubeconfig), "HELM_NAMESPACE": NAMESPACE},
        capture_output=True,
        text=True,
        timeout=HELM_SECONDS,
        check=False,
    )
    assert done.returncode == 0, f"helm {' '.join(arguments)}:\n{done.stdout}{done.stderr}"
    return done.stdout


def _checksum(deployment: dict[str, Any]) -> str:
    checksum: str = deployment["spec"]["template"]["metadata"]["annotations"]["checksum/config"]
    return checksum


def _settings(server: ApiServer, name: str) -> Any:
    return yaml.safe_load(server.get(f"{KINDS['ConfigMap']}/{name}")["data"]["flagpost.yaml"])
