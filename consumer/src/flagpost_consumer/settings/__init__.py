"""The settings of the consumer and its operator commands: one YAML file, and the environment over it.

In: a path, the environment, what a command needs. Out: `Settings`, frozen and checked, or one `SettingsError`.
"""

from flagpost_consumer.settings.differing import differing
from flagpost_consumer.settings.load import (
    engine_policy,
    keyed_policy,
    ledger_ids,
    load_settings,
    planned_policy,
)
from flagpost_consumer.settings.rules import Needs
from flagpost_consumer.settings.sections import (
    AdminSettings,
    MetricsSettings,
    PendoSettings,
    PendoUrls,
    Settings,
    WebSettings,
)
from flagpost_settings.kafka import KafkaSettings, SchemaRegistrySettings
from flagpost_settings.log_section import LogSettings
from flagpost_settings.problems import Problem, SettingsError
from flagpost_settings.secrets import Secret, SecretSource

__all__ = [
    "AdminSettings",
    "KafkaSettings",
    "LogSettings",
    "MetricsSettings",
    "Needs",
    "PendoSettings",
    "PendoUrls",
    "Problem",
    "SchemaRegistrySettings",
    "Secret",
    "SecretSource",
    "Settings",
    "SettingsError",
    "WebSettings",
    "differing",
    "engine_policy",
    "keyed_policy",
    "ledger_ids",
    "load_settings",
    "planned_policy",
]
