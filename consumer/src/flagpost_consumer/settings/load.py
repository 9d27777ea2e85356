"""Settings from a file and the environment, checked for the command that asks.

In: the file's path, the environment, what the command needs. Out: `Settings`, or one `SettingsError` that names
every problem found.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from flagpost_consumer.core.policy import EndpointLimits, Policy
from flagpost_consumer.settings import keys, rules, sources
from flagpost_consumer.settings.keys import KeyPath
from flagpost_consumer.settings.problems import Problem, SettingsError
from flagpost_consumer.settings.rules import Needs
from flagpost_consumer.settings.sections import Settings
from flagpost_consumer.settings.sources import NOT_GIVEN, Given

MAX_SHOWN_CHARACTERS = 80

URL_CREDENTIALS = re.compile(r"//[^/\s]*@")

ACCEPTED = {
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


def load_settings(config_path: Path | None, environ: Mapping[str, str], needs: Needs) -> Settings:
    """Read and check the settings.

    Args:
        config_path: the YAML file, if there is one.
        environ: the environment; its variables `FLAGPOST_<SECTION>__<KEY>` win over the file.
        needs: what the command cannot do without.

    Raises:
        SettingsError: one line a problem: the key, where its value came from, the value unless it is a secret's,
            and what is accepted.
    """
    given = sources.read(config_path, environ)
    given.tree.pop("publisher", None)
    if Needs.WEBHOOK_TOPIC not in needs:
        given.tree.pop("gateway", None)
    settings = _validated(given)
    problems = [
        *(_not_accepted(given, path, text) for path, text in rules.contradictions(settings)),
        *(
            Problem(keys.dotted(path), given.origin(path), text)
            for path, text in rules.missing(settings, needs)
        ),
        *(problem for error in rules.unreadable(settings, needs) for problem in error.problems),
    ]
    if problems:
        raise SettingsError(problems)
    return settings


def engine_policy(settings: Settings) -> Policy:
    """What the engine decides by."""
    limits = {name: getattr(settings.pendo, name) for name in EndpointLimits.model_fields}
    return Policy(
        delivery=settings.delivery,
        dedupe=settings.dedupe,
        decisions=settings.decisions,
        metadata=settings.metadata,
        mapping=settings.mapping,
        consent=settings.consent,
        limits=EndpointLimits(**limits),
        can_send_metadata=settings.pendo.integration_key_source is not None,
    )


def _validated(given: Given) -> Settings:
    try:
        settings = Settings.model_validate(given.tree)
    except ValidationError as error:
        problems = {problem.key: problem for problem in _problems(given, error)}
        # `from None`: the cause would show the values that the problems keep to themselves.
        raise SettingsError(problems.values()) from None
    if given.problems:
        raise SettingsError(given.problems)
    return settings


def _problems(given: Given, error: ValidationError) -> Iterator[Problem]:
    """What the models refuse, then what the sources do: of two about one key, the later knows more."""
    for detail in error.errors(include_url=False):
        path = tuple(part for part in detail["loc"] if part != "[key]")
        if _is_about_a_key(detail):
            continue  # the sources say it with the line
        if detail["type"] == "extra_forbidden":
            yield sources.unknown(path, given.origin(path))
        else:
            yield _not_accepted(given, path, _accepted(detail))
    yield from given.problems


def _is_about_a_key(detail: ErrorDetails) -> bool:
    return detail["type"] == "invalid_key" or (detail["type"], detail["loc"][-1]) == ("string_type", "[key]")


def _accepted(detail: ErrorDetails) -> str:
    message = ACCEPTED.get(detail["type"], detail["msg"])
    return re.sub("^(Input|String|List) should", "it should", message.removeprefix("Value error, "))


def _not_accepted(given: Given, path: KeyPath, accepted: str) -> Problem:
    value = given.value(path)
    shown = "" if value is NOT_GIVEN else f"{_shown(path, value)} is not accepted: "
    return Problem(keys.dotted(path), given.origin(path), f"{shown}{accepted}")


def _shown(path: KeyPath, value: object) -> str:
    if keys.may_hold_secret(path):
        return "the value"
    if isinstance(value, dict):
        return "a map"
    if isinstance(value, list):
        return "a list"
    text = json.dumps(value, default=str, ensure_ascii=False)
    if len(text) > MAX_SHOWN_CHARACTERS:
        text = f"{text[:MAX_SHOWN_CHARACTERS]}…"
    return URL_CREDENTIALS.sub("//***@", text)
