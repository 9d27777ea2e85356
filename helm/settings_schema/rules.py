"""What the programs ask of single values beyond their models, in the words of a schema.

In: nothing. Out: by key, what its value must obey besides. Rules across keys are in the chart's templates
(_check.tpl): a schema cannot compare. tests/helm/test_settings_schema.py holds that nothing is forgotten.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, Final

from flagpost_settings.kafka import TAKES_CODE
from flagpost_settings.owned_properties import OWNED_PROPERTIES

_GROUP: Final = "[0-9a-fA-F]{1,4}"
_IPV6: Final = "|".join(
    [
        f"({_GROUP}:){{7}}{_GROUP}",
        f"({_GROUP}:){{1,7}}:",
        *(f"({_GROUP}:){{1,{7 - after}}}(:{_GROUP}){{1,{after}}}" for after in range(1, 7)),
        f":(:{_GROUP}){{1,7}}",
        "::",
    ]
)
_OCTET: Final = "(25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])"
_IPV4_NETWORK: Final = rf"{_OCTET}(\.{_OCTET}){{3}}(/(3[0-2]|[12]?[0-9]))?"
_IPV6_NETWORK: Final = f"({_IPV6})(/(12[0-8]|1[01][0-9]|[1-9]?[0-9]))?"
NETWORKS: Final = {"items": {"pattern": f"^({_IPV4_NETWORK}|{_IPV6_NETWORK})$"}}
"""Addresses, or networks by the length of their prefix."""
_NAME: Final = "[a-zA-Z0-9_-]{1,63}"
_HOST: Final = rf"({_NAME}(\.{_NAME})*\.?|\[({_IPV6})\])"
_PORT: Final = "(:([0-9]{1,4}|[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5]))?"
_REST: Final = r'([/?][!-"$-~]*)?'
"""Visible ASCII, without a fragment."""
URL: Final = {"pattern": f"^https?://{_HOST}{_PORT}{_REST}$"}
"""Of a client that can connect to it, without credentials."""
PROXY: Final = {"type": ["string", "null"], "pattern": f"^(none|http://{_HOST}{_PORT}/?)$"}
"""With credentials it would be a secret."""

UNPRIVILEGED_PORT: Final = {"minimum": 1024}
"""Probes need a fixed port, and a process without privileges one above 1023."""

FLAG_KEY_ONLY: Final = {"pattern": r"^[^{]*(\{flag_key(\}[^{]*)?)*$"}
"""A template whose only placeholder is {flag_key}."""


def _none_of(globs: Iterable[str]) -> dict[str, Any]:
    """Names that fit none of the globs."""
    texts = (re.escape(glob).replace(r"\*", r"[\s\S]*") for glob in globs)
    return {"not": {"pattern": f"^({'|'.join(texts)})$"}}


NOT_OURS: Final = {"propertyNames": _none_of([*OWNED_PROPERTIES, *TAKES_CODE])}
"""Properties that Flagpost does not set itself, and that a text can be."""
NO_NUL: Final = {"additionalProperties": {"not": {"type": "string", "pattern": r"\x00"}}}

RULES: Final[Mapping[tuple[str, ...], dict[str, Any]]] = {
    ("admin", "port"): UNPRIVILEGED_PORT,
    ("gateway", "port"): UNPRIVILEGED_PORT,
    ("gateway", "admin_port"): UNPRIVILEGED_PORT,
    ("gateway", "trusted_proxies"): NETWORKS,
    ("web", "port"): UNPRIVILEGED_PORT,
    ("pendo", "track_url"): URL,
    ("pendo", "api_url"): URL,
    ("kafka", "schema_registry", "url"): URL,
    ("decisions", "metadata_field"): FLAG_KEY_ONLY,
    ("kafka", "properties"): {**NOT_OURS, **NO_NUL},
    ("kafka", "properties_files"): NOT_OURS,
    ("kafka", "schema_registry"): {"dependencies": {"key_file": ["certificate_file"]}},
    ("privacy",): {
        "if": {"required": ["ledger_ids"], "properties": {"ledger_ids": {"const": "keyed_hash"}}},
        "then": {"required": ["key_file"]},
    },
}
"""What is asked besides."""

INSTEAD: Final[Mapping[tuple[str, ...], dict[str, Any]]] = {
    ("pendo", "proxy"): PROXY,
    ("kafka", "schema_registry", "proxy"): PROXY,
}
"""What is asked of secrets that need not be secret."""
