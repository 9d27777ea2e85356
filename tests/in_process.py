"""Settings of a service that runs inside a test, between an embedded Kafka and the Pendo stand-in."""

from __future__ import annotations

from flagpost_consumer.demo.embedded_kafka import EmbeddedKafka
from flagpost_consumer.demo.pendo_stand_in import PendoStandIn
from flagpost_consumer.settings import Needs, Settings, load_settings


def settings_for(kafka: EmbeddedKafka, pendo: PendoStandIn, **more: str) -> Settings:
    """The settings; `more`: further variables without the prefix FLAGPOST_, such as `ADMIN__PORT="0"`."""
    values = {
        "KAFKA__BOOTSTRAP_SERVERS": kafka.bootstrap_servers,
        "PENDO__TRACK_URL": pendo.track_url,
        "PENDO__API_URL": pendo.api_url,
        "PENDO__TRACK_SECRET": pendo.keys.track_secret,
        "PENDO__INTEGRATION_KEY": pendo.keys.integration_key,
        "ADMIN__HOST": "127.0.0.1",
        "ADMIN__PORT": "0",
        **more,
    }
    return load_settings(None, {f"FLAGPOST_{k}": v for k, v in values.items()}, Needs.KAFKA | Needs.PENDO)
