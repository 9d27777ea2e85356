"""Pods: what they may do, how they start and stop, what restarts them, how many there are."""

from __future__ import annotations

from typing import Any

import pytest

from helm.rendering import VERSION, Object, Rendered, rendered, rendered_set, value_sets, values_of
from memory_floods import CHART_BYTES

SETS = value_sets()
IDENTITY = {"app.kubernetes.io/name": "flagpost", "app.kubernetes.io/instance": "flagpost"}


@pytest.mark.parametrize("name", SETS)
def test_pods_keep_the_restricted_standard_and_have_no_token(name: str) -> None:
    """The rules of https://kubernetes.io/docs/concepts/security/pod-security-standards/, and a read-only root."""
    for pod_name, pod in rendered_set(name).pods():
        assert pod["securityContext"]["runAsNonRoot"] is True, pod_name
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert pod["automountServiceAccountToken"] is False
        assert pod["enableServiceLinks"] is False
        assert not {"hostNetwork", "hostPID", "hostIPC"} & pod.keys()
        assert not any("hostPath" in volume for volume in pod["volumes"])
        for container in [*pod["containers"], *pod.get("initContainers", ())]:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }
            assert container["resources"]["requests"].keys() == {"cpu", "memory", "ephemeral-storage"}
            assert container["resources"]["limits"].keys() == {"memory", "ephemeral-storage"}


def test_service_account_gives_no_token_either() -> None:
    assert rendered_set("default").one("ServiceAccount")["automountServiceAccountToken"] is False
    release = rendered_set("existing-secrets")
    assert release.all_of("ServiceAccount") == []
    assert {pod["serviceAccountName"] for _, pod in release.pods()} == {"shared"}


@pytest.mark.parametrize(
    ("component", "command"), [("consumer", ["flagpost", "consume"]), ("gateway", ["flagpost-gateway"])]
)
def test_probes_ask_the_admin_port(component: str, command: list[str]) -> None:
    container = rendered_set("gateway").container(component)
    assert container["command"] == command
    asked = {key: value["httpGet"] for key, value in container.items() if key.endswith("Probe")}
    assert asked == {
        "startupProbe": {"path": "/livez", "port": "admin"},
        "livenessProbe": {"path": "/livez", "port": "admin"},
        "readinessProbe": {"path": "/readyz", "port": "admin"},
    }


def test_grace_grows_with_the_drain() -> None:
    assert _grace_seconds({}) == 35
    assert _grace_seconds({"delivery": {"drain_seconds": 0}}) == 15
    assert _grace_seconds({"delivery": {"drain_seconds": 90.5}}) == 106


def test_topics_are_made_by_a_job_unless_somebody_else_does() -> None:
    (topics,) = rendered_set("hpa").one("Job")["spec"]["template"]["spec"]["containers"]
    assert topics["command"] == ["flagpost", "topics", "create", "--partitions", "48", "--replication", "3"]
    assert "initContainers" not in rendered_set("hpa").pod_spec("consumer")
    assert rendered_set("image-digest").all_of("Job") == []


@pytest.mark.parametrize(
    "changed",
    [
        {"topics": {"partitions": 48}},
        {"image": {"tag": "9"}},
        {"config": {"kafka": {"topic": "other"}}},
        {"kafkaUsers": {"topics": {"properties": {"client.id": "topics"}}}},
    ],
)
def test_a_job_of_another_content_has_another_name(changed: dict[str, Any]) -> None:
    """A Job cannot be changed: with the same name, an upgrade would be refused."""
    before, after = rendered({}).one("Job"), rendered(changed).one("Job")
    assert before["metadata"]["name"] != after["metadata"]["name"]
    assert rendered({"consumer": {"replicas": 3}}).one("Job") == before


def test_memory_limits_are_those_of_the_memory_tests() -> None:
    """The memory tests keep each process within these limits (memory_floods.CHART_BYTES, the gateway's 256 MiB)."""
    release = rendered({"gateway": {"enabled": True}})
    limits = {
        name: pod["containers"][0]["resources"]["limits"]["memory"]
        for name, pod in release.pods()
        if name in ("consumer", "gateway")
    }
    assert limits == {"consumer": f"{CHART_BYTES // 2**20}Mi", "gateway": "256Mi"}


