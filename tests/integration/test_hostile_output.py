"""Commands that print the topics' contents, if these contain control sequences that a terminal would obey."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import pytest

from dead_letter_topics import DeadLetterTopics, letter, settled, step
from deadlines import stretched
from engine_world import decision
from flagpost_schemas import Settlements, encode_settlements
from real_kafka.broker import KafkaBroker
from running import FLAGPOST, environment, flagpost
from traffic import publish

pytestmark = [pytest.mark.kafka]

SECONDS = 90.0
HOSTILE = "\x1b]0;title\x07\x1b[2J\x9b31mv\n\u202eevil\u2066\u200f\x7f"
ABSURD = (2**63 - 1, -(2**63), 0)


@pytest.fixture
def topics(kafka: KafkaBroker, fresh_name: Callable[[str], str]) -> DeadLetterTopics:
    """Topics with a hostile visitor, flag, variation, detail and headers, and with numbers that are no times."""
    topics = DeadLetterTopics(kafka, fresh_name("hostile"))
    publish(
        kafka.bootstrap_servers, topics.events, [decision(HOSTILE, flag_key=HOSTILE, variation_key=HOSTILE)]
    )
    event = step(HOSTILE, HOSTILE, event=HOSTILE, properties={"p": HOSTILE})
    names = {"event_id": HOSTILE, "visitor_id": HOSTILE, "flag_key": HOSTILE, "variation_key": HOSTILE}
    for number in ABSURD:
        entry = settled(event, bytes(16), offset=1_000, **names)._replace(occurred_at=number)
        record = Settlements(group=topics.group, member=HOSTILE, settled_at=number, entries=[entry], gaps=[])
        topics.write_ledger(encode_settlements(record))
    topics.write_ledger(HOSTILE.encode())
    hostile: dict[str, Any] = {"detail": HOSTILE, "source": HOSTILE, "at": "9" * 14}
    topics.bury(
        letter(event, original=[("x-header", HOSTILE)], **hostile), letter(HOSTILE.encode(), **hostile)
    )
    return topics


def is_harmless(printed: str) -> bool:
    return all(line.isprintable() for line in printed.split("\n"))


async def run(topics: DeadLetterTopics, *arguments: str) -> tuple[str, str]:
    done = await asyncio.to_thread(flagpost, topics.settings, *arguments, seconds=SECONDS)
    return done.stdout, done.stderr


@pytest.mark.parametrize(
    "command",
    [
        "reconcile",
        "rehearse",
        "dead-letters list",
        "dead-letters show PLACE",
        "dead-letters replay --dry-run",
        "explain VISITOR",
        "sql QUERY",
    ],
)
@pytest.mark.parametrize("as_json", [(), ("--json",)], ids=["plain", "json"])
async def test_no_command_prints_control_sequences_that_a_terminal_would_obey(
    topics: DeadLetterTopics, command: str, as_json: tuple[str, ...]
) -> None:
    (place, *_) = topics.sources()
    meant = {"PLACE": place, "VISITOR": HOSTILE, "QUERY": "from settlements"}
    out, err = await run(topics, *(meant.get(part, part) for part in command.split()), *as_json)
    assert "Traceback" not in err
    assert out
    assert is_harmless(out)
    assert is_harmless(err)
    if command in {"reconcile", "dead-letters list", "explain VISITOR", "sql QUERY"}:
        assert "evil" in out


@pytest.mark.parametrize("ending", ["parquet", "csv", "jsonl"])
async def test_a_file_holds_hostile_names_and_absurd_numbers(
    topics: DeadLetterTopics, tmp_path: Path, ending: str
) -> None:
    out, err = await run(topics, "export", "--to", str(tmp_path / f"all.{ending}"))
    assert (out, err.splitlines()) == (
        "",
        [
            f"3 settlements written to {tmp_path / f'all.{ending}'}",
            "1 damaged records of the ledger are left out",
        ],
    )


@pytest.mark.parametrize("as_json", [(), ("--json",)], ids=["plain", "json"])
async def test_tail_goes_on_through_absurd_numbers_and_hostile_names(
    topics: DeadLetterTopics, as_json: tuple[str, ...]
) -> None:
    process = await asyncio.create_subprocess_exec(
        FLAGPOST,
        "tail",
        "--since=1h",
        *as_json,
        env=environment(topics.settings),
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    try:
        lines = [await asyncio.wait_for(process.stdout.readline(), stretched(SECONDS)) for _ in ABSURD]
    finally:
        process.kill()
        await process.wait()
    shown = [line.decode().removesuffix("\n") for line in lines]
    assert all(line.isprintable() and "evil" in line for line in shown)
    if as_json:
        assert {orjson.loads(line)["settled_at"] for line in shown} == set(ABSURD)
        assert {orjson.loads(line)["visitor_id"] for line in shown} == {HOSTILE}


@pytest.mark.parametrize("as_json", [(), ("--json",)], ids=["plain", "json"])
async def test_import_names_hostile_columns_and_values_harmlessly(
    topics: DeadLetterTopics, tmp_path: Path, as_json: tuple[str, ...]
) -> None:
    file = tmp_path / "rows.csv"
    column = HOSTILE.replace("\n", "")
    file.write_text(f"visitor_id,{column}:number\nv1,{column}\n,1\n")
    out, err = await run(topics, "import", str(file), "--type", "visitor", *as_json)
    assert "Traceback" not in err
    assert is_harmless(out)
    assert is_harmless(err)
    assert out + err
