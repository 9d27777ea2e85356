"""values.yaml, its schema and its table know the same keys."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
import yaml

from helm.api_schemas import require_valid
from helm.rendering import CHART, ROOT, rendered
from helm.values_table import README, Row, UndocumentedError, rows, with_table

VALUES = (CHART / "values.yaml").read_text()
SCHEMA = json.loads((CHART / "values.schema.json").read_text())

EXAMPLES = re.findall(
    r"^ *```yaml\n(.*?)```$", (ROOT / "docs" / "deploy.md").read_text(), re.MULTILINE | re.DOTALL
)

FREE = {"config", "global"}
"""Values whose keys values.yaml does not list: the programs' settings, and Helm's globals."""


def test_readme_has_the_table_of_these_values() -> None:
    assert README.read_text() == with_table(README.read_text(), VALUES), "run: make chart-docs"


def test_every_value_is_in_the_schema_and_the_reverse() -> None:
    assert set(_known(yaml.safe_load(VALUES))) == set(_told(SCHEMA)) - {"global"}


@pytest.mark.parametrize("example", EXAMPLES)
def test_the_examples_of_the_docs_can_be_installed(example: str) -> None:
    for each in rendered(yaml.safe_load(example)).objects:
        require_valid(each)


def test_every_section_refuses_what_it_does_not_know() -> None:
    sections = [SCHEMA, *_sections(SCHEMA)]
    assert len(sections) > 10
    assert all(section["additionalProperties"] is False for section in sections)


def test_rows_are_the_comments_above_the_keys() -> None:
    values = "# The top.\n\n# One\n# of two.\na: 1\nb:\n  # Inside.\n  c: {}\n  # Whole.\n  d:\n    e: [x]\n"
    assert rows(values) == [
        Row("a", "`1`", "One of two."),
        Row("b.c", "`{}`", "Inside."),
        Row("b.d", '`{"e": ["x"]}`', "Whole."),
    ]


def test_a_key_without_a_comment_is_named() -> None:
    with pytest.raises(UndocumentedError, match=r"line 4: b\.d needs a comment"):
        rows("b:\n  # Here.\n  c: 1\n  d: 2\n")


def _known(values: Mapping[str, Any], above: str = "") -> Iterator[str]:
    """The keys of values.yaml, down to the maps in which the schema lists no keys."""
    told = {key.removeprefix(above) for key in _told(SCHEMA) if key.startswith(above)}
    for key, value in values.items():
        yield above + key
        if isinstance(value, dict) and any(name.startswith(f"{key}.") for name in told):
            yield from _known(value, f"{above}{key}.")


def _told(schema: Mapping[str, Any], above: str = "") -> Iterator[str]:
    """The keys of the schema, without those inside FREE values."""
    for key, inner in _resolved(schema).get("properties", {}).items():
        yield above + key
        if above + key not in FREE:
            yield from _told(inner, f"{above}{key}.")


def _sections(schema: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """The schemas in the schema that list keys."""
    for key, inner in _resolved(schema)["properties"].items():
        resolved = _resolved(inner)
        if key not in FREE and "properties" in resolved:
            yield resolved
            yield from _sections(resolved)


def _resolved(schema: Mapping[str, Any]) -> Mapping[str, Any]:
    reference = schema.get("$ref")
    if reference is None:
        return schema
    definition: Mapping[str, Any] = SCHEMA["definitions"][reference.removeprefix("#/definitions/")]
    return definition
