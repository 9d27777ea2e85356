"""The section `log`, which every program reads; `logs` applies it.

In: plain values. Out: `LogSettings`. Apart from `logs`, because structlog imports modules that the command line does
not need.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from pydantic import Field

from flagpost_settings.section import Section


class LogLevel(StrEnum):
    """The least severe log line that is written."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"
    CRITICAL = "critical"


class LogFormat(StrEnum):
    """What a log line looks like."""

    JSON = "json"
    CONSOLE = "console"


class LogSettings(Section):
    """How much is logged, and in which form."""

    level: Annotated[LogLevel, Field(strict=False)] = LogLevel.INFO
    format: Annotated[LogFormat, Field(strict=False)] | None = None
    """None: JSON, or console on a terminal."""
