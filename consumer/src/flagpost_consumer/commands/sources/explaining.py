"""The error messages of commands that need Kafka or the schema registry and cannot reach them.

In: what reading topics raises. Out: one line for people, with exit code 1.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import click

from flagpost_consumer.adapters.registry.errors import RegistryNotAnswering
from flagpost_consumer.commands.sources.kafka_admin import KafkaUnavailable


@contextmanager
def explained(part: str, *others: type[Exception]) -> Iterator[None]:
    """Turn what the block raises into a click.ClickException that says what is wrong.

    `part`: what needs the registry, in a word. `others`: errors whose text is already such a line.
    """
    try:
        yield
    except KafkaUnavailable as error:
        raise click.ClickException(f"Kafka: {error}") from None
    except RegistryNotAnswering as error:
        raise click.ClickException(
            f"the schema registry, which a {part} needs, does not answer: {error}"
        ) from None
    except others as error:
        raise click.ClickException(str(error)) from None
