"""The demo's options and the text that it prints first; this module imports nothing that is slow to import."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Options:
    """How long, how fast, how many, and on which Kafka."""

    seconds: float
    """How long there is traffic."""
    rate: float
    """Decisions a second."""
    visitors: int
    bootstrap_servers: str | None
    """None: the embedded Kafka."""

    @property
    def kafka(self) -> str:
        """A description of the Kafka that is used."""
        if self.bootstrap_servers is None:
            return "for Kafka, an embedded broker (librdkafka's mock cluster)"
        return f"none for Kafka: yours is used ({self.bootstrap_servers})"

    @property
    def opening(self) -> str:
        """Which parts of this run are real, and which are stand-ins."""
        return (
            "Real here: an application with the Optimizely SDK, the Publisher, the consumer.\n"
            f"Stand-ins: {self.kafka};\n"
            "for Pendo, a server on this machine that enforces Pendo's rules and answers\n"
            "2 % of the requests with 503, on purpose. Nothing goes to Optimizely or Pendo.\n"
            "Ctrl-C ends the traffic; then the numbers are reconciled.\n"
        )


class Interrupted(Exception):  # noqa: N818 (the user stopped the demo: no error)
    """Ctrl-C came before anything was decided."""
