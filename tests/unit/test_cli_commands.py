"""The command line: the list of commands, what each command imports, and how errors are reported."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from flagpost_consumer import __version__
from flagpost_consumer.commands.cli import COMMANDS, CommandAt, LazyGroup, flagpost
from flagpost_consumer.commands.sources import kafka_admin
from running import FLAGPOST

CONSUMERS_PAGE = Path(__file__).parents[2] / "consumer" / "README.md"
HEAVY = ("confluent_kafka", "aiohttp", "rich", "prometheus_client", "fastavro")


def _imported_by(*command_lines: Sequence[str]) -> list[set[str]]:
    """The modules that are loaded after each command line; they run one after the other in one new process."""
    program = (
        "import sys\n"
        "from flagpost_consumer.commands.cli import flagpost\n"
        f"for line in {[list(each) for each in command_lines]!r}:\n"
        "    flagpost(line, standalone_mode=False)\n"
        "    print(*sys.modules, file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return [set(line.split()) for line in done.stderr.splitlines()]


def test_the_version_is_that_of_the_distribution() -> None:
    result = CliRunner().invoke(flagpost, ["--version"])
    assert (result.exit_code, result.output) == (0, f"flagpost, version {__version__}\n")


@pytest.mark.parametrize("arguments", [("--help",), ("--version",)])
def test_nothing_heavy_is_imported_to_list_the_commands(arguments: tuple[str, ...]) -> None:
    (imported,) = _imported_by(arguments)
    assert not imported & set(HEAVY)


def test_no_command_imports_packages_that_its_help_does_not_need() -> None:
    """An HTTP client and server, metrics and the SDK take most of a second to import."""
    after_each = _imported_by(*([name, "--help"] for name in COMMANDS))
    assert len(after_each) == len(COMMANDS)
    for name, imported in zip(COMMANDS, after_each, strict=True):
        assert not imported & {"aiohttp", "prometheus_client", "optimizely", "uvloop"}, name


def test_help_lists_every_command() -> None:
    output = CliRunner().invoke(flagpost, ["--help"]).output
    assert all(f"  {name} " in output and at.help.split(".")[0] in output for name, at in COMMANDS.items())


@pytest.mark.parametrize("name", COMMANDS)
def test_every_listed_command_exists(name: str) -> None:
    assert isinstance(COMMANDS[name].load(name), click.Command)


def test_a_command_that_does_not_exist_is_a_usage_error() -> None:
    result = CliRunner().invoke(flagpost, ["tial"])
    assert result.exit_code == 2, result.output
    assert "tial" in result.output


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        (["tial"], "tail"),
        (["reconsile"], "reconcile"),
        (["dead-letter"], "dead-letters"),
        (["dead-letters", "lst"], "list"),
        (["topics", "crate"], "create"),
    ],
)
def test_the_message_about_a_mistyped_command_names_a_similar_one(typed: list[str], meant: str) -> None:
    result = CliRunner().invoke(flagpost, typed)
    assert result.exit_code == 2, result.output
    assert f"There is no command '{typed[-1]}'. Did you mean '{meant}'" in result.stderr


def test_a_word_unlike_any_command_gets_no_suggestion() -> None:
    result = CliRunner().invoke(flagpost, ["xyzzy"])
    assert result.stderr.rstrip().endswith("There is no command 'xyzzy'.")


@pytest.mark.parametrize("group", ["dead-letters", "topics"])
def test_a_groups_help_is_complete_and_printed_without_a_command_too(group: str) -> None:
    asked = CliRunner().invoke(flagpost, [group, "--help"])
    assert asked.exit_code == 0, asked.output
    assert "..." not in asked.stdout.partition("Commands:")[2]
    assert max(map(len, asked.stdout.splitlines())) <= 80
    alone = CliRunner().invoke(flagpost, [group])
    assert (alone.exit_code, alone.stderr.splitlines()) == (2, asked.stdout.splitlines())


def test_a_missing_extra_is_one_line_that_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "needs_an_extra.py").write_text("import a_module_that_nobody_has\n")
    monkeypatch.syspath_prepend(tmp_path)
    group = LazyGroup("flagpost", commands_at={"show": CommandAt("needs_an_extra", "show", "Show.", "demo")})
    result = CliRunner().invoke(group, ["show"])
    assert result.exit_code == 1, result.output
    assert result.output == (
        "Error: flagpost show needs a_module_that_nobody_has: pip install 'flagpost-consumer[demo]'\n"
    )


@pytest.mark.parametrize("arguments", [["topics", "create"], ["check"]])
def test_settings_that_cannot_be_used_are_exit_code_2_on_stderr(arguments: list[str]) -> None:
    environ = {"FLAGPOST_ADMIN__PORT": "http", "FLAGPOST_CONFIG": None}
    result = CliRunner().invoke(flagpost, arguments, env=environ)
    assert result.exit_code == 2, result.output
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
    assert result.exit_code == 2, result.output
    assert f"kafka.topci ({file}): there is no such setting; did you mean kafka.topic?" in result.stderr


@pytest.mark.parametrize(
    "arguments", [["--seconds", "nan"], ["--rate", "nan"], ["--rate", "inf"]], ids=" ".join
)
def test_the_demo_runs_for_a_time_and_at_a_rate_that_are_numbers(arguments: list[str]) -> None:
    """Before the fix, it began, and never ended."""
    assert CliRunner().invoke(flagpost, ["demo", *arguments]).exit_code == 2


@pytest.mark.parametrize("arguments", [["reconcile"], ["sql", "SELECT 1"]], ids=["reconcile", "sql"])
def test_two_forms_of_output_at_once_are_a_usage_error(arguments: list[str]) -> None:
    """Before the fix, the last of the options won."""
    environ = {"FLAGPOST_KAFKA__BOOTSTRAP_SERVERS": "127.0.0.1:1"}
    result = CliRunner().invoke(flagpost, [*arguments, "--json", "--csv"], env=environ)
    assert result.exit_code == 2, result.output
    assert "--csv and --json cannot be combined" in result.stderr


def test_no_kafka_is_one_line_and_no_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kafka_admin, "CALL_SECONDS", 0.5)
    environ = {"FLAGPOST_KAFKA__BOOTSTRAP_SERVERS": "127.0.0.1:1"}
    result = CliRunner().invoke(flagpost, ["topics", "create"], env=environ)
    assert result.exit_code == 1, result.output
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
    assert result.exit_code == 2, result.output
    assert "sasl.pasword" in result.stderr
    assert "hunter2" not in result.stderr


@pytest.mark.parametrize(
    ("typed", "completed"),
    [
        (["dea"], {"dead-letters"}),
        (["re"], {"reconcile", "rehearse"}),
        (["dead-letters", "re"], {"replay"}),
        (["tail", "--no-f"], {"--no-follow"}),
        (["tail", "--outcome", "dro"], {"dropped"}),
    ],
)
def test_a_shell_completes_commands_options_and_values(typed: list[str], completed: set[str]) -> None:
    words = {"COMP_WORDS": " ".join(["flagpost", *typed]), "COMP_CWORD": str(len(typed))}
    environ = {**os.environ, "_FLAGPOST_COMPLETE": "bash_complete", **words}
    done = subprocess.run([FLAGPOST], env=environ, capture_output=True, text=True, check=True)
    assert {line.partition(",")[2] for line in done.stdout.splitlines()} == completed


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_documented_line_sets_up_completion_in_a_shell(shell: str) -> None:
    assert f"_FLAGPOST_COMPLETE={shell}_source flagpost" in CONSUMERS_PAGE.read_text()
    environ = {**os.environ, "_FLAGPOST_COMPLETE": f"{shell}_source"}
    done = subprocess.run([FLAGPOST], env=environ, capture_output=True, text=True, check=False)
    assert "_FLAGPOST_COMPLETE" in done.stdout or "bash" in done.stderr.lower()