def test_reconcile_runs_on_schedule_and_is_not_retried() -> None:
    spec = rendered_set("everything").one("CronJob")["spec"]
    assert (spec["schedule"], spec["concurrencyPolicy"]) == ("17 * * * *", "Forbid")
    job = spec["jobTemplate"]["spec"]
    assert job["backoffLimit"] == 0
    assert job["template"]["spec"]["restartPolicy"] == "Never"
    (container,) = job["template"]["spec"]["containers"]
    assert container["command"] == ["flagpost", "reconcile", "--since", "2d"]


def test_only_settings_restart_pods() -> None:
    """A new secret restarts no pod, because mounted Secrets are read again; nor does a new version of the chart."""
    secret = {"track-secret": "one", "integration-key": "two"}
    before = rendered({"secrets": {"inline": {"consumer": secret}}})
    rotated = rendered({"secrets": {"inline": {"consumer": {**secret, "track-secret": "new"}}}})
    changed = rendered(
        {"secrets": {"inline": {"consumer": secret}}, "config": {"dedupe": {"ttl_seconds": 60}}}
    )
    assert rotated.one("Secret") != before.one("Secret")
    assert _template(rotated) == _template(before)
    assert _template(changed) != _template(before)
    assert "helm.sh/chart" not in _template(before)["metadata"]["labels"]


def test_secrets_are_whole_volumes_that_follow_a_rotation() -> None:
    for _, pod in rendered_set("everything").pods():
        mounts = [mount for each in pod["containers"] for mount in each["volumeMounts"]]
        assert all("subPath" not in mount for mount in mounts)
        assert all("valueFrom" not in variable for each in pod["containers"] for variable in each["env"])


def test_image_by_tag_digest_and_version_of_the_chart() -> None:
    assert rendered_set("default").container("consumer")["image"] == f"flagpost:{VERSION}"
    assert rendered({"image": {"tag": "9"}}).container("consumer")["image"] == "flagpost:9"
    digest = values_of("image-digest")["image"]["digest"]
    image = rendered_set("image-digest").container("consumer")["image"]
    assert image == f"registry.example.com/platform/flagpost@{digest}"


@pytest.mark.parametrize(
    ("shared", "image", "expected"),
    [
        ("mirror.example.com", {}, f"mirror.example.com/flagpost:{VERSION}"),
        (
            "mirror.example.com:5000/hub",
            {"registry": "a.example.com"},
            f"mirror.example.com:5000/hub/flagpost:{VERSION}",
        ),
        (
            "mirror.example.com",
            {"repository": "a.example.com/team/it"},
            f"mirror.example.com/team/it:{VERSION}",
        ),
        ("mirror.example.com", {"repository": "localhost/it"}, f"mirror.example.com/it:{VERSION}"),
        ("mirror.example.com", {"repository": "team/it.name"}, f"mirror.example.com/team/it.name:{VERSION}"),
        (None, {"registry": "a.example.com", "repository": "team/it"}, f"a.example.com/team/it:{VERSION}"),
        (None, {"repository": "a.example.com/team/it"}, f"a.example.com/team/it:{VERSION}"),
    ],
)
def test_the_global_image_registry_wins(shared: str | None, image: dict[str, Any], expected: str) -> None:
    release = rendered({"global": {"imageRegistry": shared}, "image": image})
    assert {pod["containers"][0]["image"] for _, pod in release.pods()} == {expected}


def test_placement_reaches_the_pods() -> None:
    pod = rendered_set("image-digest").pod_spec("consumer")
    given = values_of("image-digest")["consumer"]
    for key in ("nodeSelector", "tolerations", "affinity", "priorityClassName"):
        assert pod[key] == given[key]
    metadata = _template(rendered_set("image-digest"))["metadata"]
    assert metadata["annotations"].items() >= given["podAnnotations"].items()
    assert metadata["labels"].items() >= given["podLabels"].items()
    spread = {each["topologyKey"]: each["labelSelector"] for each in pod["topologySpreadConstraints"]}
    assert spread.keys() == {"topology.kubernetes.io/zone", "kubernetes.io/hostname"}
    for selector in spread.values():
        assert selector == {"matchLabels": {**IDENTITY, "app.kubernetes.io/component": "consumer"}}
    assert "topologySpreadConstraints" not in rendered({"consumer": {"topologyKeys": []}}).pod_spec(
        "consumer"
    )


