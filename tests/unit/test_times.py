"""Times on the command line: how long ago, or a date and time."""

from __future__ import annotations

import time

import click
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from flagpost_consumer.commands.cli import flagpost
from flagpost_consumer.terminal.times import MOMENT, MomentError, moment_ms

NOW_MS = 1_769_860_800_000  # 2026-01-31T12:00:00Z


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0s", NOW_MS),
        ("30s", NOW_MS - 30_000),
        ("10m", NOW_MS - 600_000),
        ("2h", NOW_MS - 7_200_000),
        ("7d", NOW_MS - 604_800_000),
        ("1h30m", NOW_MS - 5_400_000),
        ("1d2h3m4s", NOW_MS - 93_784_000),
        ("2026-01-31", NOW_MS - 43_200_000),
        ("2026-01-31T12:00:00Z", NOW_MS),
        ("2026-01-31t12:00:00z", NOW_MS),
        ("2026-01-31 12:00:00Z", NOW_MS),
        ("2026-01-31T12:00:00.125Z", NOW_MS + 125),
        ("2026-01-31T13:30:00+01:30", NOW_MS),
        ("2026-01-31T04:00:00-08:00", NOW_MS),
        ("2026-01-31T13:00:00+0100", NOW_MS),
        ("2026-01-31 12:00:00 UTC", NOW_MS),
        ("1970-01-01T00:00:00Z", 0),
        ("1769860800", NOW_MS),
        ("1769860800000", NOW_MS),
    ],
)
def test_a_time_is_a_duration_ago_or_a_date(text: str, expected: int) -> None:
    assert moment_ms(text, NOW_MS) == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        "10",
        "m",
        "-5m",
        "1.5h",
        "10 m",
        "10M",
        "\u0661m",
        "now",
        "2026-02-30",
        "2026-1-31",
        "30m1h",
        "1h2h",
        "1h30",
        "2026-W05-6",
    ],
)
def test_a_value_that_is_not_a_time_is_refused_with_the_accepted_forms(text: str) -> None:
    with pytest.raises(MomentError, match=r"is not a time: give 10m, 1h30m or 7d .* 2026-01-31T12:00:00Z"):
        moment_ms(text, NOW_MS)


def test_a_time_without_its_offset_is_refused() -> None:
    with pytest.raises(MomentError, match="RFC 3339 with its offset"):
        moment_ms("2026-01-31T12:00:00", NOW_MS)


def test_a_day_that_does_not_exist_is_refused() -> None:
    with pytest.raises(MomentError, match=r"'2026-02-30T12:00:00Z' is not a time: .* a day that exists"):
        moment_ms("2026-02-30T12:00:00Z", NOW_MS)


@pytest.mark.parametrize("text", ["999999999d", "1969-12-31T23:59:59Z", "0001-01-01T00:00:00Z"])
def test_a_time_before_1970_is_refused(text: str) -> None:
    """For Kafka, negative times mean the beginning and the end of a topic."""
    with pytest.raises(MomentError, match="before 1970"):
        moment_ms(text, NOW_MS)


@given(st.text(max_size=30))
def test_any_text_is_read_as_a_moment_or_refused_with_a_reason(text: str) -> None:
    try:
        given_ms = moment_ms(text, NOW_MS)
    except MomentError:
        return
    assert given_ms >= 0


@click.command()
@click.option("--since", type=MOMENT)
def _echo(since: int | None) -> None:
    click.echo(since)


def test_as_an_option_it_counts_from_now() -> None:
    before = time.time_ns() // 1_000_000
    result = CliRunner().invoke(_echo, ["--since", "1h"])
    assert 0 <= int(result.stdout) + 3_600_000 - before < 60_000


def test_as_an_option_it_is_a_usage_error_that_names_the_option() -> None:
    result = CliRunner().invoke(_echo, ["--since", "yesterday"])
    assert result.exit_code == 2, result.output
    assert "Invalid value for '--since': 'yesterday' is not a time" in result.stderr


def test_an_option_that_is_not_given_is_none() -> None:
    assert CliRunner().invoke(_echo, []).stdout == "\n"


COMMANDS = [
    ["tail"],
    ["reconcile"],
    ["rehearse"],
    ["dead-letters", "list"],
    ["dead-letters", "replay"],
]


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_a_window_that_is_empty_is_a_usage_error_of_every_command(command: list[str]) -> None:
    environ = {"FLAGPOST_KAFKA__BOOTSTRAP_SERVERS": "127.0.0.1:1"}
    result = CliRunner().invoke(flagpost, [*command, "--since", "1h", "--until", "2h"], env=environ)
    assert result.exit_code == 2, result.output
    assert "--since is not before --until; the window would be empty" in result.stderr


@pytest.mark.parametrize("until", [[], ["--until", "2101-01-01"]], ids=["alone", "with_an_end"])
@pytest.mark.parametrize("command", [*COMMANDS, ["explain", "ada"], ["sql", "SELECT 1"]], ids=" ".join)
def test_a_window_that_has_not_begun_is_a_usage_error_of_every_command(
    command: list[str], until: list[str]
) -> None:
    """Before the fix, `reconcile --since 2027-01-01` found nothing unexplained, with exit code 0."""
    if command[0] == "explain":
        until = []
    environ = {"FLAGPOST_KAFKA__BOOTSTRAP_SERVERS": "127.0.0.1:1"}
    result = CliRunner().invoke(flagpost, [*command, "--since", "2100-01-01", *until], env=environ)
    assert result.exit_code == 2, result.output
    assert "--since 2100-01-01 00:00:00Z is in the future; the window would be empty" in result.stderr


@pytest.mark.parametrize("command", [*COMMANDS, ["explain"], ["sql"], ["export"]], ids=" ".join)
def test_the_help_of_every_command_says_which_times_it_takes(command: list[str]) -> None:
    said = " ".join(CliRunner().invoke(flagpost, [*command, "--help"]).stdout.split())
    assert "10m, 1h30m or 7d ago, 2026-11-28 (UTC), or RFC 3339" in said
