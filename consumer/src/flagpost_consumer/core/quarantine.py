"""What is said of a record that makes our own code raise: a defect, named without anything that the record holds.

In: the exception. Out: its fingerprint, and the detail of the record's dead letter. The record is handled twice
before it is quarantined; whoever catches the exception counts (`flagpost_quarantined_total`) and logs it.
"""

from __future__ import annotations

from traceback import walk_tb
from types import FrameType

from flagpost_consumer.core.legible import legible

MAX_NAME_CHARACTERS = 60
OUR_PACKAGES = ("flagpost_",)


def fingerprint(error: BaseException) -> str:
    """The exception's type and the place in the code where it was raised, as `KeyError at module:line`.

    The place is the innermost line of Flagpost's own; without one, the innermost line. The exception's message is
    left out, because it may hold an id or a property.
    """
    return f"{_type_of(error)} at {_place_of(error)}"


def defect_detail(error: BaseException) -> str:
    """What the dead letter of a quarantined record says, and what to do about it."""
    return (
        f"a defect of Flagpost's: {fingerprint(error)}; report this line to Flagpost's maintainers, "
        "upgrade to a release that fixes it, then replay the dead letter"
    )


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
