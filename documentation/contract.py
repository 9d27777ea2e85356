"""Writes the made parts of docs/contract.md, and the gateway's OpenAPI document.

In: the programs' own models, commands, enums and schemas. Out: the page with each marked part as the code has it, and
docs/reference/gateway.openapi.json. `make contract` writes both; a test holds that they are up to date.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from enum import Enum
from pathlib import Path
from typing import Any, Final

import click
from pydantic import BaseModel

from documentation import gateway_openapi, made_parts
from flagpost_consumer.commands.cli import flagpost
from flagpost_consumer.commands.explain.stories import MEANINGS
from flagpost_consumer.core.outcomes import Kind, Reason
from flagpost_consumer.settings import Settings
from flagpost_consumer.settings.sections import Region
from flagpost_publisher.gateway.settings import Settings as GatewaySettings
from flagpost_schemas import EVENT_TYPES, LEDGER_SCHEMA, schema_of

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "contract.md"
OPENAPI = ROOT / "docs" / "reference" / "gateway.openapi.json"

_SHARED: Final = ("event_id", "occurred_at", "account_id", "context", "consent", "source")
_NOT_OWN: Final = {"config", "help"}
_SCALAR: Final = ["null", "boolean", "long", "double", "string"]


def page(text: str) -> str:
    """The page's text with each marked part made anew. Raises KeyError for a mark that names no part."""
    for name in made_parts.names(text, "contract"):
        text = made_parts.with_part(text, "contract", name, "\n".join(PARTS[name]()))
    return text


def openapi() -> str:
    """The gateway's OpenAPI document as its file has it."""
    return json.dumps(gateway_openapi.document(), indent=2, ensure_ascii=False) + "\n"


def settings() -> Iterator[str]:
    """Every setting of both programs and its default."""
    yield from ("| key | default |", "|---|---|")
    seen: dict[str, str] = {}
    for model in (Settings, GatewaySettings):
        seen |= {key: default for key, default in defaults(model) if key not in seen}
    for key in sorted(seen, key=lambda key: list(_sections(seen)).index(key.partition(".")[0])):
        yield f"| `{key}` | {seen[key]} |"


