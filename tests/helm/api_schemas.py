"""Validates the form of an object as the API server would, without a server.

In: a Kubernetes object. Out: `ValidationError` if a field is missing, unknown or of the wrong type. Kubernetes' own
kinds are validated with the strict schemas of kubernetes-validate; other kinds with the definitions in schemas/,
which refuse unknown fields in the same way.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any, Final

import yaml

from helm.missing_tools import do_without
from helm.rendering import Object

try:
    import kubernetes_validate
    from jsonschema import Draft202012Validator
    from kubernetes_validate import utils
except ModuleNotFoundError as error:
    do_without(f"{error.name}, of the group `deploy`")

DEFINITIONS: Final = Path(__file__).parent / "schemas"
VERSIONS: Final = ("1.30", "1.37")
"""An object must fit the schemas of these versions of Kubernetes: the oldest that the chart allows, and the newest of
kubernetes-validate.
"""

# Without a cache each call would read the schemas again, a megabyte for each object.
for _reading in ("schema_contents", "all_versions"):
    setattr(utils, _reading, cache(getattr(utils, _reading)))


def require_valid(candidate: Object, versions: Iterable[str] = VERSIONS) -> None:
    """Validate an object for these versions of Kubernetes.

    Raises:
        kubernetes_validate.ValidationError, jsonschema.ValidationError: what is wrong, and where.
        kubernetes_validate.SchemaNotFoundError: there is no such kind.
    """
    definition = _definitions().get((candidate["apiVersion"], candidate["kind"]))
    if definition is not None:
        definition.validate(candidate)
        return
    for version in versions:
        kubernetes_validate.validate(dict(candidate), version, strict=True)


@cache
def _definitions() -> dict[tuple[str, str], Draft202012Validator]:
    found = {}
    for path in DEFINITIONS.glob("*.yaml"):
        spec = yaml.safe_load(path.read_text())["spec"]
        for version in spec["versions"]:
            schema = _closed(version["schema"]["openAPIV3Schema"])
            schema["properties"]["metadata"] = {"type": "object"}
            found[f"{spec['group']}/{version['name']}", spec["names"]["kind"]] = Draft202012Validator(schema)
    return found


def _closed(schema: Any) -> Any:
    """The schema with unknown fields refused, as the API server does when it validates strictly."""
    if isinstance(schema, list):
        return [_closed(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    closed = {key: _closed(value) for key, value in schema.items()}
    if schema.get("x-kubernetes-int-or-string"):
        closed["type"] = ["integer", "string"]
    if isinstance(schema.get("properties"), dict) and not schema.get("x-kubernetes-preserve-unknown-fields"):
        closed.setdefault("additionalProperties", False)
    return closed
