"""Makes events of rows, checked by the consumer's own rules.

In: rows, the time. Out: the record for each, or a RowError for what the consumer, Kafka or Pendo would refuse later.
An event's id is made from the row's content, so that the same row is the same event, in any order of its columns and
in any file.
"""

from __future__ import annotations

import hashlib
import math
from typing import Any, NamedTuple, TypeAlias

import orjson

from flagpost_consumer.commands.imports.columns import CellError, is_utf8, read_occurred_at
from flagpost_consumer.commands.imports.roles import CONTEXT, PROPERTIES, RoleFinder, Roles
from flagpost_consumer.commands.imports.rows import Members, RowError
from flagpost_consumer.core.outcomes import Ending, Reason
from flagpost_consumer.core.planning.ledger_ids import MAX_TEXT_CHARACTERS
from flagpost_consumer.core.planning.plan import Planner
from flagpost_consumer.core.policy import Policy
from flagpost_schemas import Event, MetadataGroup, encode_single_object, flatten, partition_key
from flagpost_schemas.edge_rules import DEFAULT_MAX_EVENT_BYTES, too_large
from flagpost_schemas.json_form import TYPES, EventFormError, event_from_json

Document: TypeAlias = dict[str, Any]
"""An event in the gateway's form (docs/contract.md#gateway), possibly without its id and time."""

_CONTAINERS = {"visitor": "values", "account": "values", "track": "properties"}
"""The field for the columns without a role."""
_REQUIRED = {"visitor": "visitor_id", "account": "account_id", "track": "event"}
_IDS = {
    "visitor": ("visitor_id", "account_id"),
    "account": ("account_id",),
    "track": ("visitor_id", "anonymous_id", "account_id"),
}
_FIELDS = {"event_id", "occurred_at", "event"}
"""Fields in which the planner may find an error; ids are checked here."""
_OWN_NAMES = Roles({})
"""The roles of an object in the gateway's form: its members have the names of the fields."""


class Produced(NamedTuple):
    """One record for the events topic."""

    key: bytes | None
    value: bytes


