"""The type of the rule that made a decision of the real SDK: every kind of rule, both values of sendFlagDecisions."""

from __future__ import annotations

import copy
import json
import threading
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any

import pytest
from optimizely.config_manager import BaseConfigManager, PollingConfigManager, StaticConfigManager
from optimizely.event.event_processor import BatchEventProcessor, ForwardingEventProcessor
from optimizely.helpers.enums import NotificationTypes
from optimizely.helpers.sdk_settings import OptimizelySdkSettings
from optimizely.notification_center import NotificationCenter
from optimizely.optimizely import Optimizely
from optimizely.optimizely_user_context import OptimizelyUserContext

from flagpost_publisher.attachment import Attachment
from flagpost_publisher.errors import PublisherError
from flagpost_publisher.rule_types import RuleTypes, read_rule_types
from optimizely_fixtures import (
    DATAFILE,
    EVERYONE,
    TARGETED,
    Nowhere,
    changing_client,
    flag,
    holdout,
    optimizely_client,
    rule,
    user_of,
    variation,
)

SETTINGS = pytest.mark.parametrize("sends_all", [True, False])
"""The values of sendFlagDecisions; new projects have true."""

EXEMPTING = [holdout("h9", "most", EVERYONE, excludeTargetedDeliveries=True)]
"""A holdout of everybody that exempts targeted deliveries."""


class Heard:
    """The rule types that an attachment reports, by flag, and its errors."""

    def __init__(self, client: Optimizely) -> None:
        self.types: dict[str, str | None] = {}
        self.errors: list[PublisherError] = []
        self.attachment = Attachment(client, self._note, None, self.errors.append)
        assert self.attachment.listen() != -1

    def _note(
        self, _user: str, _attributes: Mapping[str, Any], info: Mapping[str, Any], kind: str | None
    ) -> None:
        self.types[info["flag_key"]] = kind


def types_of(
    client: Optimizely, user: Callable[[Optimizely], OptimizelyUserContext]
) -> dict[str, str | None]:
    heard = Heard(client)
    user(client).decide_all()
    assert heard.errors == []
    return heard.types


def anybody(client: Optimizely) -> OptimizelyUserContext:
    return user_of(client, "v")


@SETTINGS
def test_every_kind_of_rule_is_distinguished(sends_all: bool) -> None:
    types = types_of(optimizely_client(sendFlagDecisions=sends_all, **TARGETED), anybody)

    assert types == {
        "checkout": "experiment",
        "banner": "delivery",
        "legacy": "delivery",
        "bare": "none",
        "held": "holdout",
        "vip": "delivery",
    }


@SETTINGS
def test_a_global_holdout_holds_all_flags_out(sends_all: bool) -> None:
    client = optimizely_client(sendFlagDecisions=sends_all, holdouts=[holdout("h9", "all", EVERYONE)])

    assert set(types_of(client, anybody).values()) == {"holdout"}


@SETTINGS
def test_an_exempt_delivery_is_a_delivery_and_a_flag_without_one_is_held_out(sends_all: bool) -> None:
    client = optimizely_client(sendFlagDecisions=sends_all, holdouts=EXEMPTING, **TARGETED)

    assert types_of(client, anybody) == {
        "checkout": "holdout",
        "banner": "delivery",
        "legacy": "delivery",
        "bare": "holdout",
        "held": "holdout",
        "vip": "delivery",
    }


