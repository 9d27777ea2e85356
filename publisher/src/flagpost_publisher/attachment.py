"""One Optimizely client that a publisher listens to: its decisions, its impressions, and the rules of its datafile.

In: the client. Out: each decision about a flag, with the type of the rule that made it; impressions as they are sent.
The rules are read when the client is attached and whenever its datafile changes, by the thread that brings it;
decide() only looks them up.
"""

from __future__ import annotations

import contextlib
from threading import local
from typing import TYPE_CHECKING, Any, TypeAlias

from flagpost_publisher.errors import PublisherError
from flagpost_publisher.rule_types import HOLDOUT, NONE, RuleTypes, held_out_in, read_rule_types

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from flagpost_publisher.arguments import Attributes

    OnImpressions: TypeAlias = Callable[[Mapping[str, Any], RuleTypes], None]
    """Called with a LOG_EVENT's impressions, and the rules of the client's datafile."""

    OnDecision: TypeAlias = Callable[[str, Attributes, Mapping[str, Any], str | None], None]
    """Called with each decision about a flag: user id, attributes, decision_info, type of the rule; must not
    raise.
    """

FLAG_DECISION = "flag"
"""The type of notification from decide(), decide_for_keys() and decide_all(), one for each flag."""


class Attachment:
    """A client, and our listeners on it: they never raise."""

    def __init__(
        self,
        client: Any,  # noqa: ANN401 - optimizely is an extra
        on_decision: OnDecision,
        on_impressions: OnImpressions | None,
        complain: Callable[[PublisherError], None],
    ) -> None:
        """Adds no listener yet: see `listen`. None: impressions are not needed."""
        self.client = client
        self._on_decision = on_decision
        self._on_impressions = on_impressions
        self._complain = complain
        self._rules = RuleTypes()
        self._thread = (
            local()
        )  # .held_out: the user and flag of a holdout's impression that this thread has just sent
        self._listeners: list[int] = []

    def listen(self) -> int:
        """Add the listeners. Returns the id of the one for decisions; -1: the client already has it, or refuses it.

        Raises anything if the object is not a client.
        """
        from optimizely.helpers.enums import NotificationTypes  # noqa: PLC0415 - an extra

        add = self.client.notification_center.add_notification_listener
        decisions: int = add(NotificationTypes.DECISION, self.hear_of_decision)
        if decisions != -1:
            self._listeners = [
                decisions,
                add(NotificationTypes.LOG_EVENT, self.hear_of_impressions),
                add(NotificationTypes.OPTIMIZELY_CONFIG_UPDATE, self.read_rules),
            ]
            self.read_rules()
        return decisions

    def leave(self) -> None:
        """Remove the listeners. Never raises."""
        while self._listeners:
            with contextlib.suppress(Exception):
                self.client.notification_center.remove_notification_listener(self._listeners.pop())

    def read_rules(self) -> None:
        """The datafile has arrived or changed: read its rules."""
        try:
            manager = self.client.config_manager
            if not hasattr(manager, "optimizely_config"):  # one of the application's own
                self._read(self.client.get_optimizely_config())
                return
            read = None
            # Asking the client would wait for its first datafile. Another thread may bring the next one meanwhile.
            while (config := manager.optimizely_config) is not read:
                self._read(config)
                read = config
        except Exception as error:  # noqa: BLE001 - nothing raises into the application
            self._rules = RuleTypes()
            self._complain(_unread(error))

    def hear_of_impressions(self, log_event: Any) -> None:  # noqa: ANN401 - the SDK's
        """The SDK sends impressions: from its own thread, or within decide(), depending on its event processor."""
        rules = self._rules
        if self._on_impressions is None and not rules.holdouts_exempt_deliveries:
            return
        with contextlib.suppress(Exception):
            if self._on_impressions is not None:
                self._on_impressions(log_event.params, rules)
            if rules.holdouts_exempt_deliveries:
                self._thread.held_out = held_out_in(log_event.params) or self._just_held_out()

    def hear_of_decision(
        self, kind: str, user_id: str, attributes: Attributes, decision_info: Mapping[str, Any]
    ) -> None:
        """The SDK has decided; called within decide()."""
        if kind != FLAG_DECISION:
            return
        rules = self._rules
        rule_type = rules.of(decision_info)
        if rules.holdouts_exempt_deliveries:
            rule_type = self._unless_held_out(rule_type, user_id, decision_info)
        self._on_decision(user_id, attributes, decision_info, rule_type)

    def _read(self, config: Any) -> None:  # noqa: ANN401 - an OptimizelyConfig; None: there is none yet
        self._rules = RuleTypes() if config is None else read_rule_types(config)

    def _unless_held_out(
        self, rule_type: str | None, user_id: str, decision_info: Mapping[str, Any]
    ) -> str | None:
        """`rule_type`, or holdout for a user who was held out and got no delivery: the decision does not say so."""
        held_out = self._just_held_out() == (user_id, decision_info["flag_key"])
        self._thread.held_out = None
        if rule_type != NONE or decision_info["variation_key"] is not None:
            return rule_type
        # If deliveries have no impressions, the impression of such a decision can only be the holdout's.
        told = decision_info["decision_event_dispatched"] and not self._rules.sends_flag_decisions
        return HOLDOUT if held_out or told else rule_type

    def _just_held_out(self) -> tuple[str, str] | None:
        """The user and flag of the holdout's impression that this thread has sent since its last decision."""
        return getattr(self._thread, "held_out", None)


def _unread(error: Exception) -> PublisherError:
    told = PublisherError(
        "rules",
        f"the datafile's rules could not be read: {type(error).__name__} was raised, see __cause__; "
        "events carry no rule_type",
    )
    told.__cause__ = error
    return told
