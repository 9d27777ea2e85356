"""The settings of the consumer and its operator commands: one YAML file, and the environment over it.

In: a path, the environment, what a command needs. Out: `Settings`, frozen and checked, or one `SettingsError`.
"""

from flagpost_consumer.settings.load import engine_policy, load_settings
from flagpost_consumer.settings.problems import Problem, SettingsError
from flagpost_consumer.settings.rules import Needs
from flagpost_consumer.settings.secrets import Secret, SecretSource
from flagpost_consumer.settings.sections import (
    AdminSettings,
    KafkaSettings,
    LogSettings,
    MetricsSettings,
    PendoSettings,
    PendoUrls,
    SchemaRegistrySettings,
    Settings,
)

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
    "engine_policy",
    "load_settings",
]
