"""Flagpost's HTTP client for Pendo as a process, which a test can stop and continue.

In: a server's URL, how many requests to make at once, their timeout. Out: one line of JSON: how many answers had each
label.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections import Counter

import uvloop

from deadlines import stretched
from pendo_client import GENEROUS_SECONDS, client, track_attempt


async def run(url: str, count: int, timeout_seconds: float) -> Counter[str]:
    async with client(url, timeout_seconds) as (http, answers):
        for number in range(count):
            http.start(track_attempt(f"v{number}"))
        return Counter(
            [(await asyncio.wait_for(answers.get(), stretched(GENEROUS_SECONDS))).label for _ in range(count)]
        )


if __name__ == "__main__":
    url, count, timeout_seconds = sys.argv[1:]
    sys.stdout.write(json.dumps(uvloop.run(run(url, int(count), float(timeout_seconds)))))
