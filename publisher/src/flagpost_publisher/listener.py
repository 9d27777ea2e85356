"""Makes a DecisionEvent of Optimizely's DECISION notification.

In: the listener's arguments from the SDK (`optimizely.helpers.enums.NotificationTypes.DECISION`), and the publisher's
options. Out: the Avro body of an event with the SDK's decision, or EventRefused.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from flagpost_publisher.errors import AttributeLeftOut, EventRefused
from flagpost_publisher.event_bodies import decision_body
from flagpost_schemas.event_ids import event_id_of
from flagpost_schemas.exposures import exposure_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from flagpost_publisher.arguments import Attributes, IdSource, Options
    from flagpost_publisher.duplicates import Claim
    from flagpost_publisher.errors import PublisherError
    from flagpost_schemas import Scalar, Source
    from flagpost_schemas.exposures import Exposure


def now_ms() -> int:
    """The time now, epoch milliseconds."""
    return time.time_ns() // 1_000_000


def claim_in(visitor_id: str, decision_info: Mapping[str, Any], rule_type: str | None) -> Claim:
    """The decision's claim: like `claim_of` its event, without making the event."""
    enabled = decision_info["enabled"]
    return (
        (visitor_id, decision_info["flag_key"]),
        (
            decision_info["variation_key"] if enabled else "off",
            enabled,
            decision_info["decision_event_dispatched"],
            rule_type,
        ),
    )


def exposure_in(user_id: str, decision_info: Mapping[str, Any]) -> Exposure:
    """What Optimizely is told about the decision: the visitor, and its own ids of experiment and variation."""
    return exposure_of(decision_info.get("experiment_id"), decision_info.get("variation_id"), user_id)


class DecisionReader:
    """Makes event bodies of notifications, without a DecisionEvent in between: that would cost decide() another 3 us.

    `note` is called for attributes that are left out.
    """

    def __init__(self, options: Options, source: Source, note: Callable[[PublisherError], None]) -> None:
        """`source` goes into every event."""
        self._options = options
        self._source = source
        self._note = note

    def visitor_id(self, user_id: str, attributes: Attributes) -> str:
        """The visitor of the decision. Raises EventRefused if there is none, and whatever the option's callable
        raises.
        """
        source = self._options.visitor_id
        visitor_id = user_id if source is None else _id_from(source, user_id, attributes)
        if visitor_id is None:
            raise EventRefused(
                "no_visitor_id",
                "visitor_id returned None for a decision: it is not published; "
                "the attribute or the callable must return an id wherever decide() is called",
            )
        return visitor_id

    def body(
        self,
        randomness: int,
        visitor_id: str,
        user_id: str,
        attributes: Attributes,
        decision_info: Mapping[str, Any],
        rule_type: str | None,
    ) -> bytes:
        """The Avro body of one flag decision that occurs now; its id is made of the 74 bits of `randomness`.

        Raises EncodeError, and whatever the options' callables raise.
        """
        options = self._options
        account = options.account_id
        occurred_at = now_ms()
        return decision_body(
            event_id_of(occurred_at, randomness),
            occurred_at,
            None if account is None else _id_from(account, user_id, attributes),
            None,  # context
            None if options.consent is None else consent_of(options, user_id, attributes),
            self._source,
            visitor_id,
            decision_info["flag_key"],
            decision_info["enabled"],
            decision_info["variation_key"],
            decision_info["rule_key"],
            decision_info["decision_event_dispatched"],
            rule_type,
            decision_info.get("experiment_id"),  # older SDKs do not pass these two
            decision_info.get("variation_id"),
            self._allowed(attributes) if options.attributes else {},
        )

    def _allowed(self, attributes: Attributes) -> dict[str, Scalar]:
        allowed: dict[str, Scalar] = {}
        for name in self._options.attributes:
            if name not in attributes:
                continue
            value = attributes[name]
            if _is_scalar(value):
                allowed[name] = value
            else:
                self._note(_left_out(value))
        return allowed


def consent_of(options: Options, user_id: str, attributes: Attributes) -> dict[str, bool] | None:
    """The consent map that the options give for this user; raises whatever their callable raises."""
    consent = options.consent
    granted = consent(user_id, attributes) if callable(consent) else consent
    return None if granted is None else dict(granted)


def _id_from(source: IdSource, user_id: str, attributes: Attributes) -> str | None:
    if callable(source):
        return source(user_id, attributes)
    value: Any = attributes.get(source)
    return str(value) if type(value) is int else value  # database keys are often numbers


def _is_scalar(value: object) -> bool:
    if isinstance(value, int):
        return -(2**63) <= value < 2**63
    return value is None or isinstance(value, float | str)


def _left_out(value: object) -> AttributeLeftOut:
    return AttributeLeftOut(
        "attribute",
        f"an attribute of type {type(value).__name__} was left out of an event; "
        "None, bool, int of 64 bits, float and str can be encoded",
    )
