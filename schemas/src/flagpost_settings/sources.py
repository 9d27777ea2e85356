"""Reads settings: one YAML file, and environment variables that win over it.

In: the file's path, the environment, the program's keys. Out: `Given`, one tree of plain values that remembers where
each came from, and the problems found. Only variables of the form `FLAGPOST_<SECTION>__<KEY>` are settings (so that
FLAGPOST_CONFIG, and the service links FLAGPOST_…_PORT that Kubernetes injects, are not); one whose name differs from
such a variable's only by underscores is a problem.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from flagpost_settings.keys import Keys, dotted
from flagpost_settings.problems import KeyPath, Problem, SettingsError
from flagpost_settings.variables import CONFIG_VARIABLE, advice, misspelt

VARIABLE = re.compile(r"FLAGPOST_[A-Z0-9]+(?:_[A-Z0-9]+)*(?:__[A-Z0-9]+(?:_[A-Z0-9]+)*)+")
"""FLAGPOST_, a section, and keys: capitals and digits with single underscores, joined by double ones."""


QUOTED = re.compile("'[^']{2,}'")

NOT_GIVEN = object()


@dataclass(slots=True)
class Given:
    """The values that were set, and where."""

    file: str
    tree: dict[str, Any] = field(default_factory=dict)
    variables: dict[KeyPath, str] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)

    def origin(self, path: KeyPath) -> str:
        """The variable, or the file, that set the value at `path`; empty if nothing did."""
        for length in range(len(path), 0, -1):
            if path[:length] in self.variables:
                return self.variables[path[:length]]
        return "" if self.value(path) is NOT_GIVEN else self.file

    def value(self, path: KeyPath) -> object:
        """The value at `path`, or NOT_GIVEN."""
        here: Any = self.tree
        try:
            for part in path:
                here = here[part]
        except (KeyError, IndexError, TypeError):
            return NOT_GIVEN
        return here


def read(keys: Keys, config_path: Path | None, environ: Mapping[str, str]) -> Given:
    """Read the file, and merge the environment into it: sections first, so that the more specific variable wins.

    Raises:
        SettingsError: the file cannot be read, or is not a YAML map.
    """
    given = Given("") if config_path is None else _read_file(config_path)
    variables = keys.variables
    wrong = dict(misspelt(environ, [*variables, CONFIG_VARIABLE]))
    for name, right in wrong.items():
        given.problems.append(Problem(dotted(variables.get(right, ())), name, advice(right)))
    for name in sorted(environ, key=lambda name: (name.count("__"), name)):
        if VARIABLE.fullmatch(name) and name not in wrong:
            _read_variable(keys, given, name, environ[name])
    return given


def unknown(keys: Keys, path: KeyPath, origin: str) -> Problem:
    """The problem of an unknown key. Its value is not shown: it may be a misspelt secret's."""
    meant = keys.closest(path)
    hint = f"; did you mean {meant}?" if meant else "; docs/settings.md lists the keys"
    return Problem(dotted(path), origin, f"there is no such setting{hint}")


def _unknown_variable(keys: Keys, path: KeyPath, name: str) -> Problem:
    """The same for a variable; a key inside of a map can only be set with the whole map."""
    above = path[:-1]
    if keys.exists(above) and not keys.is_section(above) and not keys.takes_text(above):
        variable = name.rpartition("__")[0]
        return Problem(dotted(path), name, f"give the whole of {dotted(above)} as JSON in {variable}")
    return unknown(keys, path, name)


def _read_variable(keys: Keys, given: Given, name: str, text: str) -> None:
    path = tuple(name.removeprefix("FLAGPOST_").lower().split("__"))
    if path[0] in keys.others and not keys.exists(path):
        return
    if not keys.exists(path):
        given.problems.append(_unknown_variable(keys, path, name))
        return
    _lay_over(given.tree, path, text if keys.takes_text(path) else _parsed(text))
    given.variables[path] = name


def _parsed(text: str) -> object:
    """The parsed JSON; anything else stays text, so that the models can say what they expected."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def _lay_over(tree: dict[str, Any], path: KeyPath, value: object) -> None:
    """Set the value; a section that is not a map is left unchanged, so that the models refuse it."""
    here: Any = tree
    for part in path[:-1]:
        if here.get(part) is None:
            here[part] = {}
        here = here[part]
        if not isinstance(here, dict):
            return
    here[path[-1]] = value


def _read_file(path: Path) -> Given:
    file = str(path)
    try:
        text = path.read_bytes().decode()
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        tree = yaml.safe_load(text)
    except OSError as error:
        raise _unreadable(
            file, f"cannot be read ({error.strerror}); give --config an existing file"
        ) from None
    except UnicodeDecodeError:
        raise _unreadable(file, "is not UTF-8 text; save it as UTF-8") from None
    except Exception as error:  # noqa: BLE001 - PyYAML raises all kinds, IndexError for `!!int ""` among them
        raise _unreadable(file, _no_yaml(error)) from None
    if tree is None:
        return Given(file)
    if not isinstance(tree, dict):
        raise _unreadable(file, "should hold a map of sections, such as `kafka:` and under it `topic: …`")
    return Given(file, tree, problems=list(_wrong_keys(node, (), file, set())))


def _unreadable(file: str, text: str) -> SettingsError:
    return SettingsError([Problem("", file, text)])


def _no_yaml(error: Exception) -> str:
    """Where and why, without the quotes, which may contain a secret that was mistyped into YAML syntax."""
    problem, mark = getattr(error, "problem", None), getattr(error, "problem_mark", None)
    if problem is None or mark is None:
        return "is not YAML: it is nested too deep, or has an invalid character, date or number; fix it"
    quoteless = QUOTED.sub("'…'", problem)
    return f"is not YAML at line {mark.line + 1}, column {mark.column + 1} ({quoteless}); fix that line"


def _wrong_keys(node: yaml.Node | None, path: KeyPath, file: str, seen: set[int]) -> Iterator[Problem]:
    """Keys of which YAML would silently use only the last of several, and keys that it does not read as text.

    `seen`: the nodes visited; with anchors one may occur in many places, and inside itself.
    """
    if not isinstance(node, yaml.MappingNode) or id(node) in seen:
        return
    seen.add(id(node))
    lines: dict[str, int] = {}
    for key, value in node.value:
        line = key.start_mark.line + 1
        here = (*path, str(key.value))
        if key.tag not in ("tag:yaml.org,2002:str", "tag:yaml.org,2002:merge"):
            yield Problem(dotted(here), file, f"the key in line {line} should be text; put it in quotes")
        elif key.value in lines:
            yield Problem(
                dotted(here), file, f"is given twice, in lines {lines[key.value]} and {line}; remove one"
            )
        lines.setdefault(str(key.value), line)
        yield from _wrong_keys(value, here, file, seen)
