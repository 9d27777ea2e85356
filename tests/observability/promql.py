"""Reads PromQL as far as the tests need: which metrics a query names, with which labels.

In: a query, with Grafana's variables. Out: its selectors, and the labels that it groups by. promtool checks whether
it is valid.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

_VARIABLES = {
    "$namespace": ".*",
    "$release": ".*",
    "$pod": ".*",
    "$__rate_interval": "1m",
    "$__range": "1h",
}
_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|[A-Za-z_:][\w:]*|\d[\w.]*|\[[^\]]*\]|\S', re.ASCII)
_GROUPINGS = {"by", "without", "on", "ignoring", "group_left", "group_right"}
_WORDS = _GROUPINGS | {"and", "or", "unless", "bool", "offset", "inf", "nan"}
_MATCHER = re.compile(r'(\w+)\s*(=~|!~|!=|=)\s*"((?:[^"\\]|\\.)*)"')


@dataclass(frozen=True, slots=True)
class Matcher:
    """One matcher of a selector."""

    label: str
    operator: str
    value: str

    def admits(self, value: str) -> bool:
        """Whether a label's value matches."""
        if self.operator in {"=", "!="}:
            return (value == self.value) is (self.operator == "=")
        return bool(re.fullmatch(self.value, value)) is (self.operator == "=~")


@dataclass(frozen=True, slots=True)
class Selector:
    """A metric, and the matchers of its labels."""

    metric: str
    matchers: tuple[Matcher, ...]


def concrete(expr: str, **variables: str) -> str:
    """The query with values for Grafana's variables; `variables` override the defaults."""
    for name, value in {**_VARIABLES, **{f"${name}": value for name, value in variables.items()}}.items():
        expr = expr.replace(name, value)
    return expr


def selectors(expr: str) -> list[Selector]:
    """The selectors of a query, in order."""
    return [Selector(name, matchers) for name, matchers in _selected(_TOKEN.findall(concrete(expr)))]


def grouping_labels(expr: str) -> set[str]:
    """The labels that a query groups or joins by."""
    lists = re.findall(rf"\b(?:{'|'.join(_GROUPINGS)})\s*\(([^)]*)\)", expr)
    return {label.strip() for names in lists for label in names.split(",") if label.strip()}


def _selected(tokens: list[str]) -> Iterator[tuple[str, tuple[Matcher, ...]]]:
    place = 0
    while place < len(tokens):
        token = tokens[place]
        following = tokens[place + 1] if place + 1 < len(tokens) else ""
        place += 1
        if token.lower() in _GROUPINGS and following == "(":
            place = tokens.index(")", place)
        elif re.match(r"[A-Za-z_:]", token) and token.lower() not in _WORDS and not _is_operation(following):
            end = tokens.index("}", place) if following == "{" else place
            yield token, tuple(Matcher(*found) for found in _MATCHER.findall("".join(tokens[place:end])))
            place = end


def _is_operation(following: str) -> bool:
    """Whether the token after an identifier shows that this is a function or an aggregation."""
    return following == "(" or following.lower() in {"by", "without"}
