"""The result of a check.

In: findings. Out: `Check`, for people and as JSON.
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
    """The result of one check."""

    name: str
    status: Status
    detail: str
    fix: str = ""
    """What to do, in one line or several; empty if nothing."""

    def as_json(self) -> dict[str, str]:
        """A member of the document's `checks` (docs/contract.md#json-output)."""
        return asdict(self)


def hanging(text: str, columns: int) -> str:
    """A text whose lines after the first are indented by this many columns."""
    return text.replace("\n", "\n" + " " * columns)


def ok(name: str, detail: str) -> Check:
    """Everything is right."""
    return Check(name, Status.OK, detail)


def warn(name: str, detail: str, fix: str) -> Check:
    """It works, but not as intended."""
    return Check(name, Status.WARN, detail, fix)


def fail(name: str, detail: str, fix: str) -> Check:
    """It does not work."""
    return Check(name, Status.FAIL, detail, fix)
