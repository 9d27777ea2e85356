"""The code that all benchmarks share: percentiles, ratios, and merging the figures into one document."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from all import BENCHMARKS, HERE, Outcome, merged, run, table
from side_by_side import NOT_TO_BE_HAD, Side, compare, percentile, report

COMPARISON = compare(
    "a title",
    [
        Side("book", lambda: {"us": 10.0, "requests": 0.0}),
        Side("ours", lambda: {"us": 4.0, "requests": 5.0}),
        Side("peer", lambda: {"us": 1.0}, missing="no such package"),
    ],
    rounds=2,
)


@pytest.mark.parametrize(
    ("percent", "expected"), [(0, 1.0), (50, 50.0), (50.1, 51.0), (99, 99.0), (99.9, 100.0), (100, 100.0)]
)
def test_a_percentile_is_a_value_that_was_measured(percent: float, expected: float) -> None:
    assert percentile([float(number) for number in range(100, 0, -1)], percent) == expected


def test_every_percentile_of_one_value_is_that_value() -> None:
    assert {percentile([7.0], percent) for percent in (1, 50, 99.9)} == {7.0}


def test_the_figures_of_all_benchmarks_are_merged_into_one_document_that_names_those_without() -> None:
    outcomes = [
        Outcome("fine", 0, [COMPARISON.as_json()]),
        Outcome("no_kafka", NOT_TO_BE_HAD, last_line="left out: it needs a real Apache Kafka: no java"),
        Outcome("broken", 1, last_line="KeyError: 'us'"),
    ]

    assert [outcome.failed for outcome in outcomes] == [False, False, True]
    assert merged(outcomes) == {
        "benchmarks": {"fine": [COMPARISON.as_json()]},
        "without_figures": {
            "no_kafka": {"failed": False, "why": "left out: it needs a real Apache Kafka: no java"},
            "broken": {"failed": True, "why": "KeyError: 'us'"},
        },
    }


def test_the_table_of_all_benchmarks_shows_ratios_omissions_and_failures() -> None:
    outcomes = [
        Outcome("fine", 0, [COMPARISON.as_json()]),
        Outcome("other_form", 0, {"decide": []}),
        Outcome("no_kafka", NOT_TO_BE_HAD, last_line="left out: it needs a real Apache Kafka: no java"),
        Outcome("broken", 1, last_line="KeyError: 'us'"),
    ]

    lines = [" ".join(line.split()) for line in table(merged(outcomes)).splitlines()]

    assert lines[2:] == [
        "== fine",
        "a title (x: a multiple of book)",
        "ours us 4.00 x 0.40",
        "ours requests 5.00",
        "peer left out: no such package",
        "== other_form",
        "its own table is above",
        "== no_kafka",
        "not measured: left out: it needs a real Apache Kafka: no java",
        "== broken",
        "failed: KeyError: 'us'",
    ]


def test_the_figures_that_a_benchmark_wrote_are_merged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Scripts replace the benchmarks: one writes figures, one lacks a requirement, one is broken, one is absent."""
    figures = tmp_path / "figures.json"
    report([COMPARISON], figures)
    script = "import shutil, sys; shutil.copy({!r}, sys.argv[sys.argv.index('--json') + 1])"
    (tmp_path / "fine.py").write_text(script.format(str(figures)))
    (tmp_path / "lacking.py").write_text(
        f"import sys; print('no java', file=sys.stderr); sys.exit({NOT_TO_BE_HAD})"
    )
    (tmp_path / "broken.py").write_text("raise KeyError('us')")
    monkeypatch.setattr("all.HERE", tmp_path)

    outcomes = [run(name, ["--rounds", "1"]) for name in ("fine", "lacking", "broken", "absent")]

    assert [(outcome.exit_code, outcome.last_line) for outcome in outcomes[:3]] == [
        (0, ""),
        (NOT_TO_BE_HAD, "no java"),
        (1, "KeyError: 'us'"),
    ]
    assert outcomes[0].figures == json.loads(figures.read_text())
    assert outcomes[3].failed
    assert "absent.py" in outcomes[3].last_line
    assert "KeyError: 'us'" in capfd.readouterr().out


def test_every_benchmark_is_run_by_make_bench() -> None:
    scripts = {path.stem for path in HERE.glob("*.py") if "arguments(__doc__" in path.read_text()}

    assert scripts - {"all"} <= set(BENCHMARKS)
    assert len(set(BENCHMARKS)) == len(BENCHMARKS)
