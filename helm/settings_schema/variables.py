"""A container's variable as JSON schema: one of Flagpost's is a setting of the programs, and a secret by reference.

In: the models of the programs' settings. Out: the schema of an item of `extraEnv`.
"""

from __future__ import annotations

from typing import Any, Final

from flagpost_consumer.settings import Settings as ConsumerSettings
from flagpost_publisher.gateway.settings import Settings as GatewaySettings
from flagpost_settings.keys import Keys

OF_ONE_PROGRAM: Final = (Keys(ConsumerSettings), Keys(GatewaySettings))
OURS: Final = {"pattern": "^FLAGPOST_"}


def variable() -> dict[str, Any]:
    """A name, and either a value or where it is from."""
    known = {name: path for keys in OF_ONE_PROGRAM for name, path in keys.variables.items()}
    secret = {
        name for keys in OF_ONE_PROGRAM for name, path in keys.variables.items() if keys.is_secret(path)
    }
    return {
        "type": "object",
        "additionalProperties": False,
        "required": ["name"],
        "properties": {
            "name": {"type": "string", "pattern": "^[-._a-zA-Z][-._a-zA-Z0-9]*$"},
            "value": {"type": "string"},
            "valueFrom": {"type": "object", "minProperties": 1},
        },
        "not": {"required": ["value", "valueFrom"]},
        "allOf": [
            _if_named(OURS, {"properties": {"name": {"enum": sorted(known)}}}),
            _if_named({"enum": sorted(secret)}, {"required": ["valueFrom"]}),
        ],
    }


def _if_named(name: dict[str, Any], then: dict[str, Any]) -> dict[str, Any]:
    return {"if": {"properties": {"name": name}, "required": ["name"]}, "then": then}
