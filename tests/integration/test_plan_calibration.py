"""What work costs on this machine: the real consumer is measured, and costs are fitted to the measurements."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner

from flagpost_consumer.commands.cli import flagpost
from flagpost_consumer.commands.plan import calibration
from flagpost_consumer.commands.plan.costs import SHIPPED, load
from flagpost_consumer.commands.plan.measured import MeasuredServiceError
from flagpost_consumer.commands.plan.measured_service import run_service
from flagpost_consumer.commands.plan.pod import Pendo
from flagpost_consumer.commands.plan.trial import Trial, planned, trial_ground

pytestmark = pytest.mark.thorough

NAMES = ("DELIVERED", "SPREAD", "LOW", "DECODED", "DUPLICATES", "METADATA", "UNCHANGED", "IDLE")


def shrink(monkeypatch: pytest.MonkeyPatch, backlog: int) -> None:
    """Make the trials small; their figures are then meaningless."""
    for name in NAMES:
        trial: Trial = getattr(calibration, name)
        few = replace(trial.load, backlog=min(backlog, trial.load.backlog))
        monkeypatch.setattr(calibration, name, replace(trial, load=few, seconds=min(2.0, trial.seconds)))
    trials = tuple(getattr(calibration, name) for name in NAMES)
    monkeypatch.setattr(calibration, "TRIALS", trials)
    monkeypatch.setattr(calibration, "ROUNDS", trials)
    for name in ("CLAIMS", "VALUES", "PENDING"):
        monkeypatch.setattr(calibration, name, 2_000)


def test_a_machine_is_measured_and_plans_use_its_costs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shrink(monkeypatch, 300)
    file = tmp_path / "costs.json"
    result = CliRunner().invoke(flagpost, ["plan", "--calibrate", "--calibration", str(file)])
    assert result.exit_code == 0, result.output
    assert f"The costs were written to {file}." in result.stderr
    assert "request_us" in result.stdout
    measured = load(file)
    assert measured is not None
    assert measured.machine == calibration.this_machine()
    assert {f"{trial.name}_us" for trial in calibration.TRIALS if trial != calibration.IDLE} <= set(
        measured.figures
    )
    assert measured.costs.idle_us_per_second > 0
    assert 30e6 < measured.costs.base_bytes < 400e6
    assert 30 < measured.costs.claim_bytes < 300
    assert 1_000 < measured.costs.pending_bytes < 20_000
    arguments = ["plan", "--rate", "20", "--seconds", "10", "--calibration", str(file), "--json"]
    document = json.loads(CliRunner().invoke(flagpost, arguments).stdout)
    assert document["calibration"]["machine"] == measured.machine
    assert document["calibration"]["shipped"] is False


def test_costs_are_calculated_back_from_measured_totals(monkeypatch: pytest.MonkeyPatch) -> None:
    shrink(monkeypatch, 1_000)
    costs = SHIPPED.costs.model_copy(
        update={
            "turn_us": 25.0,
            "exchange_us": 90.0,
            "record_us": 17.0,
            "duplicate_us": 7.0,
            "request_us": 28.0,
        }
    ).model_copy(update={"idle_us_per_second": 0.0})
    pendo = {trial.name: Pendo(0.0001 + trial.latency_ms / 1000, 0.0003) for trial in calibration.TRIALS}
    figures = {
        f"{trial.name}_us": planned(trial, costs, pendo[trial.name]).cpu_us
        for trial in calibration.TRIALS
        if trial != calibration.IDLE
    }
    as_measured = ("idle_us_per_second", "loop_share", "base_bytes", "claim_bytes", "pending_bytes")
    figures |= {name: getattr(costs, name) for name in (*as_measured, "sent_value_bytes")}
    found = calibration.fitted(figures, pendo).model_dump()
    for name, value in costs.model_dump().items():
        assert found[name] == pytest.approx(value, rel=0.2), name


def test_a_trial_that_keeps_up_is_measured_in_its_second_half() -> None:
    trial = replace(calibration.LOW, seconds=2.0)
    with trial_ground([trial]) as ground:
        took, pendo = ground.run(trial)
    assert took.settlements == pytest.approx(100, rel=0.3)
    assert 0 < took.cpu_seconds < took.seconds * 2
    assert pendo.latency_seconds > 0.045


def test_a_consumer_that_cannot_be_measured_says_why() -> None:
    with pytest.raises(MeasuredServiceError, match=r"admin\.port"):
        run_service({"FLAGPOST_ADMIN__PORT": "http"}, settlements=1)
