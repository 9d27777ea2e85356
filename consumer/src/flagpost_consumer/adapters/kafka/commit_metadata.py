"""What an offset commit says besides the offset: where a restart begins to read the ledger, and the ids of the
topics.

In: the engine's position of a partition and the ids of its topics. Out: the commit's metadata string, and the parsed
form of one. The form is `v1:<ledger offset>`, followed by any of `;topic=<id>`, `;ledger=<id>` and `;from=<ledger
offset>`. A release that knows only `v1:<ledger offset>` reads the longer form as no offset, and so begins at the
ledger's beginning: slower, but correct.
"""

from __future__ import annotations

from dataclasses import dataclass

from flagpost_consumer.core.books.deliveries import Position

VERSION = "v1:"


@dataclass(frozen=True, slots=True)
class CommitMetadata:
    """What a commit says besides the offset."""

    needed: int | None = None
    """The oldest ledger offset that is still needed; None: the ledger's beginning."""
    topic_id: str | None = None
    """Kafka's id of the events topic, if known."""
    ledger_id: str | None = None
    """Kafka's id of the ledger topic, if known."""
    settles_from: int = 0
    """Ledger records below this offset settle nothing: the log has gone back since they were written."""


def write_metadata(position: Position, topic_id: str | None, ledger_id: str | None) -> str:
    """The metadata of a commit."""
    needed = "" if position.ledger_offset is None else f"{VERSION}{position.ledger_offset}"
    more = {"topic": topic_id, "ledger": ledger_id, "from": position.settles_from or None}
    return ";".join([needed, *(f"{name}={value}" for name, value in more.items() if value is not None)])


def read_metadata(text: str | None) -> CommitMetadata:
    """Parse a commit's metadata; a part that cannot be read counts as missing."""
    first, *more = (text or "").split(";")
    values = dict(part.split("=", 1) for part in more if "=" in part)
    needed = first.removeprefix(VERSION) if first.startswith(VERSION) else ""
    return CommitMetadata(
        _whole_number(needed),
        values.get("topic") or None,
        values.get("ledger") or None,
        _whole_number(values.get("from", "")) or 0,
    )


def _whole_number(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdigit() else None
