"""What Pendo has of a visitor or account now, compared with what Flagpost sent.

In: settings and an id; then the stories. Out: Pendo's metadata, and a comparison for each field that the stories set.
Nothing is written.

`GET {api_url}/api/v1/visitor/ID` and `/api/v1/account/ID`, the id percent-encoded, with the integration key (Pendo's
API documentation, "Visitors" and "Accounts"): `{"id": …, "metadata": {"auto": {…}, "agent": {…}, "custom": {…}}}`, or
404 if Pendo does not know the id. Pendo needs minutes until it shows what it received.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import orjson

from flagpost_consumer.adapters.pendo.fields import read_fields
from flagpost_consumer.commands.explain.stories import DeliveryStory, State, Story
from flagpost_consumer.commands.explain.subject import Subject
from flagpost_consumer.core.outcomes import Reason
from flagpost_consumer.core.planning.legible import legible
from flagpost_consumer.core.planning.plan import FieldCatalog
from flagpost_consumer.settings import PendoSettings
from flagpost_schemas import MetadataValue

if TYPE_CHECKING:
    from flagpost_consumer.adapters.http.answers import Reply


TIMEOUT_SECONDS = 5.0
MAX_DETAILS_BYTES = 4_194_304
MAX_WHY_CHARACTERS = 200


class PendoNotTelling(Exception):  # noqa: N818 (a fact, told by an exception)
    """Pendo did not say what it has; the text says why."""


@dataclass(frozen=True, slots=True)
class AtPendo:
    """What Pendo has."""

    is_known: bool
    """Whether Pendo knows the id."""
    metadata: Mapping[str, Mapping[str, Any]]
    """By group, values by API name."""
    fields: FieldCatalog


class Verdict(StrEnum):
    """How Pendo's value of a field compares with ours."""

    SAME = "same"
    WAITING = "waiting"
    """A newer value of ours is not delivered yet."""
    DIFFERENT = "different"
    NOT_SENT = "not_sent"
    """No value of ours was delivered."""


@dataclass(frozen=True, slots=True)
class FieldStory:
    """One field that the records set."""

    group: str
    name: str
    """The name in the settings or the event."""
    api_name: str
    has_value: bool
    """Whether Pendo has a value, which may be null."""
    value: Any
    """Pendo's."""
    verdict: Verdict
    sent: MetadataValue = None
    """The newest value that was delivered."""
    sent_at: int | None = None
    """When, epoch ms; None: none was."""
    detail: str = ""


async def ask_pendo(pendo: PendoSettings, subject: Subject) -> AtPendo:
    """Ask Pendo.

    Raises:
        PendoNotTelling: there is no answer that says what Pendo has.
        SettingsError: the integration key cannot be read.
    """
    from flagpost_consumer.adapters.http.client import NoReply  # noqa: PLC0415 - an HTTP client, not for help
    from flagpost_consumer.commands.sources.pendo_api import pendo_api  # noqa: PLC0415

    async with pendo_api(pendo, timeout_seconds=TIMEOUT_SECONDS, max_body_bytes=MAX_DETAILS_BYTES) as api:
        if api is None:
            raise PendoNotTelling("it needs Pendo's integration key: set pendo.integration_key")
        path = f"/api/v1/{subject.target}/{quote(subject.id, safe='')}"
        try:
            reply, fields = await asyncio.gather(api.get(path), read_fields(api.get_json))
        except NoReply as error:
            raise PendoNotTelling(f"{pendo.urls.api}: {legible(str(error), MAX_WHY_CHARACTERS)}") from None
    return AtPendo(reply.status == 200, _metadata(reply, pendo), fields)


def _metadata(reply: Reply, pendo: PendoSettings) -> Mapping[str, Mapping[str, Any]]:
    if reply.status == 404:
        return {}
    if reply.status in (401, 403):
        raise PendoNotTelling(f"Pendo refuses the integration key ({reply.status}); flagpost check says more")
    if reply.status != 200:
        raise PendoNotTelling(f"{pendo.urls.api} answers {reply.status}")
    try:
        told = orjson.loads(reply.body)
    except orjson.JSONDecodeError:
        told = None
    metadata = told.get("metadata") if isinstance(told, dict) else None
    if not isinstance(metadata, dict):
        raise PendoNotTelling(f"{pendo.urls.api}: the answer is not from Pendo")
    return {str(group): values for group, values in metadata.items() if isinstance(values, dict)}


# The comparison.


@dataclass(frozen=True, slots=True)
class _Told:
    """One value of one delivery."""

    value: MetadataValue
    delivery: DeliveryStory

    @property
    def is_sent(self) -> bool:
        """Whether Pendo got it: it was delivered, or equals the delivered one."""
        delivery = self.delivery
        return delivery.state is State.DELIVERED or (
            delivery.state is State.DUPLICATE and delivery.reason == Reason.UNCHANGED
        )


def compare(stories: Iterable[Story], subject: Subject, at_pendo: AtPendo) -> list[FieldStory]:
    """Each field that the stories set, with Pendo's value."""
    told: dict[tuple[str, str], list[_Told]] = {}
    for story in sorted(stories, key=lambda story: (story.occurred_at or 0, story.partition, story.offset)):
        for field, each in _told(story):
            told.setdefault(field, []).append(each)
    return [_field(group, name, values, subject, at_pendo) for (group, name), values in told.items()]


def _told(story: Story) -> Iterator[tuple[tuple[str, str], _Told]]:
    for delivery in story.deliveries:
        metadata = None if delivery.planned is None else delivery.planned.metadata
        if metadata is not None:
            for name, value in metadata.values.items():
                yield (metadata.group, name), _Told(value, delivery)


def _field(group: str, name: str, told: list[_Told], subject: Subject, at_pendo: AtPendo) -> FieldStory:
    api_name = at_pendo.fields.get((subject.target, group), {}).get(name, name)
    held = at_pendo.metadata.get(group, {})
    has_value, value = api_name in held, held.get(api_name)
    sent = next((each for each in reversed(told) if each.is_sent), None)
    field = (group, name, api_name, has_value, value)
    newest = told[-1]
    if newest.delivery.state is State.PENDING and not _same(newest.value, value):
        detail = "a newer value has not been delivered yet"
        return FieldStory(*field, Verdict.WAITING, *_sent(sent), detail)
    if sent is None:
        ended = newest.delivery
        return FieldStory(*field, Verdict.NOT_SENT, detail=f"{ended.reason or ended.state}: {ended.detail}")
    if _same(sent.value, value):
        return FieldStory(*field, Verdict.SAME, *_sent(sent))
    detail = "Pendo may need some minutes to show it; or something else wrote the field since"
    return FieldStory(*field, Verdict.DIFFERENT, *_sent(sent), detail)


def _sent(sent: _Told | None) -> tuple[MetadataValue, int | None]:
    return (None, None) if sent is None else (sent.value, sent.delivery.settled_at)


def _same(ours: MetadataValue, pendos: Any) -> bool:  # noqa: ANN401 (any JSON)
    """Whether two values are equal: a field's type may have made a text of a number."""
    return bool(ours == pendos) or _text(ours) == _text(pendos)


def _text(value: Any) -> str | None:  # noqa: ANN401 (any JSON)
    if value is None or value == "":
        return None
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) else str(value)
