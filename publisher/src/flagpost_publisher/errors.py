"""The errors for `on_error`: exceptions that contain the facts and no id, property or attribute.

`kind` is one of a few fixed words, `count` the number of errors of this kind since the last one reported.
"""

from __future__ import annotations


class PublisherError(Exception):
    """Something did not reach Kafka, or not as it should."""

    def __init__(self, kind: str, message: str) -> None:
        """`kind` groups errors for counting; `message` says what is wrong and what to do."""
        super().__init__(message)
        self.kind = kind
        self.count = 1


class EventRefused(PublisherError):  # noqa: N818 - says what became of the event
    """An event was not accepted: it counts as `refused` and is lost."""


class AttributeLeftOut(PublisherError):  # noqa: N818 - says what became of the attribute
    """An event was published without one of the allowed attributes, whose value Avro cannot carry."""


class DeliveryFailed(PublisherError):  # noqa: N818 - says what became of the event
    """Kafka did not take an event that had been accepted: it counts as `failed` and is lost."""


class KafkaTrouble(PublisherError):  # noqa: N818 - not an error of ours
    """Kafka cannot be reached (`kind` is "kafka"), or a right or the topic is missing ("rights"); events wait."""


class RegistryTrouble(PublisherError):  # noqa: N818 - not an error of ours
    """The schema registry cannot be reached or refuses a schema; events wait."""
