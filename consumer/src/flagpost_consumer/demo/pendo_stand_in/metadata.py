"""Pendo's metadata: which visitors and accounts exist, their values, and the schema of the fields.

In: the records of a request. Out: the result for each, in the form of Pendo's answer.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from flagpost_consumer.demo.pendo_stand_in.config import MetadataField, UnmappedFields
from flagpost_consumer.demo.pendo_stand_in.rules import METADATA_VALUE_CHARACTERS, MetadataRecord
from flagpost_consumer.demo.pendo_stand_in.traffic import Group, Kind, Route

Values = dict[str, object]


@dataclass(slots=True)
class Outcome:
    """The results of a request's records."""

    updated: int = 0
    missing: list[str] = field(default_factory=list)
    failed: list[tuple[MetadataRecord, str]] = field(default_factory=list)


class Metadata:
    """Values by id, for visitors and accounts."""

    def __init__(self, fields: Iterable[MetadataField], unmapped: UnmappedFields) -> None:
        self._fields = {(field.kind, field.group, field.api_name): field for field in fields}
        self._unmapped = unmapped
        self._values: dict[tuple[Kind, str], dict[Group, Values]] = {}

    def declare(self, fields: Iterable[MetadataField]) -> None:
        """Add fields to the schema."""
        self._fields.update({(field.kind, field.group, field.api_name): field for field in fields})

    def schema(self, kind: Kind) -> Mapping[str, Mapping[str, Mapping[str, str]]]:
        """The answer of Pendo's schema endpoint: group to API name to description."""
        groups: dict[str, dict[str, Mapping[str, str]]] = {group.value: {} for group in Group}
        for declared in self._fields.values():
            if declared.kind is kind:
                description = {"Type": declared.type, "DisplayName": declared.display_name}
                groups[declared.group][declared.api_name] = description
        return groups

    def add(self, kind: Kind, *ids: str) -> None:
        """Add visitors or accounts."""
        for identity in ids:
            self._values.setdefault((kind, identity), {})

    def values(self, kind: Kind, identity: str, group: Group = Group.CUSTOM) -> Values:
        """The stored values of an id, by field."""
        return dict(self._values.get((kind, identity), {}).get(group, {}))

    def details(self, kind: Kind, identity: str) -> Mapping[str, object] | None:
        """The answer of Pendo's endpoint for one visitor or account; None: there is no such id."""
        groups = self._values.get((kind, identity))
        if groups is None:
            return None
        metadata = {group.value: groups.get(group, {}) for group in Group}
        return {"id": identity, "metadata": {"auto": {"id": identity}, **metadata}}

    def forget(self) -> None:
        """Forget every id and value; the schema stays."""
        self._values.clear()

    def unmapped_in(self, route: Route, records: Iterable[MetadataRecord]) -> str | None:
        """The first field that makes Pendo refuse the whole request, if there is one."""
        if self._unmapped is not UnmappedFields.REFUSE_BATCH:
            return None
        names = (name for record in records for name in record.values)
        return next((name for name in names if not self._is_declared(route, name)), None)

    def apply(
        self, route: Route, records: Iterable[MetadataRecord], failing: Mapping[str, str], *, create: bool
    ) -> Outcome:
        """Store what can be stored; `failing` has the error for each id that is to fail."""
        outcome = Outcome()
        for record in records:
            if not create and (route.kind, record.id) not in self._values:
                outcome.missing.append(record.id)
            elif error := failing.get(record.id) or self._wrong_with(route, record):
                outcome.failed.append((record, error))
            else:
                groups = self._values.setdefault((route.kind, record.id), {})
                groups.setdefault(route.group, {}).update(record.values)
                outcome.updated += 1
        return outcome

    def _wrong_with(self, route: Route, record: MetadataRecord) -> str | None:
        for name, value in record.values.items():
            if isinstance(value, str) and len(value) > METADATA_VALUE_CHARACTERS:
                return f"value of {name} is over {METADATA_VALUE_CHARACTERS} characters"
            if self._unmapped is UnmappedFields.FAIL_RECORD and not self._is_declared(route, name):
                return f"field {name} is not mapped"
        return None

    def _is_declared(self, route: Route, name: str) -> bool:
        return (route.kind, route.group, name) in self._fields
