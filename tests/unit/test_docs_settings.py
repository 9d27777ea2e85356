"""docs/settings.md names every setting of the consumer and of the gateway, and no other."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from pydantic import BaseModel

from flagpost_consumer.settings import Settings
from flagpost_publisher.gateway.settings import Settings as GatewaySettings

PAGE = Path(__file__).parents[2] / "docs" / "settings.md"


def keys(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    for name, field in model.model_fields.items():
        inner = field.annotation
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            yield from keys(inner, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}"


def test_the_page_and_the_programs_have_the_same_settings() -> None:
    documented = set(re.findall(r"`([a-z]+(?:\.[a-z_]+)+)`", PAGE.read_text()))
    documented -= {"flagpost.events", "flagpost.ledger", "flagpost.suppressions"}
    assert documented == {*keys(Settings), *keys(GatewaySettings)}, "docs/settings.md and the settings differ"
