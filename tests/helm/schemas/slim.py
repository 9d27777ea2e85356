"""Shortens a definition (CRD) to what the tests need: no descriptions, no status, no operations, one version.

In: the path of a definition, and the version to keep. Out: the definition, on standard output.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import yaml

NOT_SPECIFIED = ("status", "operation")
"""Fields for what controllers write, and for commands: no example has them."""


def slim(schema: Any, *, of_fields: bool = False) -> Any:
    """The schema without descriptions; a field of that name stays."""
    if isinstance(schema, list):
        return [slim(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    return {
        key: slim(value, of_fields=key == "properties")
        for key, value in schema.items()
        if of_fields or key != "description"
    }


def definition(path: Path, version: str) -> dict[str, Any]:
    """The definition with only that version."""
    found: dict[str, Any] = yaml.safe_load(path.read_text())
    (wanted,) = (each for each in found["spec"]["versions"] if each["name"] == version)
    schema = wanted["schema"]["openAPIV3Schema"]
    for field in NOT_SPECIFIED:
        schema["properties"].pop(field, None)
    names = {key: found["spec"]["names"][key] for key in ("kind", "listKind", "plural", "singular")}
    return {
        "apiVersion": found["apiVersion"],
        "kind": found["kind"],
        "metadata": {"name": found["metadata"]["name"]},
        "spec": {
            "group": found["spec"]["group"],
            "names": names,
            "scope": found["spec"]["scope"],
            "versions": [
                {
                    "name": version,
                    "served": True,
                    "storage": True,
                    "schema": {"openAPIV3Schema": slim(schema)},
                }
            ],
        },
    }


if __name__ == "__main__":
    sys.stdout.write(yaml.safe_dump(definition(Path(sys.argv[1]), sys.argv[2]), sort_keys=False))
