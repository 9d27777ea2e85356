"""The command `flagpost`: finds the requested command, and turns expected errors into one line.

In: the command line. Out: an exit code (docs/contract.md#exit-codes): 2 for settings, 1 for what could not be done.
Each command is a module of its own that is imported when it is run, so that `flagpost --help` is quick.
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
from click.shell_completion import CompletionItem

from flagpost_consumer import __version__
from flagpost_consumer.commands.groups import HelpfulGroup
from flagpost_consumer.settings import Needs, Settings, SettingsError, load_settings
from flagpost_consumer.terminal.echo import echo_lines
from flagpost_consumer.terminal.extras import extra_missing
from flagpost_consumer.terminal.streams import READER_GONE_EXIT_CODE, ReaderGone, make_streams_usable
from flagpost_settings.metrics_in_memory import keep_metrics_in_memory
from flagpost_settings.visible import visible

SettingsLoader = Callable[[Needs], Settings]
"""Passed to commands by `@click.pass_obj`: loads the settings that a command needs. Raises SettingsError."""

SETTINGS_EXIT_CODE = 2


@dataclass(frozen=True, slots=True)
class CommandAt:
    """Where a command is defined."""

    module: str
    attribute: str
    help: str
    extra: str | None = None
    """The extra of flagpost-consumer that its imports need."""
    only_done: bool = False
    """Whether its exit code 0 says no more than that it has ended; else it is a verdict."""

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


def _take_config(command: click.Command) -> None:
    """Accept `--config` after the command as well, where people often write it."""
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
    help="The settings file (YAML).",
)

COMMANDS = {
    "demo": CommandAt(
        "flagpost_consumer.demo.command",
        "demo",
        "Run the whole path on this machine, with nothing to install.",
        extra="demo",
    ),
    "consume": CommandAt(
        "flagpost_consumer.commands.consume",
        "consume",
        "Run the consumer: deliver events to Pendo.",
        only_done=True,
    ),
    "topics": CommandAt("flagpost_consumer.commands.topics.command", "topics", "Create the topics in Kafka."),
    "check": CommandAt(
        "flagpost_consumer.commands.check.command",
        "check",
        "Check settings, Kafka, the schema registry and Pendo.",
    ),
    "preview": CommandAt(
        "flagpost_consumer.commands.preview", "preview", "Show the requests that an event would become."
    ),
    "import": CommandAt(
        "flagpost_consumer.commands.imports.command",
        "import_rows",
        "Publish the rows of a CSV or JSON lines file.",
    ),
    "tail": CommandAt(
        "flagpost_consumer.commands.tail",
        "tail",
        "Follow settlements: how each delivery ends.",
        only_done=True,
    ),
    "explain": CommandAt(
        "flagpost_consumer.commands.explain.command",
        "explain",
        "Show what happened to each event of a visitor.",
    ),
    "export": CommandAt(
        "flagpost_consumer.commands.analyst.export",
        "export",
        "Write settlements to a file.",
        only_done=True,
    ),
    "sql": CommandAt(
        "flagpost_consumer.commands.analyst.sql",
        "sql",
        "Query settlements with SQL.",
        extra="analyst",
        only_done=True,
    ),
    "dead-letters": CommandAt(
        "flagpost_consumer.commands.dead_letters.commands",
        "dead_letters",
        "List, show and replay what could not be delivered.",
        only_done=True,
    ),
    "suppress": CommandAt(
        "flagpost_consumer.commands.privacy.suppress",
        "suppress",
        "Stop sending anything about a visitor.",
        only_done=True,
    ),
    "erase": CommandAt(
        "flagpost_consumer.commands.privacy.erase",
        "erase",
        "Show and delete what the topics hold about a visitor.",
        only_done=True,
    ),
    "reconcile": CommandAt(
        "flagpost_consumer.commands.reconcile.command",
        "reconcile",
        "Count what was published and how it ended.",
    ),
    "web": CommandAt(
        "flagpost_consumer.web.command",
        "web",
        "Serve a read-only web page: traffic, flags, lost visitors.",
        only_done=True,
    ),
    "plan": CommandAt(
        "flagpost_consumer.commands.plan.command",
        "plan",
        "Estimate pods, memory, CPU and requests to Pendo for a load.",
    ),
    "rehearse": CommandAt(
        "flagpost_consumer.commands.rehearse.command",
        "rehearse",
        "Test this release and these settings on past events.",
    ),
}


class LazyGroup(HelpfulGroup):
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

    def summary(self, ctx: click.Context, name: str) -> str:
        """A command's first sentence, without importing it."""
        del ctx
        return self._commands_at[name].help

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """The commands that begin with this text, without importing them, and the options."""
        commands = [
            CompletionItem(name, help=at.help)
            for name, at in self._commands_at.items()
            if name.startswith(incomplete)
        ]
        return [*commands, *click.Command.shell_complete(self, ctx, incomplete)]

    def invoke(self, ctx: click.Context) -> Any:  # noqa: ANN401 - click's own
        """Run the command; for settings that cannot be used, print only their problems."""
        try:
            return super().invoke(ctx)
        except SettingsError as error:
            echo_lines(f"The settings cannot be used.\n{error}", err=True)
            ctx.exit(SETTINGS_EXIT_CODE)
        except ReaderGone:
            if self._commands_at[ctx.invoked_subcommand or ""].only_done:
                raise
            ctx.exit(READER_GONE_EXIT_CODE)
        except (
            click.exceptions.NoArgsIsHelpError
        ):  # a group without a command: print its help in our own lines
            raise
        except click.ClickException as error:  # click prints it
            error.message = visible(error.message)  # type: ignore[misc]
            raise


@click.group(cls=LazyGroup, commands_at=COMMANDS, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--config",
    type=click.Path(path_type=Path),
    envvar="FLAGPOST_CONFIG",
    help="The settings file (YAML). Environment variables FLAGPOST_<SECTION>__<KEY> override it.  "
    "[env: FLAGPOST_CONFIG]",
)
@click.version_option(__version__, prog_name="flagpost")
@click.pass_context
def flagpost(ctx: click.Context, config: Path | None) -> None:
    """Carry Optimizely Feature Experimentation decisions to Pendo, and account for every one."""
    ctx.obj = partial(load_settings, config, os.environ)


def main() -> None:
    """The entry point of the command."""
    keep_metrics_in_memory(os.environ)
    make_streams_usable()
    flagpost(prog_name="flagpost")
