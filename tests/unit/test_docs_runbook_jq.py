"""The jq commands of the runbooks print no null and no empty line, whatever the kind of the settlements."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import orjson
import pytest

from flagpost_consumer.commands.sources.event_values import event_as_json
from flagpost_consumer.commands.tail import as_document
from flagpost_consumer.core.outcomes import Kind
from flagpost_schemas import DecisionEvent, Event, LedgerEntry, Source, TrackEvent

RUNBOOKS = Path(__file__).parents[2] / "docs" / "runbooks"
SH = re.compile(r"^```sh\n(.*?)^```", re.DOTALL | re.MULTILINE)
JQ = re.compile(r"^jq .*(?:settled\.jsonl|explained\.json)\b.*$", re.MULTILINE)


def lines() -> list[tuple[str, str]]:
    """Each jq command that reads a file which the command above it has written, with the name of its page."""
    found = []
    for page in sorted(RUNBOOKS.glob("*.md")):
        for block in SH.findall(page.read_text()):
            found += [(page.stem, line) for line in JQ.findall(block.replace("\\\n", " "))]
    return found


LINES = lines()


def entry(kind: Kind, **fields: object) -> LedgerEntry:
    nothing = dict.fromkeys(LedgerEntry._fields)
    given = {
        "offset": 1,
        "kind": kind.value,
        "outcome": "delivered",
        "reason": "ok",
        "attempts": 1,
        "unseen": 0,
    }
    return LedgerEntry(**{**nothing, **given, **fields})  # type: ignore[arg-type]


ENTRIES = [
    entry(Kind.TRACK, visitor_id="v", flag_key="checkout", event="Seen", occurred_at=5),
    entry(Kind.TRACK, visitor_id="v", event="Order Completed", occurred_at=5),
    entry(Kind.VISITOR_METADATA, visitor_id="v", reason="field_missing", occurred_at=5),
    entry(Kind.ACCOUNT_METADATA, account_id="acme", reason="field_missing", occurred_at=5),
    entry(Kind.UNKNOWN),
]
EVENTS: list[Event] = [
    TrackEvent(event_id="e", occurred_at=5, visitor_id="v", event="Seen", source=Source(service="checkout")),
    DecisionEvent(
        event_id="e",
        occurred_at=5,
        visitor_id="v",
        flag_key="f",
        enabled=True,
        decision_event_dispatched=True,
    ),
]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with the files that the commands above the jq commands write."""
    if shutil.which("jq") is None:
        assert "CI" not in os.environ, "no jq"
        pytest.skip("no jq")
    settled = [as_document(partition, 9, each) for partition in (0, 1) for each in ENTRIES]
    (tmp_path / "settled.jsonl").write_bytes(b"".join(orjson.dumps(each) + b"\n" for each in settled))
    records = [{"mispartitioned": True, "event": event_as_json(event)} for event in EVENTS]
    gone = {"mispartitioned": True, "event": None}
    (tmp_path / "explained.json").write_bytes(orjson.dumps({"records": [*records, gone]}))
    return tmp_path


def test_there_are_commands_to_try() -> None:
    assert len(LINES) >= 4


@pytest.mark.parametrize(("page", "line"), LINES, ids=[page for page, _ in LINES])
def test_a_command_prints_something_and_never_null(page: str, line: str, folder: Path) -> None:
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", line], cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.stderr == ""
    printed = done.stdout.splitlines()
    assert printed, page
    assert not [each for each in printed if "null" in each or not each.strip() or each.endswith("\t")]
