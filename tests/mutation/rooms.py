"""The rooms of the core, and the quick tests that must fail because of a mutant in each."""

from __future__ import annotations

from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
PACKAGE = "flagpost_consumer"
CORE = Path(PACKAGE) / "core"
VALUES = "values"
"""The room of the modules that are in no folder of the core, except the engine."""
ENGINE = "engine"

TESTS = {
    "books": "accounts aged_table dedupe dedupe_boundaries handing_back holding lanes leader_epochs ledger_window "
    "metadata_items offsets reading_watch repeats settled_before shares settling unacknowledged",
    "metadata": "engine handing_back metadata_answers metadata_at_once metadata_batches metadata_coalescing "
    "metadata_halving metadata_hand_over metadata_holdings metadata_in_flight metadata_order metadata_queues "
    "metadata_retries metadata_sending sent_values suppressions",
    "pendo": "attempts budget endpoint rules",
    "planning": "plan planned_contents repeats "
    "rules visitor_names legible ledger_ids quarantine suppressions mispartitioned engine_clock "
    "engine_quarantine schema_source schema_lookups decoding decoding_handed_over "
    "decoding_room",
    "splits": "sample_ratio experiments experiment_visitors",
    "tracks": "lanes lanes_pace appetite attempts engine engine_clock engine_quarantine engine_told handing_back "
    "holding mispartitioned repeats review_engine shares suppressions track_sending unacknowledged",
    VALUES: "rules plan appetite endpoint engine engine_told repeats record_weights decoding",
    ENGINE: "appetite decoding_handed_over engine engine_told engine_clock engine_quarantine handing_back holding "
    "ledger_window metadata_hand_over mispartitioned partition_reading repeats review_engine settling suppressions "
    "track_sending unacknowledged",
}
"""The unit and property tests of each room, by their names without `test_` and `core_`. A mutant has to be killed by
tests of its room: that is quick, and stricter than accepting any test of the suite."""


def rooms() -> list[str]:
    """The names of the rooms: the folders of the core, then the modules in no folder, then the engine."""
    folders = sorted(each.parent.name for each in (_source() / CORE).glob("*/__init__.py"))
    return [*folders, VALUES, ENGINE]


def modules(room: str) -> list[Path]:
    """The modules of a room, as paths within the source folder."""
    core = _source() / CORE
    if room == ENGINE:
        found = [core / "engine.py"]
    elif room == VALUES:
        found = [each for each in core.glob("*.py") if each.name not in {"engine.py", "__init__.py"}]
    else:
        found = [each for each in (core / room).glob("*.py") if each.name != "__init__.py"]
    return sorted(each.relative_to(_source()) for each in found)


def held_by(room: str) -> list[str]:
    """The test modules of a room, as paths within the repository."""
    folder = REPOSITORY / "tests"
    found: set[Path] = set()
    for name in TESTS[room].split():
        named = {*folder.glob(f"[up]*/test_{name}.py"), *folder.glob(f"unit/test_core_{name}.py")}
        if not named:
            raise ValueError(f"{room}: no test of the name {name}")
        found |= named
    return sorted(str(each.relative_to(REPOSITORY)) for each in found)


def _source() -> Path:
    return REPOSITORY / "consumer" / "src"


if __name__ == "__main__":
    print(*sorted({each for room in rooms() for each in held_by(room)}))
