"""The examples for Kubernetes fit the definitions of their kinds, and install this chart."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import pytest
import yaml

from helm.api_schemas import require_valid
from helm.rendering import ROOT, rendered

FOLDER: Final = ROOT / "examples" / "kubernetes"
FILES: Final = sorted(FOLDER.rglob("*.yaml"))
OBJECTS: Final = [path for path in FILES if path.name != "values.yaml"]


def _documents(name: str) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all((FOLDER / name).read_text()))


def _values() -> Iterator[tuple[str, dict[str, Any]]]:
    """The values for the chart in each example that has some."""
    yield "external-secrets", _documents("external-secrets/values.yaml")[0]
    yield "argo-cd", _documents("argo-cd/application.yaml")[0]["spec"]["source"]["helm"]["valuesObject"]
    yield "flux", _documents("flux/release.yaml")[1]["spec"]["values"]


@pytest.mark.parametrize("path", OBJECTS, ids=lambda path: str(path.relative_to(FOLDER)))
def test_an_example_fits_its_definition(path: Any) -> None:
    objects = list(yaml.safe_load_all(path.read_text()))
    assert objects
    for each in objects:
        require_valid(each)


@pytest.mark.parametrize(("name", "values"), list(_values()), ids=[name for name, _ in _values()])
def test_an_examples_values_install_the_chart_by_digest(name: str, values: dict[str, Any]) -> None:
    objects = rendered(values).objects
    for each in objects:
        require_valid(each)
    assert values["image"]["digest"].startswith("sha256:"), name
    assert (FOLDER / name).is_dir()


def test_the_secrets_are_those_that_the_pods_mount() -> None:
    release = rendered(dict(_values())["external-secrets"])
    mounted = {
        (source["secret"]["name"], item["key"])
        for component in ("consumer", "gateway")
        for volume in release.pod_spec(component)["volumes"]
        for source in volume.get("projected", {"sources": []})["sources"]
        for item in source["secret"]["items"]
    }
    made = {
        (each["spec"]["target"]["name"], data["secretKey"])
        for each in _documents("external-secrets/secrets.yaml")
        for data in each["spec"]["data"]
    }
    assert made == mounted


def test_every_example_is_in_the_list() -> None:
    page = (FOLDER / "README.md").read_text()
    assert all(f"[{path.parent.name}]" in page for path in FILES)
