"""What commands say where they need Kafka, or the schema registry, and do not get it.

In: what reading topics raises. Out: one line for people, with exit code 1.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import click

from flagpost_consumer.adapters.schema_registry import RegistryNotAnswering
from flagpost_consumer.operator.kafka_admin import KafkaUnavailable


@contextmanager
def explained(part: str, *others: type[Exception]) -> Iterator[None]:
    """What the block raises becomes a click.ClickException that says what is wrong.

    `part`: what needs the registry, in a word. `others`: errors whose text already is that line.
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
