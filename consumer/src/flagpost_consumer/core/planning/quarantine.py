"""Describes a record for which our own code raises: a defect, described without any of the record's contents.

In: the exception. Out: its fingerprint, and the detail of the record's dead letter. The record is handled twice
before it is quarantined; whoever catches the exception counts it (`flagpost_quarantined_total`) and logs it.
"""

from __future__ import annotations

from collections.abc import Callable
from traceback import walk_tb
from types import FrameType
from typing import TypeVar, TypeVarTuple

from flagpost_consumer.core.outcomes import Ending, Reason
from flagpost_consumer.core.planning.legible import legible

Made = TypeVar("Made")
Given = TypeVarTuple("Given")

MAX_NAME_CHARACTERS = 60
OUR_PACKAGES = ("flagpost_",)
MAX_SUSPECTS = 1_000
FAILURES_THAT_CONDEMN = 2


def fingerprint(error: BaseException) -> str:
    """The exception's type and the place in the code where it was raised, as `KeyError at module:line`.

    The place is the innermost line of Flagpost's code, or else the innermost line. The exception's message is left
    out, because it may contain an id or a property.
    """
    return f"{_type_of(error)} at {_place_of(error)}"


def defect_detail(error: BaseException) -> str:
    """The detail of a quarantined record's dead letter, including what to do about it."""
    return (
        f"a defect of Flagpost's: {fingerprint(error)}; report this line to Flagpost's maintainers, "
        "upgrade to a release that fixes it, then replay the dead letter"
    )


def twice(work: Callable[[*Given], Made], *given: *Given) -> Made | Ending:
    """Return what `work` returns; if it raises twice, the ending of the record's delivery."""
    try:
        return work(*given)
    except Exception:  # noqa: BLE001 - whatever a defect raises
        try:
            return work(*given)
        except Exception as error:  # noqa: BLE001
            return Ending(Reason.INVALID, defect_detail(error))


class Suspects:
    """The records that engines were handling when they failed. It outlives each engine, which ends with its failure.

    A record during which two engines have failed is not handled a third time: it would come again after every
    restart, and stop its partition for ever.
    """

    def __init__(self) -> None:
        self.handled: tuple[int, int] | None = None
        """Partition and offset of the record that is handled now."""
        self._failures: dict[tuple[int, int], int] = {}
        self._details: dict[tuple[int, int], str] = {}

    def blame(self, error: Exception) -> bool:
        """Note that the engine has failed; returns whether a record is to blame, so that a new engine can go on."""
        place, self.handled = self.handled, None
        if place is None:
            return False
        self._failures[place] = self._failures.pop(place, 0) + 1
        self._details[place] = defect_detail(error)
        if len(self._failures) > MAX_SUSPECTS:
            oldest = next(iter(self._failures))
            del self._failures[oldest], self._details[oldest]
        return True

    def condemned(self, partition: int, offset: int) -> str | None:
        """The detail of the dead letter of a record that must not be handled again; None: it may be."""
        place = (partition, offset)
        return self._details[place] if self._failures.get(place, 0) >= FAILURES_THAT_CONDEMN else None


def _type_of(error: BaseException) -> str:
    kind = type(error)
    name = kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
    return legible(name, MAX_NAME_CHARACTERS)


def _place_of(error: BaseException) -> str:
    places = [(_module_of(frame), line) for frame, line in walk_tb(error.__traceback__)]
    ours = [(module, line) for module, line in places if module.startswith(OUR_PACKAGES)]
    if not places:
        return "an unknown place"
    module, line = (ours or places)[-1]
    return f"{legible(module, MAX_NAME_CHARACTERS)}:{line}"


def _module_of(frame: FrameType) -> str:
    return str(frame.f_globals.get("__name__", "?"))
