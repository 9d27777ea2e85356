"""The command `flagpost`: finds the command that is asked for, and turns foreseeable errors into one line.

In: the command line. Out: an exit code (CONTRACT section 7): 2 for settings, 1 for what a command could not do.
Each command lives in a module of its own that is imported when it is run, so that `flagpost --help` is quick.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import click

from flagpost_consumer import __version__
from flagpost_consumer.operator.terminal import echo_lines
from flagpost_consumer.settings import Needs, Settings, SettingsError, load_settings
from flagpost_settings.metrics_in_memory import keep_metrics_in_memory
from flagpost_settings.visible import visible

SettingsLoader = Callable[[Needs], Settings]
"""What commands get by `@click.pass_obj`: says what the command needs, and raises SettingsError."""

SETTINGS_EXIT_CODE = 2


@dataclass(frozen=True, slots=True)
class CommandAt:
    """A command, and where it is defined."""

    module: str
    attribute: str
    help: str
    extra: str | None = None
    """The extra of flagpost-consumer that its imports need."""

    def load(self, name: str) -> click.Command:
        """Import the command.

        Raises:
            click.ClickException: the extra is not installed.
        """
        try:
            command: click.Command = getattr(importlib.import_module(self.module), self.attribute)
        except ModuleNotFoundError as error:
            if self.extra is None:
                raise
            raise extra_missing(name, error, self.extra) from None
        _take_config(command)
        return command


def extra_missing(name: str, error: ModuleNotFoundError, extra: str) -> click.ClickException:
    """What is said where a command needs an extra that is not installed."""
    return click.ClickException(
        f"flagpost {name} needs {error.name}: pip install 'flagpost-consumer[{extra}]'"
    )


def _take_config(command: click.Command) -> None:
    """Let `--config` be given behind the command as well, where people write it."""
    if isinstance(command, click.Group):
        for inner in command.commands.values():
            _take_config(inner)
    elif not any(parameter.name == CONFIG_OPTION.name for parameter in command.params):
        command.params.append(CONFIG_OPTION)


def _use_config(ctx: click.Context, _: click.Parameter, path: Path | None) -> None:
    if path is not None:
        ctx.obj = partial(load_settings, path, os.environ)


CONFIG_OPTION = click.Option(
    ["--config"],
    type=click.Path(path_type=Path),
    expose_value=False,
    callback=_use_config,
    is_eager=True,
    help="The settings file.",
)

COMMANDS = {
    "demo": CommandAt(
        "flagpost_consumer.demo.run",
        "demo",
        "Watch the whole path on this machine, with nothing to install.",
        extra="demo",
    ),
    "consume": CommandAt(
        "flagpost_consumer.operator.consume", "consume", "Deliver events to Pendo: the service."
    ),
    "topics": CommandAt("flagpost_consumer.operator.topics", "topics", "Create the topics in Kafka."),
    "check": CommandAt(
        "flagpost_consumer.operator.check", "check", "Check settings, Kafka, the schema registry and Pendo."
    ),
    "preview": CommandAt(
        "flagpost_consumer.operator.preview", "preview", "Show the requests that an event would become."
    ),
    "import": CommandAt(
        "flagpost_consumer.operator.imports.command",
        "import_rows",
        "Put the rows of a file on the events topic.",
    ),
    "tail": CommandAt("flagpost_consumer.operator.tail", "tail", "Follow how deliveries end."),
    "explain": CommandAt(
        "flagpost_consumer.operator.explain.command",
        "explain",
        "Tell what became of each event of a visitor.",
    ),
    "export": CommandAt(
        "flagpost_consumer.operator.analyst.export", "export", "Write settlements to a file."
    ),
    "sql": CommandAt(
        "flagpost_consumer.operator.analyst.sql",
        "sql",
        "Ask the settlements in SQL.",
        extra="analyst",
    ),
    "dead-letters": CommandAt(
        "flagpost_consumer.operator.dead_letters.commands",
        "dead_letters",
        "List what could not be delivered, look at it, and put it back.",
    ),
    "suppress": CommandAt(
        "flagpost_consumer.operator.privacy.suppress", "suppress", "Send nothing of a visitor any more."
    ),
    "erase": CommandAt(
        "flagpost_consumer.operator.privacy.erase",
        "erase",
        "Say what the topics hold of a visitor, and until when.",
    ),
    "reconcile": CommandAt(
        "flagpost_consumer.operator.reconcile", "reconcile", "Count what was published and what became of it."
    ),
    "web": CommandAt(
        "flagpost_consumer.web.command", "web", "Serve a page for people who do not use terminals."
    ),
    "plan": CommandAt(
        "flagpost_consumer.operator.planning.command",
        "plan",
        "Tell what a load needs: pods, memory, CPU, requests to Pendo.",
    ),
    "rehearse": CommandAt(
        "flagpost_consumer.operator.rehearse",
        "rehearse",
        "Try this release and these settings on what there was.",
    ),
}


class LazyGroup(click.Group):
    """A group whose commands are imported when they are run."""

    def __init__(self, *args: Any, commands_at: Mapping[str, CommandAt], **kwargs: Any) -> None:  # noqa: ANN401
        super().__init__(*args, **kwargs)
        self._commands_at = commands_at

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The commands' names, in the order of the list."""
        del ctx
        return list(self._commands_at)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the command."""
        del ctx
        at = self._commands_at.get(cmd_name)
        return None if at is None else at.load(cmd_name)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands without importing them."""
        del ctx
        with formatter.section("Commands"):
            formatter.write_dl([(name, at.help) for name, at in self._commands_at.items()])

    def invoke(self, ctx: click.Context) -> Any:  # noqa: ANN401 - click's own
        """Run the command; settings that cannot be used end with their problems and nothing else."""
        try:
            return super().invoke(ctx)
        except SettingsError as error:
            echo_lines(f"The settings cannot be used.\n{error}", err=True)
            ctx.exit(SETTINGS_EXIT_CODE)
        except click.ClickException as error:  # click prints it
            error.message = visible(error.message)  # type: ignore[misc]
            raise


@click.group(cls=LazyGroup, commands_at=COMMANDS, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--config",
    type=click.Path(path_type=Path),
    envvar="FLAGPOST_CONFIG",
    help="The settings file (YAML). Variables FLAGPOST_<SECTION>__<KEY> win over it.  [env: FLAGPOST_CONFIG]",
)
@click.version_option(__version__, prog_name="flagpost")
@click.pass_context
def flagpost(ctx: click.Context, config: Path | None) -> None:
    """Carry Optimizely Feature Experimentation decisions to Pendo, and account for every one."""
    ctx.obj = partial(load_settings, config, os.environ)


def main() -> None:
    """The entry point of the command."""
    keep_metrics_in_memory(os.environ)
    flagpost(prog_name="flagpost")
