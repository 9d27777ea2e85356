"""What work costs on a machine: CPU time and memory, as measured there.

In: a file that `flagpost plan --calibrate` wrote. Out: costs; without such a file, those of the project's own
machine.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Annotated

from pydantic import Field, ValidationError

from flagpost_settings.section import Section


class Work(StrEnum):
    """What takes CPU time, by the names in `Costs`."""

    TURN = "turn_us"
    EXCHANGE = "exchange_us"
    RECORD = "record_us"
    DUPLICATE = "duplicate_us"
    REQUEST = "request_us"
    METADATA_UNSENT = "metadata_unsent_us"
    METADATA_SENT = "metadata_sent_us"


Amount = Annotated[float, Field(ge=0, le=1e9, allow_inf_nan=False)]


class Costs(Section):
    """CPU time of a process in microseconds, memory in bytes."""

    turn_us: Amount
    """A turn of the event loop with work, whatever it is: waking up, reading answers."""
    exchange_us: Amount
    """A batch of records from Kafka's thread, or of settlements to it: threads wake one another up."""
    record_us: Amount
    """A record that is read, decoded, planned, and settled as a duplicate."""
    duplicate_us: Amount
    """A duplicate that is recognised by its bytes: read and settled, but not decoded (decision 0042)."""
    request_us: Amount
    """The additional cost of a track event that is sent: the request, its answer, its settlement."""
    metadata_unsent_us: Amount
    """A decision's metadata that is not sent, because Pendo has it."""
    metadata_sent_us: Amount
    """A decision's metadata that is sent together with others'."""
    idle_us_per_second: Amount
    """A second without work."""
    loop_share: Annotated[float, Field(gt=0, le=100)]
    """How long the event loop is busy for each second of CPU time: less if other threads work at the same time, more
    if the machine works for others.
    """
    base_bytes: Amount
    """A process that has started and holds nothing."""
    claim_bytes: Amount
    """A decision that is remembered to recognise duplicates."""
    pending_bytes: Amount
    """A record that is read and not settled."""
    sent_value_bytes: Amount
    """A metadata value that is remembered."""

    def times(self, factor: float) -> Costs:
        """The costs of a CPU that is slower by this factor."""
        return self.model_copy(update={work: factor * self.of(work) for work in Work})

    def of(self, work: Work) -> float:
        """CPU microseconds of one unit of work."""
        cost: float = getattr(self, work)
        return cost


class Calibration(Section):
    """Costs, and where they come from."""

    costs: Costs
    machine: str
    version: str
    """Of Flagpost."""
    measured_at: str
    """When it was measured, RFC 3339."""
    figures: dict[str, float] = Field(default={})
    """The measurements from which the costs follow."""


SHIPPED = Calibration(
    costs=Costs(
        turn_us=25,
        exchange_us=150,
        record_us=15,
        duplicate_us=6,
        request_us=30,
        metadata_unsent_us=12,
        metadata_sent_us=22,
        idle_us_per_second=5000,
        loop_share=1.0,
        base_bytes=105e6,
        claim_bytes=132,
        pending_bytes=4500,
        sent_value_bytes=230,
    ),
    machine="the project's own benchmark machine, not this one",
    version="0.1.0",
    measured_at="2026-11-28T00:00:00Z",
)
"""The costs if nothing was measured."""


class CalibrationError(ValueError):
    """A calibration that cannot be read; the message says what to do."""


def default_file(environ: Mapping[str, str]) -> Path:
    """The directory for a program's own data (the XDG base directory specification)."""
    given = environ.get("XDG_STATE_HOME", "")
    state = Path(given) if Path(given).is_absolute() else Path.home() / ".local" / "state"
    return state / "flagpost" / "calibration.json"


def load(path: Path) -> Calibration | None:
    """Read a calibration; None: there is none.

    Raises:
        CalibrationError: the file is something else.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise CalibrationError(f"{path} cannot be read: {error.strerror}") from None
    try:
        return Calibration.model_validate_json(content)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the file"
        raise CalibrationError(
            f"{path} is not a calibration: {where}: {first['msg']}; measure again: flagpost plan --calibrate"
        ) from None


def save(path: Path, calibration: Calibration) -> None:
    """Write a calibration.

    Raises:
        CalibrationError: it cannot be written there.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(calibration.model_dump_json(indent=2) + "\n")
    except OSError as error:
        raise CalibrationError(
            f"{path} cannot be written: {error.strerror}; give --calibration FILE"
        ) from None
