"""Reads the consumer's settings from a file and the environment, and checks them for one command.

In: the file's path, the environment, what the command needs. Out: `Settings`, or one `SettingsError` that names every
problem found; and the engine's part of `Settings`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

from flagpost_consumer.core.planning.ledger_ids import PLAIN, LedgerIds
from flagpost_consumer.core.policy import EndpointLimits, Policy
from flagpost_consumer.settings.rules import Needs, rules_for
from flagpost_consumer.settings.sections import Settings
from flagpost_settings.load import Loader

_LOADER = Loader(Settings)


def load_settings(config_path: Path | None, environ: Mapping[str, str], needs: Needs) -> Settings:
    """Read and check the settings.

    Args:
        config_path: the YAML file, if there is one.
        environ: the environment; its variables `FLAGPOST_<SECTION>__<KEY>` win over the file.
        needs: what the command needs.

    Raises:
        SettingsError: one line for each problem: the key, where its value came from, the value unless it is a secret,
        and what is accepted.
    """
    leaving_out = () if Needs.WEBHOOK_TOPIC in needs else ("gateway",)
    return _LOADER.load(config_path, environ, rules_for(needs), leaving_out)


def engine_policy(settings: Settings) -> Policy:
    """The settings by which the engine decides."""
    limits = {name: getattr(settings.pendo, name) for name in EndpointLimits.model_fields}
    return Policy(
        delivery=settings.delivery,
        dedupe=settings.dedupe,
        select=settings.select,
        decisions=settings.decisions,
        metadata=settings.metadata,
        mapping=settings.mapping,
        consent=settings.consent,
        limits=EndpointLimits(**limits),
        can_send_metadata=settings.pendo.integration_key_source is not None,
    )


def ledger_ids(settings: Settings) -> LedgerIds:
    """How the ledger writes ids; reads the key's file now. Raises SettingsError."""
    source = settings.privacy.key_source
    return PLAIN if source is None else LedgerIds(hashlib.blake2b(source.current().encode()).digest())


def keyed_policy(settings: Settings) -> Policy:
    """The engine's settings, for what writes the ledger or compares with it. Raises SettingsError."""
    return engine_policy(settings).model_copy(update={"ledger_key": ledger_ids(settings).key})


def planned_policy(settings: Settings) -> Policy:
    """The engine's settings for commands that look ahead and have no secrets. They assume the integration key that a
    decision's metadata needs, because `consume` requires it.
    """
    policy = engine_policy(settings)
    can_send = policy.can_send_metadata or settings.decisions.visitor_metadata
    return policy.model_copy(update={"can_send_metadata": can_send})
