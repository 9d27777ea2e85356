"""Names that look like other types, maps that share keys, and what users add: texts stay texts, names stay within
Kubernetes' limits, and there are no duplicate keys."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from shutil import copytree
from typing import Any, Final

import pytest
import yaml

from helm.api_schemas import VERSIONS, require_valid
from helm.rendering import (
    CHART,
    LONGEST_NAME,
    NAMES,
    VERSION,
    Object,
    Refused,
    load_chart,
    rendered,
    rendered_set,
    value_sets,
    values_of,
)

SETS = value_sets()
OF_ALL_KINDS: Final = (
    "helm-values-labels",
    "kafka-tls-sasl",
    "networkpolicy",
    "scaled-gateway",
    "where-users-expect-it",
)
"""Sets that together have every kind of object."""

NAME_CHARACTERS: Final = {"Deployment": 63, "Service": 63, "Pod": 63, "Job": 63, "CronJob": 52}
"""Kubernetes' limits; other names may have 253."""
DNS_1035: Final = re.compile("[a-z]([-a-z0-9]*[a-z0-9])?")
"""The form of a Service's name."""
TEXTS: Final = {
    "name",
    "namespace",
    "app",
    "serviceAccountName",
    "secretName",
    "priorityClassName",
    "jobLabel",
}
TEXT_MAPS: Final = {"labels", "annotations", "matchLabels", "nodeSelector", "data", "stringData"}


@pytest.mark.parametrize(
    ("values", "name"),
    [
        (values, name)
        for values in SETS
        for name in NAMES
        if name in ("4711", LONGEST_NAME) or values in OF_ALL_KINDS
    ],
)
def test_any_release_name_renders_valid_objects(values: str, name: str) -> None:
    objects = rendered_set(values, name, name).objects
    for each in objects:
        require_valid(each, VERSIONS[-1:])
        assert [text for text in _texts(each) if not isinstance(text, str)] == []
    ours = [each for each in objects if "helm.sh/chart" in each["metadata"]["labels"]]
    assert ours
    for each in ours:
        labels = each["metadata"]["labels"]
        assert labels["app.kubernetes.io/instance"] == name
        assert all(len(value) <= 63 for value in labels.values())
        assert each["metadata"]["namespace"] in (name, "monitoring")
        assert len(each["metadata"]["name"]) <= NAME_CHARACTERS.get(each["kind"], 253)
        assert DNS_1035.fullmatch(each["metadata"]["name"])
    identities = [_identity(each) for each in objects]
    assert len(identities) == len(set(identities))


@pytest.mark.parametrize("release", ["my.app", "4711.app"])
def test_a_release_name_with_dots_renders_a_valid_service_name(release: str) -> None:
    name = rendered({"gateway": {"enabled": True}}, release).one("Service")["metadata"]["name"]
    assert DNS_1035.fullmatch(name)


def test_long_names_that_begin_alike_stay_apart() -> None:
    others = [LONGEST_NAME[:-1] + letter for letter in "abc"]
    names = {rendered({}, name).one("ConfigMap")["metadata"]["name"] for name in (LONGEST_NAME, *others)}
    assert len(names) == 4


@pytest.mark.parametrize("release", ["a.b", "a-b"])
def test_a_dot_and_a_hyphen_are_not_the_same(release: str) -> None:
    other = {"a.b": "a-b", "a-b": "a.b"}[release]
    assert rendered({}, release).one("ConfigMap") != rendered({}, other).one("ConfigMap")


def test_the_more_specific_labels_win_and_the_charts_own_stay() -> None:
    release = rendered_set("helm-values-labels")
    pod = release.one("Deployment", "consumer")["spec"]["template"]["metadata"]["labels"]
    assert pod["team"] == "growth-oncall"
    assert pod["app.kubernetes.io/part-of"] == "experiments"
    assert release.one("PodMonitor")["metadata"]["labels"]["team"] == "metrics"
    assert release.one("ServiceAccount")["metadata"]["labels"]["team"] == "growth"
    job = release.one("CronJob")["spec"]["jobTemplate"]["spec"]["template"]["metadata"]["labels"]
    assert job["team"] == "growth"
    mine = {"app.kubernetes.io/name": "mine", "app.kubernetes.io/managed-by": "me"}
    kept = rendered({"commonLabels": mine, "consumer": {"podLabels": mine}})
    labels = kept.one("Deployment")["metadata"]["labels"]
    assert (labels["app.kubernetes.io/name"], labels["app.kubernetes.io/managed-by"]) == ("flagpost", "Helm")
    template = kept.one("Deployment")["spec"]["template"]["metadata"]["labels"]
    assert template.items() >= kept.one("Deployment")["spec"]["selector"]["matchLabels"].items()


def test_the_check_finds_ambiguous_yaml_and_duplicate_keys() -> None:
    """YAML 1.2 reads 1e3 as a number, YAML 1.1 reads `on` as true."""
    for text in ("a: 1e3", "a: on", "a: 1\na: 2"):
        with pytest.raises((AssertionError, yaml.YAMLError)):
            rendered({"extraManifests": [text]})


