"""The command line: what is listed, what is imported when, and how errors end."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from flagpost_consumer import __version__
from flagpost_consumer.operator import kafka_admin
from flagpost_consumer.operator.cli import COMMANDS, CommandAt, LazyGroup, flagpost

HEAVY = ("confluent_kafka", "aiohttp", "rich", "prometheus_client", "fastavro")


def _imported_by(*arguments: str) -> set[str]:
    program = (
        "import sys\n"
        "from flagpost_consumer.operator.cli import flagpost\n"
        f"flagpost({list(arguments)!r}, standalone_mode=False)\n"
        "sys.stderr.write(' '.join(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return set(done.stderr.split())


def test_the_version_is_the_distributions() -> None:
    result = CliRunner().invoke(flagpost, ["--version"])
    assert (result.exit_code, result.output) == (0, f"flagpost, version {__version__}\n")


@pytest.mark.parametrize("arguments", [("--help",), ("--version",)])
def test_nothing_heavy_is_imported_to_tell_what_there_is(arguments: tuple[str, ...]) -> None:
    assert not _imported_by(*arguments) & set(HEAVY)


def test_help_lists_every_command() -> None:
    output = CliRunner().invoke(flagpost, ["--help"]).output
    assert all(f"  {name} " in output and at.help.split(".")[0] in output for name, at in COMMANDS.items())


@pytest.mark.parametrize("name", COMMANDS)
def test_every_listed_command_exists(name: str) -> None:
    assert isinstance(COMMANDS[name].load(name), click.Command)


def test_a_command_that_does_not_exist_is_a_usage_error() -> None:
    result = CliRunner().invoke(flagpost, ["tial"])
    assert result.exit_code == 2
    assert "tial" in result.output


def test_a_missing_extra_is_one_line_that_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "needs_an_extra.py").write_text("import a_module_that_nobody_has\n")
    monkeypatch.syspath_prepend(tmp_path)
    group = LazyGroup("flagpost", commands_at={"show": CommandAt("needs_an_extra", "show", "Show.", "demo")})
    result = CliRunner().invoke(group, ["show"])
    assert result.exit_code == 1
    assert result.output == (
        "Error: flagpost show needs a_module_that_nobody_has: pip install 'flagpost-consumer[demo]'\n"
    )


@pytest.mark.parametrize("arguments", [["topics", "create"], ["check"]])
def test_settings_that_cannot_be_used_are_exit_code_2_on_stderr(arguments: list[str]) -> None:
    environ = {"FLAGPOST_ADMIN__PORT": "http", "FLAGPOST_CONFIG": None}
    result = CliRunner().invoke(flagpost, arguments, env=environ)
    assert result.exit_code == 2
    assert result.stdout == ""
    assert 'admin.port (FLAGPOST_ADMIN__PORT): "http" is not accepted' in result.stderr


@pytest.mark.parametrize(
    "arguments",
    [["--config", "{}", "topics", "create"], ["topics", "create", "--config", "{}"], ["topics", "create"]],
)
def test_the_settings_file_is_an_option_or_a_variable(arguments: list[str], tmp_path: Path) -> None:
    file = tmp_path / "flagpost.yaml"
    file.write_text("kafka: {topci: x}")
    environ = {} if any("{}" in argument for argument in arguments) else {"FLAGPOST_CONFIG": str(file)}
    result = CliRunner().invoke(flagpost, [argument.format(file) for argument in arguments], env=environ)
    assert result.exit_code == 2
    assert f"kafka.topci ({file}): there is no such setting; did you mean kafka.topic?" in result.stderr


def test_no_kafka_is_one_line_and_no_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kafka_admin, "CALL_SECONDS", 0.5)
    environ = {"FLAGPOST_KAFKA__BOOTSTRAP_SERVERS": "127.0.0.1:1"}
    result = CliRunner().invoke(flagpost, ["topics", "create"], env=environ)
    assert result.exit_code == 1
    assert len(result.stderr.splitlines()) == 1
    assert "127.0.0.1:1" in result.stderr
    assert "kafka.bootstrap_servers" in result.stderr


@pytest.mark.parametrize("arguments", [["topics", "create"], ["consume"]])
def test_a_property_that_librdkafka_does_not_know_is_a_setting_that_cannot_be_used(
    arguments: list[str],
) -> None:
    environ = {
        "FLAGPOST_KAFKA__BOOTSTRAP_SERVERS": "127.0.0.1:1",
        "FLAGPOST_KAFKA__PROPERTIES": '{"sasl.pasword": "hunter2"}',
        "FLAGPOST_PENDO__TRACK_SECRET": "s",
        "FLAGPOST_PENDO__INTEGRATION_KEY": "k",
    }
    result = CliRunner().invoke(flagpost, arguments, env=environ)
    assert result.exit_code == 2
    assert "sasl.pasword" in result.stderr
    assert "hunter2" not in result.stderr
