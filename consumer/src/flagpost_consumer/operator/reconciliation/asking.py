"""What commands that read a window of the topics have in common: the window, and what they say when it fails.

In: times as people give them; what reading raises. Out: a window; one line for people. Called by the commands.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import click

from flagpost_consumer.adapters.schema_registry import RegistryNotAnswering
from flagpost_consumer.operator.kafka_admin import KafkaUnavailable
from flagpost_consumer.operator.reconciliation.extent import Window
from flagpost_consumer.operator.reconciliation.settled import LaterRelease
from flagpost_schemas import UnknownSchema


def window_of(since: int | None, until: int | None) -> Window:
    """The window between two moments, epoch ms. Raises click.UsageError if it is empty."""
    if since is not None and until is not None and since >= until:
        raise click.UsageError("--since is not before --until; the window would be empty")
    return Window(since, until)


@contextmanager
def explained() -> Iterator[None]:
    """What reading the topics raises becomes a click.ClickException that says what is wrong."""
    try:
        yield
    except KafkaUnavailable as error:
        raise click.ClickException(f"Kafka: {error}") from None
    except RegistryNotAnswering as error:
        raise click.ClickException(
            f"the schema registry, which a record needs, does not answer: {error}"
        ) from None
    except (UnknownSchema, LaterRelease) as error:
        raise click.ClickException(str(error)) from None
