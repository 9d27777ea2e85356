"""`flagpost plan` on the command line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest
from click.testing import CliRunner, Result

from flagpost_consumer import __version__
from flagpost_consumer.commands.cli import flagpost
from flagpost_consumer.commands.plan.calibration import this_machine
from flagpost_consumer.commands.plan.charts import Chart, svg, terminal_chart
from flagpost_consumer.commands.plan.costs import SHIPPED, CalibrationError, default_file, load, save

SMALL = ("--rate", "50", "--visitors", "2000", "--seconds", "10", "--partitions", "6")


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the state folder, in which there is no calibration."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    return tmp_path / "state"


def run(*arguments: str, **environ: str) -> Result:
    return CliRunner().invoke(flagpost, ["plan", *arguments], env=environ)


def planned(*arguments: str, **environ: str) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(run(*arguments, "--json", **environ).stdout)
    return document


def test_help_describes_every_option_and_the_setting_that_it_replaces() -> None:
    output = " ".join(run("--help").output.split())
    assert "processes random decisions" in output
    for key in ("pendo.max_connections", "delivery.visitor_interval_seconds", "dedupe.ttl_seconds"):
        assert f"Overrides {key}" in output
    for option in ("--rate", "--skew", "--pods", "--svg", "--json", "--calibrate", "--seed"):
        assert option in output


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ((), "give --rate"),
        (("--rate", "0"), "--backlog"),
        (("--rate", "-1"), "--rate"),
        (("--rate", "many"), "--rate"),
        (("--rate", "nan"), "--rate"),
        (("--rate", "10", "--pods", "0"), "--pods"),
        (("--rate", "10", "--skew", "9"), "--skew"),
        (("--rate", "10", "--partitions", "0"), "--partitions"),
        (("--rate", "10", "--track-requests-per-minute", "0"), "--track-requests-per-minute"),
    ],
)
def test_an_impossible_load_is_a_usage_error_that_names_the_option(
    arguments: tuple[str, ...], told: str
) -> None:
    result = run(*arguments)
    assert result.exit_code == 2, result.output
    assert told in result.stderr
    assert result.stdout == ""


def test_settings_that_cannot_be_used_are_exit_code_2() -> None:
    result = run(*SMALL, FLAGPOST_PENDO__MAX_CONNECTIONS="none")
    assert result.exit_code == 2, result.output
    assert "pendo.max_connections" in result.stderr


def test_a_plan_that_holds_is_shown_with_charts_and_exit_code_0() -> None:
    result = run(*SMALL)
    assert result.exit_code == 0, result.output
    assert result.stdout.rstrip().endswith("These pods and settings carry the load.")
    for row in ("pods", "requests to Pendo", "duplicates removed", "Pendo budget needed", "memory per pod"):
        assert f"\n{row}" in result.stdout
    assert "Lag of the busiest pod, records\n" in result.stdout
    assert "█" in result.stdout
    assert "estimates from measurements on another machine" in result.stdout


def test_a_plan_that_does_not_hold_says_why_and_is_exit_code_1() -> None:
    result = run(*SMALL, "--track-requests-per-minute", "60")
    assert result.exit_code == 1, result.output
    assert "cannot carry the load:\n- pendo.track_requests_per_minute is 60, but " in result.stdout


def test_json_is_one_document_with_all_that_the_text_has() -> None:
    result = run(*SMALL, "--json")
    assert (result.exit_code, result.stdout.count("\n")) == (0, 1)
    document = json.loads(result.stdout)
    assert document["holds"] is True
    assert document["problems"] == []
    assert document["pods"] == {"planned": 1, "needed": 1}
    assert document["load"]["visitors"] == 2000
    assert document["calibration"]["shipped"] is True
    pod = document["busiest_pod"]
    assert pod["sample"] == {
        "partitions": pod["sample"]["partitions"],
        "of_pod": 6,
        "fraction": 1.0,
        "seconds": 10.0,
    }
    assert sorted(pod["sample"]["partitions"]) == list(range(6))
    assert len(pod["series"]) == 60
    assert 0 < pod["event_age_seconds"]["p50"] <= pod["event_age_seconds"]["p99"]
    assert document["usual_pod"] == pod, "there is no other"
    assert document["requests_per_second"]["track"] + document["duplicates_per_second"] == pytest.approx(
        50, rel=0.15
    )


def test_the_same_seed_prints_the_same() -> None:
    once, again, other = (run(*SMALL, "--json", "--seed", seed).stdout for seed in ("5", "5", "6"))
    assert once == again
    assert once != other


def test_settings_are_used_and_options_win_over_them() -> None:
    by_setting = planned(*SMALL, FLAGPOST_DEDUPE__TTL_SECONDS="0")
    assert by_setting["duplicates_per_second"] == 0
    by_option = planned(*SMALL, "--dedupe-ttl-seconds", "1800", FLAGPOST_DEDUPE__TTL_SECONDS="0")
    assert by_option["duplicates_per_second"] > 0


def test_no_metadata_is_sent_if_it_is_switched_off() -> None:
    assert planned(*SMALL)["requests_per_second"]["metadata"] > 0
    without = planned(*SMALL, FLAGPOST_DECISIONS__VISITOR_METADATA="false")
    assert without["requests_per_second"]["metadata"] == 0
    assert without["budget_needed_per_minute"]["metadata"] == 0


def test_no_more_pods_are_planned_than_partitions() -> None:
    assert planned(*SMALL, "--pods", "50")["pods"]["planned"] == 6


@pytest.mark.thorough
def test_a_load_too_large_to_simulate_is_sampled_and_the_sample_is_described() -> None:
    document = planned(
        "--rate", "200000", "--visitors", "20000000", "--skew", "0.5", "--partitions", "800",
        "--pods", "200", "--seconds", "10", "--sample", "2000", "--metadata-requests-per-minute", "200000",
    )  # fmt: skip
    sample = document["usual_pod"]["sample"]
    assert sample["of_pod"] == 4
    assert len(sample["partitions"]) == 1
    assert sample["fraction"] == pytest.approx(0.25, rel=0.05)
    assert document["busiest_pod"]["sample"]["partitions"] != sample["partitions"]
    total = document["requests_per_second"]["track"] + document["duplicates_per_second"]
    assert total == pytest.approx(200_000, rel=0.1)


def test_the_charts_are_written_as_svg(tmp_path: Path) -> None:
    file = tmp_path / "plan.svg"
    assert run(*SMALL, "--svg", str(file)).exit_code == 0
    root = ET.parse(file).getroot()  # noqa: S314 - our own
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    lines = root.findall("{http://www.w3.org/2000/svg}polyline")
    assert [len((line.get("points") or "").split()) > 30 for line in lines] == [True, True]
    assert "Lag of the busiest pod, records" in "".join(root.itertext())


def test_an_svg_that_cannot_be_written_is_reported_at_once(tmp_path: Path) -> None:
    result = run("--rate", "100000", "--svg", str(tmp_path / "nowhere" / "plan.svg"))
    assert result.exit_code == 2, result.output
    assert "plan.svg cannot be written: No such file" in result.stderr
    assert result.stdout == ""


# Charts


def test_a_chart_of_the_terminal_has_a_column_for_each_value() -> None:
    lines = terminal_chart(Chart("title", [1.0, 2.0, 3.0], [0.0, 600.0, float("nan")])).splitlines()
    assert lines[0] == "title"
    assert lines[1] == "       600 │ █"
    assert lines[6] == "         0 │ █"
    assert lines[8].endswith("3 s")


def test_a_chart_without_values_can_be_drawn() -> None:
    chart = Chart("<nothing>", [1.0, 2.0], [float("nan")] * 2)
    assert "█" not in terminal_chart(chart)
    assert "&lt;nothing&gt;" in svg([chart])
    ET.fromstring(svg([chart, chart]))  # noqa: S314 - our own


# Calibrations


def test_a_calibration_is_read_back_and_says_where_it_is_from(state: Path) -> None:
    file = state / "flagpost" / "calibration.json"
    costs = SHIPPED.costs.model_copy(update={"record_us": 5_000.0})
    here = SHIPPED.model_copy(update={"costs": costs, "machine": this_machine(), "version": __version__})
    save(file, here)
    assert load(file) == here
    output = run(*SMALL).output
    assert f"CPU and memory: measured {SHIPPED.measured_at}" in output
    assert "measure again" not in output
    assert planned(*SMALL)["busiest_pod"]["cpu_cores"] > 0.2
    save(file, here.model_copy(update={"machine": "an abacus"}))
    assert "on an abacus; this is version" in run(*SMALL).output


def test_a_calibration_may_be_in_another_file(tmp_path: Path) -> None:
    file = tmp_path / "here.json"
    save(file, SHIPPED.model_copy(update={"machine": "an abacus"}))
    assert planned(*SMALL, "--calibration", str(file))["calibration"]["machine"] == "an abacus"


@pytest.mark.parametrize("content", ["", "{}", '{"costs": {}}', "[1]", "\x00"])
def test_a_file_that_is_not_a_calibration_is_reported_in_one_line_that_says_what_to_do(
    tmp_path: Path, content: str
) -> None:
    file = tmp_path / "costs.json"
    file.write_text(content)
    result = run(*SMALL, "--calibration", str(file))
    assert result.exit_code == 2, result.output
    assert f"{file} is not a calibration" in result.stderr
    assert "flagpost plan --calibrate" in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_a_calibration_that_cannot_be_kept_is_an_error_that_names_the_option(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(CalibrationError, match=r"cannot be written.*--calibration FILE"):
        save(tmp_path / "file" / "calibration.json", SHIPPED)


def test_calibrations_are_kept_in_the_state_folder_of_programs(tmp_path: Path) -> None:
    assert default_file({"XDG_STATE_HOME": str(tmp_path)}) == tmp_path / "flagpost" / "calibration.json"
    at_home = Path.home() / ".local" / "state" / "flagpost" / "calibration.json"
    assert default_file({}) == default_file({"XDG_STATE_HOME": "relative"}) == at_home
