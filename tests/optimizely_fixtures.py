"""An Optimizely project as a datafile, with a rule of every type, and clients that send nothing.

Flags: `checkout` (an experiment: control is off, treatment on), `banner` (a rollout to everybody), `legacy`
(a rollout that is switched off), `bare` (no rules), `held` (an experiment behind a local holdout).
"""

from __future__ import annotations

import copy
import json
from typing import Any

from optimizely.config_manager import StaticConfigManager
from optimizely.event.event_processor import ForwardingEventProcessor
from optimizely.helpers.sdk_settings import OptimizelySdkSettings
from optimizely.notification_center import NotificationCenter
from optimizely.optimizely import Optimizely
from optimizely.optimizely_user_context import OptimizelyUserContext, UserAttributes

EVERYONE = 10_000


def variation(identity: str, key: str, *, on: bool) -> dict[str, Any]:
    return {"id": identity, "key": key, "featureEnabled": on, "variables": []}


def rule(identity: str, key: str, variations: list[dict[str, Any]], shares: list[int]) -> dict[str, Any]:
    """An experiment or delivery; `shares` are the ends of the variations' ranges, of 10,000."""
    return {
        "id": identity,
        "key": key,
        "status": "Running",
        "layerId": f"layer-{identity}",
        "audienceIds": [],
        "forcedVariations": {},
        "variations": variations,
        "trafficAllocation": [
            {"entityId": each["id"], "endOfRange": end} for each, end in zip(variations, shares, strict=True)
        ],
    }


def flag(identity: str, key: str, experiments: list[str], rollout: str) -> dict[str, Any]:
    return {"id": identity, "key": key, "experimentIds": experiments, "rolloutId": rollout, "variables": []}


def holdout(identity: str, key: str, share: int, **more: Any) -> dict[str, Any]:
    off = variation(f"{identity}-off", "ho_off", on=False)
    return {
        "id": identity,
        "key": key,
        "status": "Running",
        "variations": [off],
        "trafficAllocation": [{"entityId": off["id"], "endOfRange": share}],
        "audienceIds": [],
        **more,
    }


DATAFILE: dict[str, Any] = {
    "version": "4",
    "accountId": "1",
    "projectId": "2",
    "revision": "3",
    "sdkKey": "flagpost-tests",
    "sendFlagDecisions": True,
    "anonymizeIP": True,
    "botFiltering": False,
    "events": [],
    "attributes": [{"id": "a1", "key": "plan"}, {"id": "a2", "key": "age"}],
    "audiences": [],
    "typedAudiences": [],
    "groups": [],
    "integrations": [],
    "experiments": [
        rule(
            "100",
            "checkout_test",
            [variation("101", "control", on=False), variation("102", "treatment", on=True)],
            [5_000, EVERYONE],
        ),
        rule("110", "held_test", [variation("111", "on", on=True)], [EVERYONE]),
    ],
    "rollouts": [
        {
            "id": "r1",
            "experiments": [rule("200", "banner_delivery", [variation("201", "on", on=True)], [EVERYONE])],
        },
        {
            "id": "r2",
            "experiments": [rule("210", "legacy_delivery", [variation("211", "off", on=False)], [EVERYONE])],
        },
    ],
    "featureFlags": [
        flag("f1", "checkout", ["100"], ""),
        flag("f2", "banner", [], "r1"),
        flag("f3", "legacy", [], "r2"),
        flag("f4", "bare", [], ""),
        flag("f5", "held", ["110"], ""),
    ],
    "holdouts": [],
    "localHoldouts": [holdout("h1", "held_holdout", EVERYONE, includedRules=["110"])],
}
"""Datafile version 4; holdouts as optimizely-sdk 5.7 reads them (project_config.py)."""

TARGETED: dict[str, Any] = {
    "experiments": [
        *DATAFILE["experiments"],
        {**rule("300", "vip_delivery", [variation("301", "on", on=True)], [EVERYONE]), "type": "td"},
    ],
    "featureFlags": [*DATAFILE["featureFlags"], flag("f6", "vip", ["300"], "")],
}
"""Changes to DATAFILE: a targeted delivery, `vip`, among the experiments, as newer datafiles have it."""


class Nowhere:
    """An event dispatcher that sends nothing."""

    @staticmethod
    def dispatch_event(_event: object) -> None:
        return


def optimizely_client(**changes: Any) -> Optimizely:
    """A real client of DATAFILE with `changes` at its top level; it notifies of each impression at once."""
    centre = NotificationCenter()
    return Optimizely(
        json.dumps({**copy.deepcopy(DATAFILE), **changes}),
        event_dispatcher=Nowhere,
        notification_center=centre,
        event_processor=ForwardingEventProcessor(Nowhere, notification_center=centre),
        settings=OptimizelySdkSettings(odp_disabled=True),
    )


class Changing(StaticConfigManager):
    """A datafile that is replaced while the application runs, as PollingConfigManager does."""

    def exchange(self, **changes: Any) -> None:
        """Replace it with DATAFILE with these changes, which must include another revision."""
        self._set_config(json.dumps({**DATAFILE, **changes}))


def changing_client(**changes: Any) -> tuple[Optimizely, Changing]:
    """A client of DATAFILE with `changes`, and the object that replaces its datafile."""
    centre = NotificationCenter()
    manager = Changing(datafile=json.dumps({**DATAFILE, **changes}), notification_center=centre)
    client = Optimizely(
        config_manager=manager,
        notification_center=centre,
        event_processor=ForwardingEventProcessor(Nowhere, notification_center=centre),
        settings=OptimizelySdkSettings(odp_disabled=True),
    )
    return client, manager


def user_of(
    client: Optimizely, user_id: str, attributes: dict[str, Any] | None = None
) -> OptimizelyUserContext:
    user = client.create_user_context(user_id, UserAttributes(attributes or {}))
    assert user is not None
    return user
