"""Generates the table of values in helm/flagpost/README.md from the comments in values.yaml.

In: values.yaml, where the comment above a key is its documentation. Out: rows; run as a program (`make chart-docs`),
README.md with the table between its two markers.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import yaml

CHART: Final = Path(__file__).parents[2] / "helm" / "flagpost"
README: Final = CHART / "README.md"
BEGIN: Final = "<!-- values: begin; `make chart-docs` makes the table of the comments in values.yaml -->\n"
END: Final = "<!-- values: end -->\n"


class UndocumentedError(Exception):
    """A key has no comment; the text says which, and where."""


@dataclass(frozen=True, slots=True)
class Row:
    """A value that can be set, or a section that has a comment about all its values."""

    key: str
    default: str
    meaning: str

    def __str__(self) -> str:
        return f"| `{self.key}` | {self.default} | {self.meaning} |"


def rows(values: str) -> list[Row]:
    """Every value, in the order of the file `values`.

    Raises:
        UndocumentedError: a key has no comment; a section's own comment is enough if no key inside has one.
    """
    node = yaml.compose(values)
    assert isinstance(node, yaml.MappingNode)
    return list(_rows(node, values.splitlines(), ""))


def with_table(readme: str, values: str) -> str:
    """The text of README.md with the table as it should be.

    Raises:
        ValueError: a marker is missing.
    """
    before, after = readme[: readme.index(BEGIN)], readme[readme.index(END) :]
    lines = ["| value | default | meaning |", "|---|---|---|", *map(str, rows(values))]
    return before + BEGIN + "\n" + "\n".join(lines) + "\n\n" + after


def _rows(node: yaml.MappingNode, lines: Sequence[str], above: str) -> Iterator[Row]:
    for key, value in node.value:
        name = above + key.value
        meaning = _comment_above(key, lines)
        if _has_comments_inside(value, lines):
            if meaning:
                yield Row(name, "", meaning)
            yield from _rows(value, lines, f"{name}.")
        elif meaning:
            yield Row(name, _default(value), meaning)
        else:
            line = key.start_mark.line + 1
            raise UndocumentedError(f"values.yaml, line {line}: {name} needs a comment above it")


def _has_comments_inside(node: yaml.Node, lines: Sequence[str]) -> bool:
    return isinstance(node, yaml.MappingNode) and any(
        _comment_above(key, lines) or _has_comments_inside(value, lines) for key, value in node.value
    )


def _comment_above(key: yaml.Node, lines: Sequence[str]) -> str:
    """The comment that ends in the line before the key, as one line."""
    first = key.start_mark.line
    while first > 0 and lines[first - 1].lstrip().startswith("#"):
        first -= 1
    return " ".join(line.strip(" #") for line in lines[first : key.start_mark.line])


def _default(node: yaml.Node) -> str:
    return f"`{json.dumps(yaml.safe_load(yaml.serialize(node)))}`"


if __name__ == "__main__":
    README.write_text(with_table(README.read_text(), (CHART / "values.yaml").read_text()))
