"""Publishes Optimizely's decisions to Kafka for Flagpost, without slowing the application.

from flagpost_publisher import Publisher

publisher = Publisher(bootstrap_servers="localhost:9092", service="checkout")
publisher.attach(optimizely_client)  # before the first decide()
"""

from flagpost_publisher.errors import (
    AttributeLeftOut,
    DeliveryFailed,
    EventRefused,
    KafkaTrouble,
    PublisherError,
    RegistryTrouble,
)
from flagpost_publisher.publisher import Publisher
from flagpost_publisher.stats import PublisherStats

__all__ = [
    "AttributeLeftOut",
    "DeliveryFailed",
    "EventRefused",
    "KafkaTrouble",
    "Publisher",
    "PublisherError",
    "PublisherStats",
    "RegistryTrouble",
]
