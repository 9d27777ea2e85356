"""Renders the chart with Helm.

In: values. Out: the Kubernetes objects, as maps, and the notes. This calls Helm's own engine as a library: a set of
values takes milliseconds, and a refusal is an exception with Helm's text. The output is read strictly: no duplicate
keys, and the same meaning in YAML 1.1 and in 1.2.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path
from typing import Any, ClassVar, Final

import yaml
from yaml.constructor import ConstructorError

from helm.missing_tools import do_without

# A third of a rendering's CPU time is Go's garbage collection, unless its heap may grow further.
os.environ.setdefault("GOGC", "400")
try:
    from helm_python import Chart, HelmError, lint
except ModuleNotFoundError as error:
    do_without(f"{error.name}, of the group `deploy`")

ROOT: Final = Path(__file__).parents[2]
CHART: Final = ROOT / "helm" / "flagpost"
VERSION: Final[str] = yaml.safe_load((CHART / "Chart.yaml").read_text())["appVersion"]
VALUES: Final = Path(__file__).parent / "values"
RELEASE: Final = "flagpost"
NAMESPACE: Final = "tracking"

CASES: Final = ROOT / "tests" / "cases"
NAMES: Final = tuple((CASES / "helm-names.txt").read_text().split())
"""Names of releases and namespaces that look like numbers, booleans or null, and the longest that Helm allows."""
LONGEST_NAME: Final = max(NAMES, key=len)

WARNING: Final = 2
"""A warning's severity; Helm's severities are 1 to 3."""

Object = Mapping[str, Any]
"""A Kubernetes object: apiVersion, kind, metadata and the rest."""


class Refused(Exception):  # noqa: N818 - an expected answer, not an error
    """Helm refuses values; the text is what `helm template` would print."""


@dataclass(frozen=True, slots=True)
class Rendered:
    """A rendered release, which is not installed."""

    objects: tuple[Object, ...]
    notes: str

    def all_of(self, kind: str) -> list[Object]:
        """The objects of a kind."""
        return [each for each in self.objects if each["kind"] == kind]

    def one(self, kind: str, ending: str = "") -> Object:
        """The only object of a kind whose name ends with `ending`."""
        (found,) = (each for each in self.all_of(kind) if each["metadata"]["name"].endswith(ending))
        return found

    def pod_spec(self, component: str) -> Object:
        """The pod spec in a component's Deployment."""
        spec: Object = self.one("Deployment", component)["spec"]["template"]["spec"]
        return spec

    def container(self, component: str) -> Object:
        """Flagpost's own container in that pod spec."""
        own: Object = self.pod_spec(component)["containers"][0]
        return own

    def templates(self) -> Iterator[tuple[str, Object]]:
        """Name, and metadata with spec, of every kind of pod."""
        for each in [*self.all_of("Deployment"), *self.all_of("Job")]:
            yield each["metadata"]["name"], each["spec"]["template"]
        for job in self.all_of("CronJob"):
            yield job["metadata"]["name"], job["spec"]["jobTemplate"]["spec"]["template"]
        for pod in self.all_of("Pod"):
            yield pod["metadata"]["name"], pod

    def pods(self) -> Iterator[tuple[str, Object]]:
        """Component and spec of every kind of pod."""
        for _, template in self.templates():
            yield template["metadata"]["labels"]["app.kubernetes.io/component"], template["spec"]


def value_sets() -> list[str]:
    """The names of the sets of values in values/, and of the one in cases/."""
    return sorted([*(path.stem for path in VALUES.glob("*.yaml")), "helm-values-labels"])


def values_of(name: str) -> dict[str, Any]:
    """A set of values."""
    folder = CASES if name.startswith("helm-") else VALUES
    values: dict[str, Any] = yaml.safe_load((folder / f"{name}.yaml").read_text())
    return values


@cache
def rendered_set(name: str, release: str = RELEASE, namespace: str = NAMESPACE) -> Rendered:
    """Render a set of values, once per name."""
    return rendered(values_of(name), release, namespace)


def rendered(
    values: Mapping[str, Any],
    release: str = RELEASE,
    namespace: str = NAMESPACE,
    chart: Chart | None = None,
) -> Rendered:
    """Render the chart, or a chart that contains it.

    Raises:
        Refused: the schema or a template refuses the values.
    """
    try:
        templates = (chart or _chart()).render(dict(values), name=release, namespace=namespace)
    except HelmError as error:
        raise Refused(str(error)) from None
    notes = {name: text for name, text in templates.items() if name.endswith("/NOTES.txt")}
    texts = [text for name, text in sorted(templates.items()) if name not in notes]
    return Rendered(
        tuple(document for text in texts for document in _strictly_read(text)), "".join(notes.values())
    )


def complaints(values: Mapping[str, Any]) -> list[str]:
    """The errors and warnings of `helm lint --strict` for these values, without its recommendations."""
    report: dict[str, Any] = lint(CHART, dict(values), strict=True, namespace=NAMESPACE)
    errors: list[str] = report["errors"]
    warnings = [message["error"] for message in report["messages"] if message["severity"] >= WARNING]
    return errors + warnings


@cache
def _chart() -> Chart:
    return load_chart(CHART)


def load_chart(path: Path) -> Chart:
    """Load a chart from a folder."""
    return Chart.load(path)


@lru_cache(maxsize=256)  # most templates' texts are the same for many sets of values
def _strictly_read(text: str) -> tuple[Object, ...]:
    documents = tuple(document for document in yaml.load_all(text, _Yaml11) if document is not None)
    as_yaml_1_2 = tuple(document for document in yaml.load_all(text, _Yaml12) if document is not None)
    assert documents == as_yaml_1_2, "YAML 1.1 and 1.2 read it otherwise"
    return documents


class _Yaml11(yaml.CSafeLoader):
    """PyYAML's own loader, which also refuses duplicate keys."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """Construct a map; raises ConstructorError if it has a duplicate key."""
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        if len(keys) != len(set(keys)):
            raise ConstructorError(None, None, f"a key twice among {keys}", node.start_mark)
        return super().construct_mapping(node, deep)


class _Yaml12(_Yaml11):
    """The core schema of YAML 1.2."""

    yaml_implicit_resolvers: ClassVar[dict[str, list[Any]]] = {}  # type: ignore[misc] # as PyYAML has it


for _tag, _form, _first in (
    ("bool", "true|True|TRUE|false|False|FALSE", "tTfF"),
    ("null", "~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("int", r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+", "-+0123456789"),
    ("float", r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?", "-+.0123456789"),
):
    _Yaml12.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(f"^({_form})$"), list(_first))
