"""Maps a Segment message to a Flagpost event, or to the reason why there is none.

In: a `Message`. Out: an event, or a `SetAside`. docs/gateway-segment.md has the rules as tables.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from enum import StrEnum
from typing import Any

from flagpost_publisher.gateway.segment.message import Message, MessageError, inner, text
from flagpost_schemas import Event, new_event_id
from flagpost_schemas.json_form import EventFormError, event_from_json

Form = dict[str, Any]
"""An event in Flagpost's own JSON form (see `flagpost_schemas.json_form`), which flattens and checks it."""


class SetAside(StrEnum):
    """Why an accepted message becomes no event."""

    ALIAS = "alias"
    """Pendo cannot merge visitors by its API."""
    NOT_FOR_PENDO = "not_for_pendo"
    """`integrations` switches Pendo off."""
    NO_ID = "no_id"
    """track, page, screen: neither userId nor anonymousId."""
    NO_USER_ID = "no_user_id"
    """identify: no userId, by which Pendo's metadata API names visitors."""
    NO_GROUP_ID = "no_group_id"
    """group: no groupId."""
    NO_EVENT_NAME = "no_event_name"
    """track: no event."""
    NO_TRAITS = "no_traits"
    """identify, group: nothing to tell Pendo."""
    UNKNOWN_TYPE = "unknown_type"
    """A type that the tracking API did not have when this was written."""
    TOO_LARGE = "too_large"
    """A message in a batch with more than 32 KB, or one that becomes larger than an event may be in Kafka."""
    MALFORMED = "malformed"
    """It cannot be understood: no type, a number for a name, a text for properties."""
    NOT_ALLOWED = "not_allowed"
    """A type that may not be sent with the request's key."""


def map_message(message: Message) -> Event | SetAside:
    """Return the event of `message`. Raises MessageError if it cannot be understood."""
    if not _is_for_pendo(message.integrations()):
        return SetAside.NOT_FOR_PENDO
    form = _FORMS[message.kind](message)
    if isinstance(form, SetAside):
        return form
    try:
        event = event_from_json(
            {**_shared(message), **form}, now_ms=message.occurred_at, new_event_id=new_event_id
        )
    except EventFormError as error:
        raise MessageError(str(error)) from None
    # What a batch shares has been read already, and is not read again for each message.
    return replace(event, consent=message.shared.consent) if message.leaves_consent_to_its_batch else event


def _is_for_pendo(integrations: Mapping[str, Any]) -> bool:
    """`All` applies if there is no entry for Pendo; an object with options switches it on."""
    everything = integrations.get("All", integrations.get("all"))
    return integrations.get("Pendo", everything) is not False


def _shared(message: Message) -> Form:
    context = message.context()
    library = inner(context, "library")
    return {
        "event_id": message.event_id(),
        "occurred_at": message.occurred_at,
        "account_id": message.account_id(),
        "context": _context(context, message),
        "consent": message.consent(),
        "source": {"sdk": text(library, "name"), "sdk_version": text(library, "version")},
    }


def _context(context: Mapping[str, Any], message: Message) -> Form:
    """For a page message, the properties also say where it was."""
    page = inner(context, "page")
    properties = message.nested("properties") if message.kind == "page" else {}
    return {
        "ip": text(context, "ip"),
        "user_agent": text(context, "userAgent"),
        "url": text(page, "url") or text(properties, "url"),
        "title": text(page, "title") or text(properties, "title"),
        "locale": text(context, "locale"),
    }


def _track(message: Message) -> Form | SetAside:
    event = message.members.get("event")
    if event is None or event == "":
        return SetAside.NO_EVENT_NAME
    if not isinstance(event, str):
        raise MessageError("event: must be a text, the event's name")
    return _track_form(message, event, message.nested("properties"))


def _page(message: Message) -> Form | SetAside:
    """One event name for all pages, because Pendo has room for 5,000 names; the consumer renames it to
    `page_view`.
    """
    page = inner(message.context(), "page")
    properties = _named_properties(message)
    if text(page, "referrer"):
        properties.setdefault("referrer", page["referrer"])
    return _track_form(message, "page", properties)


def _screen(message: Message) -> Form | SetAside:
    return _track_form(message, "screen", _named_properties(message))


def _named_properties(message: Message) -> Form:
    """`name` and `category` first, because properties are dropped from the last if they are too many for Pendo."""
    named = {name: message.members[name] for name in ("name", "category") if message.members.get(name)}
    return {**named, **message.nested("properties")}


def _track_form(message: Message, event: str, properties: Mapping[str, Any]) -> Form | SetAside:
    visitor_id, anonymous_id = message.id("userId"), message.id("anonymousId")
    if visitor_id is None and anonymous_id is None:
        return SetAside.NO_ID
    return {
        "type": "track",
        "visitor_id": visitor_id,
        "anonymous_id": anonymous_id,
        "event": event,
        "properties": properties,
    }


def _identify(message: Message) -> Form | SetAside:
    visitor_id = message.id("userId")
    if visitor_id is None:
        return SetAside.NO_USER_ID
    return _metadata_form(message, {"type": "visitor", "visitor_id": visitor_id})


def _group(message: Message) -> Form | SetAside:
    account_id = message.id("groupId")
    if account_id is None:
        return SetAside.NO_GROUP_ID
    return _metadata_form(message, {"type": "account", "account_id": account_id})


def _metadata_form(message: Message, whose: Form) -> Form | SetAside:
    traits = message.nested("traits")
    return {**whose, "values": traits} if traits else SetAside.NO_TRAITS


def _alias(_message: Message) -> SetAside:
    return SetAside.ALIAS


_FORMS: dict[str, Callable[[Message], Form | SetAside]] = {
    "track": _track,
    "identify": _identify,
    "group": _group,
    "page": _page,
    "screen": _screen,
    "alias": _alias,
}

KINDS = tuple(_FORMS)
"""The kinds of message in the tracking API."""
