"""Runs the real consumer in its own process, and measures it.

In: the settings that matter here, and when it should end. Out: CPU, time and memory. It is measured between two of
its settlements, so that neither its start nor joining its group counts.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import structlog
import uvloop

from flagpost_consumer.commands.plan.measured import MeasuredServiceError, Took
from flagpost_consumer.service.service import Service
from flagpost_consumer.settings import Needs, load_settings

READY = "ready"
READY_SECONDS = 0.05
TIME_OUT_SECONDS = 300.0


def run_service(
    environ: Mapping[str, str],
    *,
    measured_from: int = 1,
    settlements: int = 0,
    idle_seconds: float = 0.0,
    when_ready: Callable[[], object] | None = None,
) -> Took:
    """Run a consumer until it has settled this many deliveries, or for a time without traffic.

    The measurement begins at the settlement with this number. `when_ready` is called once it has its partitions.
    """
    wanted = {
        "environ": dict(environ),
        "measured_from": measured_from,
        "settlements": settlements,
        "idle_seconds": idle_seconds,
    }
    command = [sys.executable, "-m", __name__, json.dumps(wanted)]
    with subprocess.Popen(  # noqa: S603 - this module
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None  # noqa: S101 - narrows the type
        if process.stdout.readline().strip() == READY and when_ready is not None:
            when_ready()
        try:
            out, err = process.communicate(timeout=TIME_OUT_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            raise MeasuredServiceError("the consumer that is measured did not come to its end") from None
    if process.returncode != 0:
        raise MeasuredServiceError(f"the consumer that is measured failed: {err.strip()[-500:]}")
    return Took.model_validate_json(out)


class _Run:
    def __init__(self, wanted: Mapping[str, Any]) -> None:
        self._wanted = wanted
        self._settled = 0
        self._began = (0.0, 0.0)
        self._took = (0.0, 0.0)
        settings = load_settings(None, wanted["environ"], Needs.KAFKA | Needs.PENDO)
        self._service = Service(settings, on_settled=self._on_settled, announce=False)

    async def run(self) -> Took:
        ready = asyncio.create_task(self._tell_ready())
        await self._service.run()
        await ready
        return Took(
            settlements=max(0, self._wanted["settlements"] - self._wanted["measured_from"]),
            began_at=self._began[1],
            cpu_seconds=self._took[0],
            seconds=self._took[1],
            peak_bytes=_peak_bytes(),
        )

    async def _tell_ready(self) -> None:
        engine = self._service.engine
        while not (engine.assigned and all(map(engine.is_restored, engine.assigned))):  # noqa: ASYNC110 - no event
            await asyncio.sleep(READY_SECONDS)
        sys.stdout.write(f"{READY}\n")
        sys.stdout.flush()
        if self._wanted["idle_seconds"]:
            self._begin()
            await asyncio.sleep(self._wanted["idle_seconds"])
            self._end()

    def _on_settled(self, _: object) -> None:
        self._settled += 1
        if self._settled == self._wanted["measured_from"]:
            self._begin()
        if self._settled == self._wanted["settlements"]:
            self._end()

    def _begin(self) -> None:
        self._began = time.process_time(), time.monotonic()

    def _end(self) -> None:
        self._took = time.process_time() - self._began[0], time.monotonic() - self._began[1]
        self._service.stop()


def _peak_bytes() -> int:
    """The peak memory of this process. getrusage's value includes its parent's memory at the fork."""
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:  # not Linux
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("wanted", type=json.loads)
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )
    sys.stdout.write(uvloop.run(_Run(parser.parse_args().wanted).run()).model_dump_json())