class RowEvents:
    """Makes the events of one import."""

    def __init__(
        self,
        type_name: str,
        group: MetadataGroup,
        roles: RoleFinder,
        policy: Policy,
        max_event_bytes: int = DEFAULT_MAX_EVENT_BYTES,
    ) -> None:
        """`policy` is the consumer's; only whether there is an integration key for Pendo is ignored here."""
        self._max_event_bytes = max_event_bytes
        self._type = type_name
        self._event_type = TYPES[type_name]
        self._container = _CONTAINERS[type_name]
        self._constants = {"type": type_name} if type_name == "track" else {"type": type_name, "group": group}
        self._roles = roles
        self._planner = Planner(policy.model_copy(update={"can_send_metadata": True}))
        self.earliest_ms = math.inf
        """When the earliest event so far occurred, epoch ms."""

    def from_cells(self, members: Members, roles: Roles, now_ms: int) -> Produced:
        """The record of a CSV row with typed values. `members` is used up.

        Raises:
            RowError: the row cannot be imported.
        """
        document = self._document(members, roles)
        self._require(document, roles)
        try:
            document["event_id"] = content_id(document)
        except orjson.JSONEncodeError:
            raise RowError(
                self._undecodable(document, roles), "is not UTF-8; save the file as UTF-8"
            ) from None
        if roles.holds_objects:
            return self._from_form(document, roles, now_ms)
        del document["type"]
        document.setdefault("occurred_at", now_ms)
        if self._type == "track":  # its properties contain no lists
            document["properties"] = flatten(document["properties"])
        return self._checked(self._event_type(**document), roles, now_ms)

    def from_json(self, members: Members, now_ms: int) -> Produced:
        """The record of a JSON object: a row, or an event in the gateway's form. `members` is used up.

        Raises:
            RowError: the object cannot be imported.
        """
        if isinstance(members.get(self._container), dict):
            roles, document = _OWN_NAMES, {**self._constants, **members}
            if document["type"] != self._type:
                raise RowError(
                    "type", f"is not {self._type}, the type given with --type; import other types separately"
                )
        else:
            roles = self._roles.find(tuple(members))
            document = self._document(members, roles)
            _read_json_fields(document, roles)
        return self._from_form(document, roles, now_ms)

    def _from_form(self, document: Document, roles: Roles, now_ms: int) -> Produced:
        """The record of an event in the gateway's form."""
        try:
            event = event_from_json(document, now_ms=now_ms, new_event_id=lambda: content_id(document))
        except EventFormError as error:
            raise RowError(self._column(error.field, roles), error.problem) from None
        except orjson.JSONEncodeError:
            raise RowError(None, "the objects are nested too deeply; flatten them") from None
        return self._checked(event, roles, now_ms)

    def _document(self, members: Members, roles: Roles) -> Document:
        document: Document = dict(self._constants)
        listed: Members = {}
        for field, column in roles.column_of.items():
            if column not in members:
                continue
            value = members.pop(column)
            if field == PROPERTIES:
                listed = _listed(column, value)
            elif field.startswith(CONTEXT):
                document.setdefault("context", {})[field.removeprefix(CONTEXT)] = value
            else:
                document[field] = value
        document[self._container] = {**listed, **members}
        return document

    def _require(self, document: Document, roles: Roles) -> None:
        for field in (_REQUIRED[self._type], "occurred_at"):
            if field in roles.column_of and document.get(field) is None:
                raise RowError(roles.column_of[field], "is empty; every row needs it")

    def _checked(self, event: Event, roles: Roles, now_ms: int) -> Produced:
        for field in _IDS[self._type]:
            wrong = _wrong_id(getattr(event, field))
            if wrong is not None:
                raise RowError(roles.column_of.get(field, field), wrong)
        (planned,) = self._planner.plan(event, now_ms)
        if planned.ending is not None:
            raise self._refused(planned.ending, roles)
        produced = Produced(partition_key(event), encode_single_object(event))
        wrong = too_large(produced.key, len(produced.value), self._max_event_bytes)
        if wrong is not None:
            raise RowError(None, f"the row {wrong}; remove columns, or see kafka.max_event_bytes")
        self.earliest_ms = min(self.earliest_ms, event.occurred_at)
        return produced

    def _refused(self, ending: Ending, roles: Roles) -> RowError:
        """The consumer's ending, expressed about the row."""
        if ending.reason is Reason.NO_VISITOR_ID:
            column = self._column("visitor_id", roles)
            return RowError(column, "is empty; fill it in, or import anonymous ids: see mapping.anonymous")
        if ending.reason is Reason.EXPIRED:
            return RowError(self._column("occurred_at", roles), ending.detail)
        # The planner's message about an invalid event begins with the field, if one is at fault.
        field, _, problem = ending.detail.partition(" ")
        if ending.reason is Reason.INVALID and field in _FIELDS:
            return RowError(self._column(field, roles), problem)
        return RowError(None, ending.detail)

    def _column(self, field: str, roles: Roles) -> str:
        """The column of a field of the event, or of a member of its container."""
        if roles is _OWN_NAMES:
            return field
        return roles.column_of.get(field, field.removeprefix(f"{self._container}."))

    def _undecodable(self, document: Document, roles: Roles) -> str | None:
        """The column with bytes that are not UTF-8."""
        context = {CONTEXT + name: value for name, value in document.get("context", {}).items()}
        cells = {roles.column_of.get(field, field): value for field, value in {**document, **context}.items()}
        cells |= cells.pop(self._container)
        texts = {column: "".join(value) for column, value in cells.items() if isinstance(value, str | list)}
        return next((column for column, text in texts.items() if not is_utf8(text)), None)


def _listed(column: str, value: object) -> Members:
    """The properties in a column that contains all of them as JSON."""
    try:
        listed = orjson.loads(value) if isinstance(value, str) else value
    except orjson.JSONDecodeError:
        listed = value
    if listed is None:
        return {}
    if not isinstance(listed, dict):
        raise RowError(column, 'is not a JSON object; write the properties as {"name": value}')
    return listed


def content_id(document: Document) -> str:
    """An event id made from a document's content, whatever the order of its members.

    Raises:
        orjson.JSONEncodeError: a text is not UTF-8, or objects nest too deep to be written.
    """
    content = orjson.dumps(document, option=orjson.OPT_SORT_KEYS)
    return f"import-{hashlib.blake2b(content, digest_size=16).hexdigest()}"


def _read_json_fields(document: Document, roles: Roles) -> None:
    """Convert what JSON writes in more than one way: times, and ids that are whole numbers."""
    for field in roles.column_of:
        value = document.get(field)
        if field == "occurred_at" and isinstance(value, str):
            try:
                document[field] = read_occurred_at(value)
            except CellError as error:
                raise RowError(roles.column_of[field], str(error)) from None
        elif field.endswith("_id") and type(value) is int:
            document[field] = str(value)


def _wrong_id(value: str | None) -> str | None:
    if value is None:
        return None
    if not value:
        return "is empty; every row needs it"
    if value != value.strip():
        return "begins or ends with white space, which makes it a different id; remove it"
    if len(value) > MAX_TEXT_CHARACTERS:
        return f"has {len(value):,} characters; an id may have at most {MAX_TEXT_CHARACTERS:,}"
    return None
