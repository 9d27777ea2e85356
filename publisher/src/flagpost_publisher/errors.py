"""What `on_error` is told: exceptions that carry the facts and hold no id, property or attribute.

`kind` is one of a few fixed words, `count` how many of this kind there were since the last one told.
"""

from __future__ import annotations


class PublisherError(Exception):
    """Something did not go to Kafka, or not as it should."""

    def __init__(self, kind: str, message: str) -> None:
        """`kind` groups errors for counting; `message` says what is wrong and what to do."""
        super().__init__(message)
        self.kind = kind
        self.count = 1


class EventRefused(PublisherError):  # noqa: N818 - says what became of the event
    """An event was not taken: it is counted in `refused` and gone."""


class AttributeLeftOut(PublisherError):  # noqa: N818 - says what became of the attribute
    """An event went without one of the allowed attributes, whose value Avro cannot carry."""


class DeliveryFailed(PublisherError):  # noqa: N818 - says what became of the event
    """Kafka did not take an event that had been accepted: it is counted in `failed` and gone."""


class KafkaTrouble(PublisherError):  # noqa: N818 - not an error of ours
    """Kafka cannot be reached (`kind` is "kafka"), or a right or the topic is missing ("rights"); events wait."""


class RegistryTrouble(PublisherError):  # noqa: N818 - not an error of ours
    """The schema registry cannot be reached or refuses a schema; events wait."""
