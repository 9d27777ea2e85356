"""Flagpost's consumer: delivers events to Pendo in order, paced, each one accounted for."""

from importlib.metadata import version

__version__ = version("flagpost-consumer")
