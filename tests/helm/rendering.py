"""The chart as Helm renders it.

In: values. Out: the Kubernetes objects, as maps, and the notes. It is Helm's own engine, called as a library: a set
of values takes two milliseconds, and a refusal is an exception with Helm's text.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final

import yaml

from helm.missing_tools import do_without

try:
    from helm_python import Chart, HelmError, lint
except ModuleNotFoundError as error:
    do_without(f"{error.name}, of the group `deploy`")

ROOT: Final = Path(__file__).parents[2]
CHART: Final = ROOT / "helm" / "flagpost"
VALUES: Final = Path(__file__).parent / "values"
RELEASE: Final = "flagpost"
NAMESPACE: Final = "tracking"

LONGEST_RELEASE_NAME: Final = "a-release-whose-name-is-as-long-as-helm-allows-it-be"
RELEASES: Final = {"long-release-name": LONGEST_RELEASE_NAME}
"""The sets of values that are installed under another name than RELEASE."""

WARNING: Final = 2
"""Of Helm's severities, which are 1 to 3."""

Object = Mapping[str, Any]
"""A Kubernetes object: apiVersion, kind, metadata and the rest."""


class Refused(Exception):  # noqa: N818 - an answer, not a fault
    """Helm says no to values; the text is what `helm template` would print."""


@dataclass(frozen=True, slots=True)
class Rendered:
    """A release that is not installed."""

    objects: tuple[Object, ...]
    notes: str

    def all_of(self, kind: str) -> list[Object]:
        """The objects of a kind."""
        return [each for each in self.objects if each["kind"] == kind]

    def one(self, kind: str, ending: str = "") -> Object:
        """The only object of a kind whose name ends so."""
        (found,) = (each for each in self.all_of(kind) if each["metadata"]["name"].endswith(ending))
        return found

    def pod_spec(self, component: str) -> Object:
        """What the pods of a Deployment are to be."""
        spec: Object = self.one("Deployment", component)["spec"]["template"]["spec"]
        return spec

    def container(self, component: str) -> Object:
        """The container of those pods that stays."""
        (container,) = self.pod_spec(component)["containers"]
        only: Object = container
        return only

    def pods(self) -> Iterator[tuple[str, Object]]:
        """Name and spec of every kind of pod."""
        for deployment in self.all_of("Deployment"):
            yield deployment["metadata"]["name"], deployment["spec"]["template"]["spec"]
        for job in self.all_of("CronJob"):
            yield job["metadata"]["name"], job["spec"]["jobTemplate"]["spec"]["template"]["spec"]
        for pod in self.all_of("Pod"):
            yield pod["metadata"]["name"], pod["spec"]


def value_sets() -> list[str]:
    """The names of the sets in values/."""
    return sorted(path.stem for path in VALUES.glob("*.yaml"))


def values_of(name: str) -> dict[str, Any]:
    """A set of values/."""
    values: dict[str, Any] = yaml.safe_load((VALUES / f"{name}.yaml").read_text())
    return values


@cache
def rendered_set(name: str) -> Rendered:
    """A set of values/, rendered once."""
    return rendered(values_of(name), RELEASES.get(name, RELEASE))


def rendered(values: Mapping[str, Any], release: str = RELEASE) -> Rendered:
    """Render the chart.

    Raises:
        Refused: the schema or a template refuses the values.
    """
    try:
        templates = _chart().render(dict(values), name=release, namespace=NAMESPACE)
    except HelmError as error:
        raise Refused(str(error)) from None
    texts = [text for name, text in sorted(templates.items()) if not name.endswith("/NOTES.txt")]
    documents = (document for text in texts for document in yaml.safe_load_all(text))
    return Rendered(
        tuple(document for document in documents if document is not None),
        templates["flagpost/templates/NOTES.txt"],
    )


def complaints(values: Mapping[str, Any]) -> list[str]:
    """What `helm lint --strict` says of the chart with these values, recommendations left out."""
    report: dict[str, Any] = lint(CHART, dict(values), strict=True, namespace=NAMESPACE)
    errors: list[str] = report["errors"]
    warnings = [message["error"] for message in report["messages"] if message["severity"] >= WARNING]
    return errors + warnings


@cache
def _chart() -> Chart:
    return Chart.load(CHART)