@pytest.fixture
def umbrella(tmp_path: Path) -> Path:
    """A chart that contains this one."""
    dependency = {"name": "flagpost", "version": VERSION, "condition": "flagpost.enabled"}
    chart = {"apiVersion": "v2", "name": "umbrella", "version": "1.0.0", "dependencies": [dependency]}
    copytree(CHART, tmp_path / "charts" / "flagpost")
    (tmp_path / "Chart.yaml").write_text(yaml.safe_dump(chart))
    return tmp_path


def test_a_parent_chart_can_enable_this_one_and_set_globals(umbrella: Path) -> None:
    chart = load_chart(umbrella)
    shared = {"imageRegistry": "mirror.example.com", "region": "eu"}
    on = rendered({"flagpost": {"enabled": True}, "global": shared}, chart=chart)
    assert on.container("consumer")["image"] == f"mirror.example.com/flagpost:{VERSION}"
    assert rendered({"flagpost": {"enabled": False}}, chart=chart).objects == ()


def test_a_dependency_without_a_condition_is_reported(umbrella: Path) -> None:
    chart = yaml.safe_load((umbrella / "Chart.yaml").read_text())
    del chart["dependencies"][0]["condition"]
    (umbrella / "Chart.yaml").write_text(yaml.safe_dump(chart))
    with pytest.raises(Refused, match=r"condition: flagpost\.enabled"):
        rendered({"flagpost": {"enabled": False}}, chart=load_chart(umbrella))


def test_other_globals_change_nothing() -> None:
    assert rendered({"global": {"region": "eu"}}).objects == rendered({}).objects


def test_users_additions_are_where_users_expect_them() -> None:
    release = rendered_set("where-users-expect-it")
    given = values_of("where-users-expect-it")
    consumer, gateway = release.pod_spec("consumer"), release.pod_spec("gateway")
    assert [each["name"] for each in consumer["containers"]] == ["consumer", "beside"]
    assert [each["name"] for each in consumer["initContainers"]] == ["before"]
    assert [each["name"] for each in gateway["containers"]] == ["gateway", "beside"]
    assert _variables(release.container("consumer")).keys() >= {"HTTPS_PROXY", "FLAGPOST_PENDO__TRACK_SECRET"}
    assert "FLAGPOST_PENDO__TRACK_SECRET" not in _variables(release.container("gateway"))
    assert release.container("consumer")["envFrom"] == given["consumer"]["extraEnvFrom"]
    assert {"name": "scratch", "emptyDir": {"sizeLimit": "16Mi"}} in consumer["volumes"]
    assert {"name": "scratch", "mountPath": "/scratch"} in release.container("consumer")["volumeMounts"]
    assert "scratch" not in {volume["name"] for volume in gateway["volumes"]}
    assert release.container("consumer")["livenessProbe"]["periodSeconds"] == 20
    assert release.container("consumer")["livenessProbe"]["timeoutSeconds"] == 5
    assert release.container("gateway")["startupProbe"]["failureThreshold"] == 90
    assert consumer["imagePullSecrets"] == [{"name": "mirror"}, {"name": "other"}, {"name": "regcred"}]
    service = release.one("Service")["spec"]
    assert (service["externalTrafficPolicy"], service["loadBalancerSourceRanges"]) == (
        "Local",
        ["203.0.113.0/24"],
    )
    extra = release.one("ConfigMap", "flagpost-extra")
    assert extra["data"] == {"kafka": "kafka:9092"}


def test_annotations_are_on_every_object_and_pod() -> None:
    release = rendered_set("where-users-expect-it")
    for each in release.objects:
        if "helm.sh/chart" in each["metadata"]["labels"]:
            assert each["metadata"]["annotations"]["example.com/owner"] == "growth"
    deployment = release.one("Deployment", "consumer")
    assert deployment["metadata"]["annotations"]["reloader.example.com/auto"] == "true"
    pod = deployment["spec"]["template"]["metadata"]["annotations"]
    assert (pod["example.com/owner"], pod["sidecar.example.com/inject"]) == ("growth", "false")
    assert "reloader.example.com/auto" not in pod


def _variables(container: Object) -> dict[str, Any]:
    return {each["name"]: each.get("value") for each in container["env"]}


def _texts(node: Any) -> Iterator[Any]:
    """The values that must be texts, anywhere in an object."""
    if isinstance(node, list):
        for each in node:
            yield from _texts(each)
    if not isinstance(node, dict):
        return
    for key, value in node.items():
        if key in TEXTS and not isinstance(value, dict | list):
            yield value
        if key in TEXT_MAPS and isinstance(value, dict):
            yield from value.keys()
            yield from value.values()
        yield from _texts(value)


def _identity(each: Object) -> tuple[str, str, str, str]:
    metadata = each["metadata"]
    return each["apiVersion"], each["kind"], metadata.get("namespace", ""), metadata["name"]
