"""One process: a service whose engine failed is followed by another, but not after a signal."""

from __future__ import annotations

import asyncio
import os
import signal
from typing import Any, cast

import pytest

from flagpost_consumer.core.planning.quarantine import Suspects
from flagpost_consumer.service import process
from flagpost_consumer.service.defects import Defects
from flagpost_consumer.service.stopping import Stopping


class Failing:
    """A service whose engine fails at a record; what happens while it ends is `meanwhile`."""

    begun = 0

    def __init__(self, _: object, *, suspects: Suspects) -> None:
        type(self).begun += 1
        self._suspects = suspects
        self._stopping = Stopping()
        self._defects = Defects(suspects, self._stopping)

    @property
    def may_begin_anew(self) -> bool:
        return self._defects.may_begin_anew

    def stop(self) -> None:
        self._stopping.request()

    @staticmethod
    def meanwhile() -> None:
        """Nothing happens."""

    async def run(self) -> int:
        self._suspects.handled = (0, self.begun)
        self._defects.fail(RuntimeError("a defect"))
        self.meanwhile()
        await asyncio.sleep(0.05)
        return 1


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> type[Failing]:
    """The services of `process.serve` fail."""
    monkeypatch.setattr(process, "Service", Failing)
    monkeypatch.setattr(process, "say_start", lambda _: None)
    monkeypatch.setattr(process, "MAX_SERVICES", 3)
    monkeypatch.setattr(Failing, "begun", 0)
    return Failing


async def test_another_service_follows_one_whose_engine_failed(failing: type[Failing]) -> None:
    assert await process.serve(cast("Any", None)) == 1
    assert failing.begun == 3


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_none_follows_after_a_signal_that_came_while_it_ended(
    failing: type[Failing], monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    """Before, the signal was lost, and another service ran until the platform killed the process."""
    monkeypatch.setattr(failing, "meanwhile", staticmethod(lambda: os.kill(os.getpid(), number)))
    assert await process.serve(cast("Any", None)) == 1
    assert failing.begun == 1
