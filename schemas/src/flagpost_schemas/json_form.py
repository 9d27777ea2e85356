"""Events as JSON: the form that the gateway accepts and that `flagpost preview` reads.

In: one JSON object with `"type"` `decision`, `track`, `visitor` or `account` and the record's fields by name. Out: a
typed event. `occurred_at` is read by `times`, needs an offset, and may be left out (now), `event_id` too (a new one);
attributes and properties may nest and are flattened (see `flatten`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import MISSING, Field, dataclass, fields
from typing import Any

from flagpost_schemas.edge_rules import HOLDS_NUL, identifier_with_nul
from flagpost_schemas.events import (
    AccountMetadata,
    Context,
    DecisionEvent,
    Event,
    MetadataGroup,
    RuleType,
    Source,
    TrackEvent,
    VisitorMetadata,
)
from flagpost_schemas.flatten import flatten
from flagpost_schemas.times import epoch_ms, read_time

TYPES: dict[str, type[Event]] = {
    "decision": DecisionEvent,
    "track": TrackEvent,
    "visitor": VisitorMetadata,
    "account": AccountMetadata,
}

_INT64 = range(-(2**63), 2**63)


class EventFormError(ValueError):
    """JSON that is not an event: `field` says where, `problem` says what is wrong and what is expected."""

    def __init__(self, field: str, problem: str) -> None:
        """The texts must not contain a value: it may be personal."""
        super().__init__(f"{field}: {problem}")
        self.field = field
        self.problem = problem


def event_from_json(document: object, *, now_ms: int, new_event_id: Callable[[], str]) -> Event:
    """Read one event. Raises EventFormError for the first wrong field.

    `new_event_id` is called if the document has no `event_id`.
    """
    if not isinstance(document, dict):
        raise EventFormError("event", f"must be a JSON object, not {_kind(document)}")
    given = dict(document)
    event_type = _event_type(given.pop("type", None))
    known = {field.name: field for field in fields(event_type)}
    for name in given:
        if name not in known:
            raise EventFormError(
                _whole("event", name) or '""',
                f"is not a field of a {event_type.__name__}; it has {', '.join(known)}",
            )
    given.setdefault("occurred_at", now_ms)
    given.setdefault("event_id", None)
    if given["event_id"] is None:
        given["event_id"] = new_event_id()
    event = event_type(**{name: _read(field, given) for name, field in known.items()})
    wrong = identifier_with_nul(event)
    if wrong is not None:
        raise EventFormError(wrong, HOLDS_NUL)
    return event


def _event_type(name: object) -> type[Event]:
    found = TYPES.get(name) if isinstance(name, str) else None
    if found is None:
        raise EventFormError("type", f"must be one of {', '.join(TYPES)}")
    return found


def _read(field: Field[Any], given: Mapping[str, Any]) -> Any:  # noqa: ANN401 - a field's value
    name = field.name
    if name not in given:
        if field.default is not MISSING:
            return field.default
        if field.default_factory is not MISSING:
            return field.default_factory()
        raise EventFormError(name, "is missing")
    value = given[name]
    if value is None and field.default is None:
        return None
    return _READERS.get(name, _text)(name, value)


def _text(name: str, value: object) -> str:
    if isinstance(value, str):
        return _whole(name, value)
    raise EventFormError(name, f"must be a text, not {_kind(value)}")


def _whole(name: str, text: str) -> str:
    """JSON can escape half of a surrogate pair, which neither Avro nor Pendo accepts."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise EventFormError(name, "holds half of a surrogate pair; send whole characters") from None
    return text


def _boolean(name: str, value: object) -> bool:
    if isinstance(value, bool):
        return value
    raise EventFormError(name, f"must be true or false, not {_kind(value)}")


def _moment(name: str, value: object) -> int:
    moment = read_time(value)
    if moment is None or moment.tzinfo is None:
        raise EventFormError(
            name, "must be epoch milliseconds or RFC 3339 with an offset, like 2026-01-31T12:00:00Z"
        )
    # A whole number is epoch ms, however small: events are also shown in this form.
    return value if isinstance(value, int) else epoch_ms(moment)


def _mapping(name: str, value: object) -> dict[str, Any]:
    if isinstance(value, dict):
        return value
    raise EventFormError(name, f"must be an object, not {_kind(value)}")


def _flat(name: str, value: object) -> dict[str, Any]:
    given = _mapping(name, value)
    try:
        flat = flatten(given)
    except ValueError as error:
        raise EventFormError(name, str(error)) from None
    return {_whole(name, key): _scalar(f"{name}.{key}", member) for key, member in flat.items()}


def _scalar(name: str, value: object) -> object:
    if isinstance(value, _Texts):
        return [_whole(name, each) for each in value.members]
    if isinstance(value, str):
        return _whole(name, value)
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int):
        if value not in _INT64:
            raise EventFormError(name, "must fit in 64 bits")
        return value
    if isinstance(value, float):
        if not math.isfinite(value):
            raise EventFormError(name, "must be a finite number; leave it out where there is none")
        return value
    raise EventFormError(name, f"must be a text, a number, true, false or null, not {_kind(value)}")


@dataclass(frozen=True, slots=True)
class _Texts:
    """A list of texts that must stay a list."""

    members: list[str]


def _metadata_values(name: str, value: object) -> dict[str, Any]:
    """Lists of texts are values of their own in Pendo's metadata; everything else is flattened."""
    return _flat(name, {key: _kept(member) for key, member in _mapping(name, value).items()})


def _kept(member: object) -> object:
    if isinstance(member, list) and all(isinstance(each, str) for each in member):
        return _Texts(member)
    return member


def _consent(name: str, value: object) -> dict[str, bool]:
    given = _mapping(name, value)
    return {_whole(name, key): _boolean(f"{name}.{key}", member) for key, member in given.items()}


def _group(name: str, value: object) -> MetadataGroup:
    if isinstance(value, str) and value in set(MetadataGroup):
        return MetadataGroup(value)
    raise EventFormError(name, f"must be one of {', '.join(MetadataGroup)}")


def _rule_type(name: str, value: object) -> str:
    if isinstance(value, str) and value in set(RuleType):
        return value
    raise EventFormError(name, f"must be null or one of {', '.join(RuleType)}")


def _members(kind: type[Context | Source]) -> Callable[[str, object], Context | Source]:
    def read(name: str, value: object) -> Context | Source:
        known = [field.name for field in fields(kind)]
        members = _mapping(name, value)
        for key, member in members.items():
            if key not in known:
                raise EventFormError(
                    f"{name}.{_whole(name, key)}", f"is not a member of {name}; it has {', '.join(known)}"
                )
            if member is not None:
                _text(f"{name}.{key}", member)
        return kind(**members)

    return read


_READERS: dict[str, Callable[[str, object], Any]] = {
    "occurred_at": _moment,
    "enabled": _boolean,
    "decision_event_dispatched": _boolean,
    "attributes": _flat,
    "properties": _flat,
    "values": _metadata_values,
    "consent": _consent,
    "group": _group,
    "rule_type": _rule_type,
    "context": _members(Context),
    "source": _members(Source),
}

_KINDS = {dict: "an object", list: "a list", str: "a text", bool: "true or false", type(None): "null"}


def _kind(value: object) -> str:
    return _KINDS.get(type(value), "a number" if isinstance(value, (int, float)) else type(value).__name__)
