"""What a check found.

In: findings. Out: `Check`, as people read it and as JSON.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from enum import StrEnum


class Status(StrEnum):
    """How a check ended."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was checked."""

    name: str
    status: Status
    detail: str
    fix: str = ""
    """What to do; empty when there is nothing."""

    def as_json(self) -> dict[str, str]:
        """A member of the document's `checks` (CONTRACT section 10)."""
        return asdict(self)


def ok(name: str, detail: str) -> Check:
    """All is well."""
    return Check(name, Status.OK, detail)


def warn(name: str, detail: str, fix: str) -> Check:
    """It works, and not as it was meant."""
    return Check(name, Status.WARN, detail, fix)


def fail(name: str, detail: str, fix: str) -> Check:
    """It does not work."""
    return Check(name, Status.FAIL, detail, fix)
