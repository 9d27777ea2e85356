"""Groups of commands that suggest names for mistyped ones, and whose help is not cut.

In: the name that was typed. Out: the command, or a usage error that names similar ones.
"""

from __future__ import annotations

from difflib import get_close_matches

import click

UNCUT = 1_000
"""More characters than a command's first sentence has."""


class HelpfulGroup(click.Group):
    """A group that suggests commands, on every allowed release of click."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command; if there is none, suggest similar ones."""
        name = args[0]
        if self.get_command(ctx, name) is None and not name.startswith("-") and not ctx.resilient_parsing:
            like = " or ".join(f"'{each}'" for each in get_close_matches(name, self.list_commands(ctx)))
            ctx.fail(f"There is no command '{name}'. {f'Did you mean {like}?' if like else ''}".rstrip())
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands, each with its whole first sentence."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, self.summary(ctx, name)) for name in self.list_commands(ctx)])

    def summary(self, ctx: click.Context, name: str) -> str:
        """A command's first sentence."""
        command = self.get_command(ctx, name)
        return "" if command is None else command.get_short_help_str(UNCUT)
