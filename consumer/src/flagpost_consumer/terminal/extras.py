"""What is said where a command needs an extra that is not installed."""

from __future__ import annotations

import click


def extra_missing(name: str, error: ModuleNotFoundError, extra: str) -> click.ClickException:
    """The error for a command that needs an extra that is not installed."""
    return click.ClickException(
        f"flagpost {name} needs {error.name}: pip install 'flagpost-consumer[{extra}]'"
    )