@pytest.mark.parametrize("name", [name for name in SETS if name != "minimal"])
def test_evictions_are_limited_where_there_are_several_pods(name: str) -> None:
    release = rendered_set(name)
    budgets = {
        each["metadata"]["labels"]["app.kubernetes.io/component"]
        for each in release.all_of("PodDisruptionBudget")
    }
    deployments = {
        each["metadata"]["labels"]["app.kubernetes.io/component"]
        for each in release.all_of("Deployment")
        if each["spec"].get("replicas") != 1
    }
    assert budgets == deployments


@pytest.mark.parametrize(
    "values",
    [
        {"consumer": {"replicas": 1}},
        {"consumer": {"podDisruptionBudget": {"enabled": False}}},
        {"consumer": {"autoscaling": {"kind": "hpa", "minReplicas": 1}}},
    ],
)
def test_a_single_pod_has_no_disruption_budget(values: dict[str, Any]) -> None:
    assert rendered(values).all_of("PodDisruptionBudget") == []


def test_hpa_scales_on_the_backlog_that_more_pods_can_send() -> None:
    release = rendered_set("hpa")
    spec = release.one("HorizontalPodAutoscaler")["spec"]
    assert (spec["minReplicas"], spec["maxReplicas"]) == (4, 48)
    (metric,) = spec["metrics"]
    assert metric["pods"]["metric"] == {"name": "flagpost_backlog_sendable"}
    assert metric["pods"]["target"] == {"type": "AverageValue", "averageValue": "2500"}
    assert spec["behavior"]["scaleDown"]["stabilizationWindowSeconds"] == 3600
    _require_scaled(release)


def test_keda_asks_prometheus_for_this_release() -> None:
    release = rendered_set("keda")
    spec = release.one("ScaledObject")["spec"]
    (trigger,) = spec["triggers"]
    assert trigger["metadata"]["query"] == (
        'sum(flagpost_backlog_sendable{namespace="tracking", pod=~"flagpost-consumer-.+"})'
    )
    assert trigger["metadata"]["ignoreNullValues"] == "false"
    assert (spec["minReplicaCount"], spec["maxReplicaCount"]) == (2, 24)
    scaling = spec["advanced"]["horizontalPodAutoscalerConfig"]["behavior"]
    assert scaling["scaleDown"]["stabilizationWindowSeconds"] == 1800
    authentication = release.one("TriggerAuthentication")
    assert trigger["authenticationRef"] == {"name": authentication["metadata"]["name"]}
    assert authentication["spec"]["secretTargetRef"][0]["parameter"] == "bearerToken"
    _require_scaled(release)


def test_keda_accepts_a_query_and_an_authentication_of_the_cluster() -> None:
    release = rendered_set("keda-shared-authentication")
    (trigger,) = release.one("ScaledObject")["spec"]["triggers"]
    given = values_of("keda-shared-authentication")["consumer"]["autoscaling"]["keda"]
    assert trigger["metadata"]["query"] == given["query"]
    assert trigger["authenticationRef"] == given["authenticationRef"]
    assert release.all_of("TriggerAuthentication") == []


def _require_scaled(release: Rendered) -> None:
    """The autoscaler sets the number of pods; a number in the Deployment would overwrite it at each upgrade."""
    assert "replicas" not in release.one("Deployment", "consumer")["spec"]
    assert len(release.all_of("HorizontalPodAutoscaler") + release.all_of("ScaledObject")) == 1


def _template(release: Rendered) -> Object:
    template: Object = release.one("Deployment", "consumer")["spec"]["template"]
    return template


def _grace_seconds(config: dict[str, Any]) -> int:
    seconds: int = rendered({"config": config}).pod_spec("consumer")["terminationGracePeriodSeconds"]
    return seconds