def defaults(model: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, str]]:
    """The keys below a model, each with its default as the page shows it."""
    for name, field in model.model_fields.items():
        inner = field.annotation
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            yield from defaults(inner, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", _shown(field.get_default(call_default_factory=True))


def _shown(default: object) -> str:
    if default is None:
        return "none"
    value = default.value if isinstance(default, Enum) else default
    if isinstance(value, str):
        return f"`{value}`"
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return f"`{json.dumps(value)}`"


def _sections(keys: Mapping[str, str]) -> dict[str, None]:
    return dict.fromkeys(key.partition(".")[0] for key in keys)


def regions() -> Iterator[str]:
    """Every region with its URLs."""
    yield from ("| `pendo.region` | track URL | API URL |", "|---|---|---|")
    yield from (f"| `{region.value}` | {region.track_url} | {region.api_url} |" for region in Region)


def outcomes() -> Iterator[str]:
    """Every reason in its precedence, `ok` last."""
    yield from ("| outcome | reason | kinds | what it means |", "|---|---|---|---|")
    for reason in sorted(Reason, key=lambda reason: reason is Reason.OK):
        named = [f"`{kind}`" for kind in Kind if kind in reason.kinds]
        kinds = "all" if len(named) == len(Kind) else ", ".join(named)
        yield f"| `{reason.outcome}` | `{reason}` | {kinds} | {MEANINGS[reason]} |"


def commands() -> Iterator[str]:
    """Every command with its arguments and options."""
    yield from ("| command | options | does |", "|---|---|---|")
    for name, command in every_command(flagpost, "flagpost"):
        options = [_option(each) for each in command.params if isinstance(each, click.Option)]
        usage = " ".join(filter(None, [name, *_arguments(command)])).replace("|", "\\|")
        yield f"| `{usage}` | {' '.join(filter(None, options))} | {command.get_short_help_str(200)} |"


def _arguments(command: click.Command) -> Iterator[str]:
    for each in command.params:
        if isinstance(each, click.Argument):
            yield each.make_metavar(_context(command))


def every_command(command: click.Command, name: str) -> Iterator[tuple[str, click.Command]]:
    """A command and those below it that do something, by the words that are typed."""
    if not isinstance(command, click.Group):
        yield name, command
        return
    for each in command.list_commands(_context(command)):
        below = command.get_command(_context(command), each)
        if below is not None and not below.hidden:
            yield from every_command(below, f"{name} {each}")


def _context(command: click.Command) -> click.Context:
    return click.Context(command, info_name=command.name)


def _option(option: click.Option) -> str:
    if option.name in _NOT_OWN or option.hidden:
        return ""
    return f"`{max(option.opts, key=len)}`"


def records() -> Iterator[str]:
    """Every record's own fields."""
    yield from ("| record | field | type | |", "|---|---|---|---|")
    for event_type in EVENT_TYPES:
        schema = json.loads(schema_of(event_type).text)
        own = [each for each in schema["fields"] if each["name"] not in _SHARED or "null" not in each["type"]]
        own = [each for each in own if each["name"] not in ("event_id", "occurred_at")]
        for field in own:
            yield f"| `{schema['name']}` {_field(field)}"


def shared_fields() -> Iterator[str]:
    """The fields that every record has."""
    schema = json.loads(schema_of(EVENT_TYPES[0]).text)
    yield from ("| field | type | |", "|---|---|---|")
    yield from (_field(each) for each in schema["fields"] if each["name"] in _SHARED)


def ledger() -> Iterator[str]:
    """The ledger's records."""
    yield from ("| record | field | type | |", "|---|---|---|---|")
    yield from _fields(json.loads(LEDGER_SCHEMA.text))


def _fields(record: Mapping[str, Any]) -> Iterator[str]:
    inner: list[Mapping[str, Any]] = []
    for field in record["fields"]:
        yield f"| `{record['name']}` {_field(field)}"
        kind = field["type"]
        if isinstance(kind, dict) and kind["type"] == "array":
            inner.append(kind["items"])
    for each in inner:
        yield from _fields(each)


def _field(field: Mapping[str, Any]) -> str:
    return f"| `{field['name']}` | {_type(field['type'])} | {field.get('doc', '').replace('|', '/')} |"


def _type(kind: Any) -> str:  # noqa: ANN401 - Avro's JSON
    if isinstance(kind, str):
        return kind
    if isinstance(kind, list):
        is_scalar = kind[: len(_SCALAR)] == _SCALAR
        rest = ", ".join(map(_type, kind[len(_SCALAR) :] if is_scalar else kind))
        return " or ".join(filter(None, ["Scalar", rest])) if is_scalar else rest
    return str(kind["logicalType"]) if "logicalType" in kind else _WORDS[kind["type"]](kind)


def _members(record: Mapping[str, Any]) -> str:
    """A record within a field; those of the ledger have rows of their own."""
    names = ", ".join(each["name"] for each in record["fields"])
    return f"{record['name']} ({names})" if record["name"] in ("Context", "Source") else record["name"]


_WORDS: Final[Mapping[str, Callable[[Mapping[str, Any]], str]]] = {
    "array": lambda kind: f"array of {_type(kind['items'])}",
    "map": lambda kind: f"map of {_type(kind['values'])}",
    "enum": lambda kind: f"enum: {', '.join(kind['symbols'])}",
    "fixed": lambda kind: f"{kind['size']} bytes",
    "record": _members,
}
"""An Avro type in words, by its name."""

PARTS: Final[Mapping[str, Callable[[], Iterator[str]]]] = {
    "settings": settings,
    "regions": regions,
    "outcomes": outcomes,
    "commands": commands,
    "records": records,
    "shared fields": shared_fields,
    "ledger": ledger,
}


def write() -> None:
    """Write what is made."""
    PAGE.write_text(page(PAGE.read_text()))
    OPENAPI.write_text(openapi())


if __name__ == "__main__":
    write()
