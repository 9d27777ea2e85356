"""Samples of the newest events, for the checks that use them."""

from __future__ import annotations

import asyncio

from flagpost_consumer.commands.sources.newest_events import Sample


def sample_read(sample: Sample | None = None) -> asyncio.Future[Sample]:
    """A sample that has been read; by default it has no events."""
    future: asyncio.Future[Sample] = asyncio.get_running_loop().create_future()
    future.set_result(Sample() if sample is None else sample)
    return future
