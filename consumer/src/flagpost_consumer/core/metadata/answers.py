"""What Pendo's answer to a metadata request says of each record.

In: the answer's body and the ids of the request. Out: which records were refused and why, and whether the answer
names all of them. Pendo's form is `{"total","updated","failed","missing":[id],"errors":[{"index","id","error"}]}`; it
is read tolerantly: an error may name its record by index, id, visitorId or accountId; an error that is not an object
names no record.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import orjson

from flagpost_consumer.core.planning.legible import legible

MAX_DETAIL_CHARACTERS = 200
_ID_MEMBERS = ("id", "visitorId", "accountId")
_TEXT_MEMBERS = ("error", "message", "reason")


@dataclass(frozen=True, slots=True)
class RecordErrors:
    """The records that Pendo refused."""

    refused: Mapping[str, str] = field(default_factory=dict)
    """Id to the reason."""
    unnamed: int = 0
    """How many more records Pendo counts as failed without naming them."""


def read_errors(body: bytes, ids: Sequence[str]) -> RecordErrors:
    """Read an answer; one that cannot be parsed names no error."""
    try:
        answer = orjson.loads(body)
    except orjson.JSONDecodeError:
        return RecordErrors()
    if not isinstance(answer, dict):
        return RecordErrors()
    known = set(ids)
    refused: dict[str, str] = {}
    for missing in _as_list(answer.get("missing")):
        if (missing_id := _id_text(missing)) in known:
            refused[missing_id] = "Pendo does not know this id, and metadata.create_missing is off"
    for error in _as_list(answer.get("errors")):
        if isinstance(error, dict) and (named := _named(error, ids, known)) is not None:
            refused[named] = _text(error)
    failed = answer.get("failed")
    counted = failed if isinstance(failed, int) and not isinstance(failed, bool) else 0
    return RecordErrors(refused, max(0, min(counted, len(known)) - len(refused)))


def _as_list(value: object) -> list[object]:
    return value if isinstance(value, list) else []


def _named(error: Mapping[str, object], ids: Sequence[str], known: set[str]) -> str | None:
    for member in _ID_MEMBERS:
        if (target_id := _id_text(error.get(member))) in known:
            return target_id
    index = error.get("index")
    if isinstance(index, int) and not isinstance(index, bool) and 0 <= index < len(ids):
        return ids[index]
    return None


def _id_text(value: object) -> str | None:
    """An id as the request had it, or None: Pendo may return an id that looks like a number as a number."""
    is_id = isinstance(value, (str, int)) and not isinstance(value, bool)
    return str(value) if is_id else None


def _text(error: Mapping[str, object]) -> str:
    for member in _TEXT_MEMBERS:
        text = error.get(member)
        if isinstance(text, str) and (said := legible(text, MAX_DETAIL_CHARACTERS)):
            return f"Pendo: {said}"
    return "Pendo refused the record without saying why"
