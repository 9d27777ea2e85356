"""Makes librdkafka clients for operators' commands.

In: a kind of client and its properties. Out: the client, silent: what librdkafka would write to stderr is left out,
because commands report errors in their own words. Properties that librdkafka refuses are a SettingsError.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from confluent_kafka import KafkaException

from flagpost_consumer.settings import Problem, SettingsError

Client = TypeVar("Client")

_VALUE = re.compile('value "[^"]*"')

_SILENT = logging.getLogger("librdkafka, unheard")
_SILENT.addHandler(logging.NullHandler())
_SILENT.propagate = False


def silent_client(kind: Callable[..., Client], properties: Mapping[str, Any]) -> Client:
    """A client of this kind; it connects in the background.

    Raises:
        SettingsError: librdkafka does not know a property, or its value is impossible. The value is not shown,
        because it may be a secret.
    """
    try:
        # log_level alone lets fatal errors through.
        return kind({**properties, "log_level": 0}, logger=_SILENT)
    except KafkaException as error:
        text = _VALUE.sub("the value", error.args[0].str())
        raise SettingsError([Problem("kafka.properties", "", f"librdkafka refuses them: {text}")]) from None
