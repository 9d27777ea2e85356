"""The base of the sections of every program's settings.

In: plain values. Out: the base class of sections, which refuses unknown keys and wrong types, and the types of keys.
"""

from __future__ import annotations

from typing import Annotated, Final

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints

from flagpost_settings.topic_names import TOPIC_NAME

SECTIONS: Final = (
    "kafka",
    "pendo",
    "delivery",
    "dedupe",
    "select",
    "decisions",
    "metadata",
    "mapping",
    "consent",
    "privacy",
    "admin",
    "metrics",
    "log",
    "web",
    "gateway",
    "publisher",
)
"""All sections that the file may have. A program checks those of its own model and ignores the others."""

MAX_SECONDS: Final = 31_536_000.0
"""A year. A longer time is a mistake, and values far above it overflow when they are converted to milliseconds."""

MAX_COUNT: Final = 1_000_000_000
"""The limit for counts, for the same reason."""

Seconds = Annotated[float, Field(ge=0, le=MAX_SECONDS, allow_inf_nan=False)]
PositiveSeconds = Annotated[float, Field(gt=0, le=MAX_SECONDS, allow_inf_nan=False)]
PositiveInt = Annotated[int, Field(gt=0, le=MAX_COUNT)]
PortNumber = Annotated[int, Field(ge=0, le=65_535)]
"""0: any free port."""
Text = Annotated[str, StringConstraints(min_length=1)]
TopicName = Annotated[str, StringConstraints(pattern=f"^{TOPIC_NAME}$")]
"""What Kafka accepts as a topic's name."""


class Section(BaseModel):
    """A frozen section of the settings that refuses unknown keys and wrong types."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", allow_inf_nan=False)


def _empty_if_null(value: object) -> object:
    """A section whose keys are all commented out is null in YAML."""
    return {} if value is None else value


EMPTY_IF_NULL: Final = BeforeValidator(_empty_if_null)
