"""How long one poll of Kafka's client waits for a message.

In: whether polls returned messages. Out: seconds. The event loop's requests to the Kafka thread wait for the end of a
poll; a message ends it at once. Each poll costs 0.2 ms of CPU, so there are fewer while nothing comes.
"""

from __future__ import annotations

POLL_SECONDS = 0.1
QUIET_POLL_SECONDS = 0.3
"""Used when nothing has come for a while."""
QUIET_AFTER_POLLS = 10
"""After this many polls without a message."""


class PollPace:
    """The polls of one thread."""

    def __init__(self) -> None:
        self._brought_nothing = 0
        """The number of polls without a message since the last one."""

    def seconds(self, *, busy: bool) -> float:
        """How long the next poll waits. `busy`: the loop will soon ask for something, or waits for the thread."""
        is_quiet = self._brought_nothing >= QUIET_AFTER_POLLS and not busy
        return QUIET_POLL_SECONDS if is_quiet else POLL_SECONDS

    def polled(self, *, came: bool) -> None:
        """A poll has ended."""
        self._brought_nothing = 0 if came else self._brought_nothing + 1
