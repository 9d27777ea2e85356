"""The answers of /livez and /readyz.

In: the loop, its engine and its connections. Out: whether the process should go on, and whether it can deliver.
"""

from __future__ import annotations

import time

from flagpost_consumer.adapters.admin import Health
from flagpost_consumer.adapters.clocks import clock
from flagpost_consumer.service.engine_loop import EngineLoop

LIVE_SECONDS = 60.0
"""The Kafka thread may stand still this long, in a hand-over or because of a slow broker, before it counts as
dead.
"""


class Probes:
    """The health of one service."""

    def __init__(self, loop: EngineLoop, metadata_timeout_seconds: float) -> None:
        self._loop = loop
        self._metadata_timeout_seconds = metadata_timeout_seconds

    def live(self) -> Health:
        """Whether the process does what it can; if not, it should be restarted."""
        intake = self._loop.intake
        if intake is None:
            return Health(ok=True, detail="starting")
        still = time.monotonic() - intake.beat_at
        if still > LIVE_SECONDS:
            return Health(ok=False, detail=f"the Kafka thread has made no progress for {still:.0f} s")
        overdue_since = self._loop.overdue_since
        overdue = 0.0 if overdue_since is None else clock().monotonic - overdue_since
        if overdue > LIVE_SECONDS:
            return Health(ok=False, detail=f"a request has been due for {overdue:.0f} s and does not start")
        forgotten = self._loop.http.oldest_attempt_seconds - self._metadata_timeout_seconds
        if forgotten > 2 * LIVE_SECONDS:
            return Health(
                ok=False, detail=f"a request has been overdue for {forgotten:.0f} s without an answer"
            )
        return Health(ok=True, detail="live")

    def ready(self) -> Health:
        """Whether the process is a member of its group and may deliver."""
        intake, engine = self._loop.intake, self._loop.engine
        if intake is None or not intake.joined:
            return Health(ok=False, detail="not yet a member of the group")
        is_at_work = any(engine.is_restored(number) for number in engine.assigned)
        if is_at_work and not engine.is_member(clock()):
            return Health(
                ok=False, detail="the group accepts no commits: it may have assigned the partitions to others"
            )
        return Health(ok=True, detail="ready")