def test_a_visitor_with_no_rule_is_not_taken_for_the_one_held_out_just_before() -> None:
    half = [holdout("h9", "half", EVERYONE // 2, excludeTargetedDeliveries=True)]
    client = optimizely_client(holdouts=half)
    heard = Heard(client)
    held_out: list[str] = []
    client.notification_center.add_notification_listener(
        NotificationTypes.LOG_EVENT,
        lambda event: held_out.extend(
            visitor["visitor_id"]
            for visitor in event.params["visitors"]
            if visitor["snapshots"][0]["decisions"][0]["metadata"]["rule_type"] == "holdout"
        ),
    )
    told = {}
    for number in range(50):
        for flag_key in ("banner", "bare"):
            user_of(client, f"v{number}").decide(flag_key)
            told[f"v{number}"] = heard.types["bare"] if flag_key == "bare" else None

    assert {user for user, kind in told.items() if kind == "holdout"} == set(held_out)
    assert set(told.values()) == {"holdout", "none"}


def test_impressions_in_batches_come_too_late_to_distinguish_a_held_out_visitor_from_one_without_a_rule() -> (
    None
):
    centre = NotificationCenter()
    client = Optimizely(
        json.dumps({**DATAFILE, "holdouts": EXEMPTING}),
        notification_center=centre,
        event_processor=BatchEventProcessor(
            Nowhere, batch_size=1_000, start_on_init=True, notification_center=centre
        ),
        settings=OptimizelySdkSettings(odp_disabled=True),
    )

    types = types_of(client, anybody)
    client.close()

    assert (types["bare"], types["banner"]) == ("none", "delivery")


@SETTINGS
def test_a_forced_decision_has_the_type_of_its_rule_and_without_a_rule_none(sends_all: bool) -> None:
    context = OptimizelyUserContext.OptimizelyDecisionContext
    forced = OptimizelyUserContext.OptimizelyForcedDecision

    def user(client: Optimizely) -> OptimizelyUserContext:
        user = anybody(client)
        user.set_forced_decision(context("checkout", "checkout_test"), forced("treatment"))
        user.set_forced_decision(context("banner", "banner_delivery"), forced("on"))
        user.set_forced_decision(context("held", None), forced("on"))
        return user

    types = types_of(optimizely_client(sendFlagDecisions=sends_all), user)

    assert (types["checkout"], types["banner"], types["held"]) == ("experiment", "delivery", "none")


def test_an_experiment_in_a_group_is_an_experiment() -> None:
    (checkout, held) = DATAFILE["experiments"]
    group = {"id": "g1", "policy": "overlapping", "trafficAllocation": [], "experiments": [checkout]}

    assert (
        types_of(optimizely_client(experiments=[held], groups=[group]), anybody)["checkout"] == "experiment"
    )


def test_the_rules_of_a_new_datafile_are_known_once_it_is_there() -> None:
    client, manager = changing_client()
    heard = Heard(client)
    anybody(client).decide("banner")
    assert heard.types == {"banner": "delivery"}

    experiment = rule("500", "banner_test", [variation("501", "on", on=True)], [EVERYONE])
    manager.exchange(revision="4", experiments=[experiment], featureFlags=[flag("f2", "banner", ["500"], "")])
    anybody(client).decide("banner")
    assert heard.types == {"banner": "experiment"}

    manager.exchange(revision="5", holdouts=[holdout("h9", "all", EVERYONE)])
    anybody(client).decide("banner")
    assert heard.types == {"banner": "holdout"}


def test_leave_removes_all_listeners_of_a_client() -> None:
    client, manager = changing_client()
    heard = Heard(client)
    heard.attachment.leave()
    manager.exchange(revision="4")
    anybody(client).decide("banner")

    assert heard.types == {}
    assert all(not listeners for listeners in client.notification_center.notification_listeners.values())


def test_two_clients_whose_rules_have_the_same_keys_are_not_mixed_up() -> None:
    experiment = rule("900", "banner_delivery", [variation("901", "on", on=True)], [EVERYONE])
    one = Heard(optimizely_client())
    other_client = optimizely_client(
        experiments=[experiment], featureFlags=[flag("f2", "banner", ["900"], "")], localHoldouts=[]
    )
    other = Heard(other_client)
    anybody(one.attachment.client).decide("banner")
    anybody(other_client).decide("banner")

    assert (one.types["banner"], other.types["banner"]) == ("delivery", "experiment")


def test_a_client_without_a_datafile_yet_is_not_waited_for() -> None:
    """get_config() of PollingConfigManager blocks until there is a datafile, by default for up to ten seconds."""

    class Waiting(PollingConfigManager):
        asked = threading.Event()

        def initialize_thread(self) -> None:
            """Start no thread: nothing is fetched."""

        def get_config(self) -> None:
            self.asked.set()

    centre = NotificationCenter()
    manager = Waiting(
        sdk_key="key", notification_center=centre, update_interval=timedelta(days=1).total_seconds()
    )
    client = Optimizely(
        config_manager=manager,
        notification_center=centre,
        settings=OptimizelySdkSettings(odp_disabled=True),
    )
    Waiting.asked.clear()
    heard = Heard(client)

    assert not Waiting.asked.is_set()
    assert heard.errors == []


def test_an_applications_own_config_manager_is_asked() -> None:
    inner = StaticConfigManager(datafile=json.dumps(DATAFILE))

    class Own(BaseConfigManager):
        def get_config(self) -> Any:
            return inner.get_config()

        def get_sdk_key(self) -> str | None:
            return None

    centre = NotificationCenter()
    client = Optimizely(
        config_manager=Own(notification_center=centre),
        notification_center=centre,
        event_processor=ForwardingEventProcessor(Nowhere, notification_center=centre),
        settings=OptimizelySdkSettings(odp_disabled=True),
    )

    assert types_of(client, anybody)["checkout"] == "experiment"


def test_a_datafile_of_another_form_is_reported_and_decisions_go_on_without_a_type() -> None:
    client = optimizely_client()
    client.config_manager.optimizely_config = object()  # type: ignore[assignment]
    heard = Heard(client)
    anybody(client).decide("checkout")

    assert heard.types == {"checkout": None}
    assert [error.kind for error in heard.errors] == ["rules"]
    assert isinstance(heard.errors[0].__cause__, AttributeError)


def test_decisions_of_an_sdk_that_passes_no_ids_are_found_by_flag_and_rule_key() -> None:
    rules = read_rule_types(optimizely_client().get_optimizely_config())

    assert rules.of({"flag_key": "checkout", "rule_key": "checkout_test"}) == "experiment"
    assert rules.of({"flag_key": "banner", "rule_key": "banner_delivery"}) == "delivery"
    assert rules.of({"flag_key": "banner", "rule_key": "checkout_test"}) is None


def test_before_a_datafile_is_read_no_rule_is_known() -> None:
    assert RuleTypes().of({"flag_key": "f", "rule_key": "r", "experiment_id": "1"}) is None
    assert RuleTypes().of({"flag_key": "f", "rule_key": None, "experiment_id": None}) == "none"


def test_the_sdks_own_impressions_have_the_same_rule_types() -> None:
    """The SDK's impressions of the same decisions have the same types of rule."""
    client = optimizely_client(**copy.deepcopy(TARGETED))
    heard = Heard(client)
    impressions: dict[str, str] = {}

    def note(event: Any) -> None:
        (visitor,) = event.params["visitors"]
        metadata = visitor["snapshots"][0]["decisions"][0]["metadata"]
        impressions[metadata["flag_key"]] = metadata["rule_type"]

    client.notification_center.add_notification_listener(NotificationTypes.LOG_EVENT, note)
    anybody(client).decide_all()

    as_impression = {
        "experiment": "feature-test",
        "delivery": "rollout",
        "none": "rollout",
        "holdout": "holdout",
    }
    targeted = {"vip": "feature-test"}  # the SDK's own word for a delivery among the experiments
    told = {flag_key: as_impression[str(kind)] for flag_key, kind in heard.types.items()}
    assert impressions == told | targeted
