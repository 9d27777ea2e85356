"""Settings from a file and the environment, checked for the program that asks.

In: the program's model, the file's path, the environment, and its rules. Out: the model, frozen, or one
`SettingsError` that names every problem found.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Generic, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from flagpost_settings import sources
from flagpost_settings.keys import Keys, dotted
from flagpost_settings.problems import Finding, KeyPath, Problem, SettingsError
from flagpost_settings.secrets import SecretSource
from flagpost_settings.sources import NOT_GIVEN, Given

MAX_SHOWN_CHARACTERS: Final = 80

URL_CREDENTIALS: Final = re.compile(r"//[^/\s]*@")

ACCEPTED: Final = {
    "bool_type": "it should be true or false",
    "int_type": "it should be a whole number",
    "float_type": "it should be a number",
    "string_type": "it should be a text; in YAML, put it in quotes",
    "string_too_short": "it should not be empty",
    "list_type": 'it should be a list; in a variable, as JSON: ["a", "b"]',
    "dict_type": 'it should be a map; in a variable, as JSON: {"a": "b"}',
    "model_type": "it should be a map of keys",
}
"""What is accepted, in plainer words than pydantic's, by its type of error."""

Model = TypeVar("Model", bound=BaseModel)


@dataclass(frozen=True, slots=True)
class Rules(Generic[Model]):
    """Checks of settings whose values are each valid by themselves."""

    contradictions: Callable[[Model], Iterable[Finding]]
    """Values that contradict one another."""
    missing: Callable[[Model], Iterable[Finding]]
    """Missing keys that the program needs."""
    secrets: Callable[[Model], Iterable[SecretSource | None]]
    """Secrets that it needs: each that is set must be readable."""


class Loader(Generic[Model]):
    """Reads the settings of one program."""

    def __init__(self, model: type[Model]) -> None:
        """`model` has a field for each section that the program reads."""
        self._model = model
        self._keys = Keys(model)

    def load(
        self,
        config_path: Path | None,
        environ: Mapping[str, str],
        rules: Rules[Model],
        leaving_out: Collection[str] = (),
    ) -> Model:
        """Read and check the settings.

        Args:
            config_path: the YAML file, if there is one.
            environ: the environment; its variables `FLAGPOST_<SECTION>__<KEY>` win over the file.
            rules: the further checks.
            leaving_out: sections that are not checked this time, besides those of other programs.

        Raises:
            SettingsError: one line for each problem: the key, where its value came from, the value unless it is a
            secret, and what is accepted.
        """
        given = sources.read(self._keys, config_path, environ)
        for section in (*self._keys.unread, *leaving_out):
            given.tree.pop(section, None)
        settings = self._validated(given)
        problems = [
            *(self._not_accepted(given, *finding) for finding in rules.contradictions(settings)),
            *(Problem(dotted(path), given.origin(path), text) for path, text in rules.missing(settings)),
            *(problem for source in rules.secrets(settings) for problem in _unreadable(source)),
        ]
        if problems:
            raise SettingsError(problems)
        return settings

    def _validated(self, given: Given) -> Model:
        try:
            settings = self._model.model_validate(given.tree)
        except ValidationError as error:
            problems = {problem.key: problem for problem in self._problems(given, error)}
            # `from None`: the cause would show values that the problems leave out.
            raise SettingsError(problems.values()) from None
        if given.problems:
            raise SettingsError(given.problems)
        return settings

    def _problems(self, given: Given, error: ValidationError) -> Iterator[Problem]:
        """The problems that the models find, then those that the sources find: of two about one key, the later one
        says more.
        """
        for detail in error.errors(include_url=False):
            path = tuple(part for part in detail["loc"] if part != "[key]")
            if _is_about_a_key(detail):
                continue  # the sources report it with the line
            if detail["type"] == "extra_forbidden":
                yield sources.unknown(self._keys, path, given.origin(path))
            else:
                yield self._not_accepted(given, path, _accepted(detail))
        yield from given.problems

    def _not_accepted(self, given: Given, path: KeyPath, accepted: str) -> Problem:
        value = given.value(path)
        shown = "" if value is NOT_GIVEN else f"{self._shown(path, value)} is not accepted: "
        return Problem(dotted(path), given.origin(path), f"{shown}{accepted}")

    def _shown(self, path: KeyPath, value: object) -> str:
        if self._keys.may_hold_secret(path):
            return "the value"
        if isinstance(value, dict):
            return "a map"
        if isinstance(value, list):
            return "a list"
        text = json.dumps(value, default=str, ensure_ascii=False)
        if len(text) > MAX_SHOWN_CHARACTERS:
            text = f"{text[:MAX_SHOWN_CHARACTERS]}…"
        return URL_CREDENTIALS.sub("//***@", text)


def _unreadable(source: SecretSource | None) -> Iterable[Problem]:
    try:
        if source is not None:
            source.current()
    except SettingsError as error:
        return error.problems
    return ()


def _is_about_a_key(detail: ErrorDetails) -> bool:
    return detail["type"] == "invalid_key" or (detail["type"], detail["loc"][-1]) == ("string_type", "[key]")


def _accepted(detail: ErrorDetails) -> str:
    message = ACCEPTED.get(detail["type"], detail["msg"])
    return re.sub("^(Input|String|List) should", "it should", message.removeprefix("Value error, "))
