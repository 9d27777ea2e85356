"""Waits for Kafka's answer, and says so on stderr if it takes long.

In: a blocking call that takes a time-out. Out: its answer, or what it raises at its end. After a second a person is
told what is waited for, how long at most, and the reason that librdkafka gave. Ctrl-C ends the wait at once.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from threading import current_thread, main_thread
from typing import Final, TypeVar

from confluent_kafka import KafkaException

from flagpost_consumer.terminal.echo import echo
from flagpost_kafka import errors
from flagpost_settings.daemon_calls import in_a_daemon

SILENT_SECONDS: Final = 1.0
"""Say nothing for this long."""

Result = TypeVar("Result")


class Patience:
    """The waiting of one connection, announced once."""

    def __init__(self, servers: str, heard: Callable[[], str]) -> None:
        """`heard` returns what librdkafka has reported so far; empty: nothing."""
        self._servers = servers
        self._heard = heard
        self._has_said = False
        self.has_left_a_call = False
        """Whether Ctrl-C came during a call: a thread is still in it, so the client must not be closed."""

    def ask(self, call: Callable[..., Result], seconds: float) -> Result:
        """Call with a time-out of `seconds` in all. Raises what the call raises."""
        if self._has_said or seconds <= SILENT_SECONDS:
            return self._interruptibly(call, seconds)
        try:
            return self._interruptibly(call, SILENT_SECONDS)
        except TimeoutError:
            self.say(f"for up to {seconds:.3g} s")
        except KafkaException as error:
            if error.args[0].code() not in errors.NO_ANSWER:
                raise
            self.say(f"for up to {seconds:.3g} s")
        return self._interruptibly(call, seconds - SILENT_SECONDS)

    def _interruptibly(self, call: Callable[..., Result], seconds: float) -> Result:
        """Call in a thread of its own: Python notices Ctrl-C only between calls of librdkafka. Shorter calls would
        not do, because an answer that takes longer would never come.
        """
        if current_thread() is not main_thread():  # which alone is interrupted
            return call(timeout=seconds)
        answer = in_a_daemon(partial(call, timeout=seconds), "flagpost-asking")
        try:
            return answer.result()
        except KeyboardInterrupt:
            self.has_left_a_call = True
            raise

    def say(self, how_long: str, why: str = "") -> None:
        """Print that Kafka is waited for, and why; empty: what librdkafka has reported."""
        if not self._has_said:
            self._has_said = True
            why = why or self._heard() or "no answer yet"
            echo(f"waiting {how_long} for Kafka at {self._servers}: {why}", err=True)
