"""What a measured run of the service took, or why there is no such figure."""

from __future__ import annotations

from pydantic import BaseModel


class Took(BaseModel):
    """The cost of a run."""

    settlements: int
    """The settlements that were measured."""
    began_at: float
    """When the measurement began, on the clock that all processes share (time.monotonic())."""
    cpu_seconds: float
    seconds: float
    peak_bytes: int


class MeasuredServiceError(RuntimeError):
    """The consumer did not do what it should; the message contains its output."""
