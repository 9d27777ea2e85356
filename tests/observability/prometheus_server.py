"""A real Prometheus on 127.0.0.1 that scrapes what a test runs.

In: targets, which may come and go, and rules. Out: answers to queries, and the alerts that are pending or firing.
"""

from __future__ import annotations

import asyncio
import json
import math
import signal
import subprocess
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import aiohttp
import yaml

from deadlines import stretched
from observability.asked import ALERTS
from real_kafka.processes import free_port

SCRAPE_SECONDS = 1
START_SECONDS = 60.0
HOLD = "2s"
"""Replaces every `for` of the rules; promtool's tests check the real ones."""


@dataclass(frozen=True, slots=True)
class Target:
    """Something to scrape, and the name of its pod."""

    url: str
    pod: str

    def as_config(self) -> Mapping[str, object]:
        """The entry that file_sd reads, with the labels that a PodMonitor would give."""
        labels = {"namespace": "here", "release": "flagpost", "pod": self.pod}
        return {"targets": [self.url.removeprefix("http://")], "labels": labels}


@dataclass(frozen=True, slots=True)
class Answer:
    """One series of an answer: its labels and its numbers."""

    labels: Mapping[str, str]
    values: tuple[float, ...]


class RunningPrometheus:
    """One Prometheus. An async context manager: entering it waits until it answers."""

    def __init__(self, program: Path, folder: Path) -> None:
        """`folder`: an empty folder, for this Prometheus alone."""
        self._folder = folder
        self._targets = folder / "targets.json"
        self.url = f"http://127.0.0.1:{free_port()}"
        (folder / "prometheus.yml").write_text(yaml.safe_dump(self._config()))
        _write_rules(folder)
        self.scrape([])
        self._log = (folder / "prometheus.log").open("wb")
        self._process = subprocess.Popen(
            [
                program,
                f"--config.file={folder / 'prometheus.yml'}",
                f"--storage.tsdb.path={folder / 'data'}",
                f"--web.listen-address={self.url.removeprefix('http://')}",
            ],
            stdout=subprocess.DEVNULL,
            stderr=self._log,
        )
        self.began_at = time.time()

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession()
        deadline = time.monotonic() + stretched(START_SECONDS)
        while not await self._is_ready():
            assert time.monotonic() < deadline, (self._folder / "prometheus.log").read_text()[-2000:]
            await asyncio.sleep(0.1)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._session.close()
        self._process.send_signal(signal.SIGTERM)
        await asyncio.to_thread(self._process.wait, stretched(30))
        self._log.close()

    def scrape(self, targets: Iterable[Target]) -> None:
        """Scrape these from now on, and no others."""
        unfinished = self._targets.with_suffix(".unfinished")
        unfinished.write_text(json.dumps([target.as_config() for target in targets]))
        unfinished.rename(self._targets)

    async def seen(self, expr: str) -> list[Answer]:
        """The results of a query for each second since the start; only finite numbers."""
        asked = {"query": expr, "start": self.began_at, "end": time.time(), "step": SCRAPE_SECONDS}
        result = (await self._get("query_range", asked))["result"]
        return [_answer(series["metric"], [value for _, value in series["values"]]) for series in result]

    async def now(self, expr: str) -> list[Answer]:
        """The present result of a query."""
        result = (await self._get("query", {"query": expr}))["result"]
        return [_answer(series["metric"], [series["value"][1]]) for series in result]

    async def firing(self, alert: str) -> list[Mapping[str, Any]]:
        """The firing alerts of a name, with their labels and annotations."""
        found = (await self._get("alerts", {}))["alerts"]
        return [one for one in found if one["labels"]["alertname"] == alert and one["state"] == "firing"]

    async def rule_health(self) -> dict[str, str]:
        """Each rule's name with its last error, or `ok`."""
        groups = (await self._get("rules", {}))["groups"]
        return {rule["name"]: rule.get("lastError") or rule["health"] for g in groups for rule in g["rules"]}

    async def _is_ready(self) -> bool:
        assert self._process.poll() is None, (self._folder / "prometheus.log").read_text()[-2000:]
        try:
            async with self._session.get(f"{self.url}/-/ready") as answer:
                return answer.status == 200
        except aiohttp.ClientConnectionError:
            return False

    async def _get(self, path: str, asked: Mapping[str, object]) -> Any:
        form = {name: str(value) for name, value in asked.items()}
        async with self._session.get(f"{self.url}/api/v1/{path}", params=form) as answer:
            document = await answer.json()
        assert document["status"] == "success", f"{form.get('query')}: {document.get('error')}"
        return document["data"]

    def _config(self) -> Mapping[str, object]:
        every = f"{SCRAPE_SECONDS}s"
        return {
            "global": {"scrape_interval": every, "scrape_timeout": every, "evaluation_interval": every},
            "rule_files": [str(self._folder / "*.rules.yaml")],
            "scrape_configs": [
                {"job_name": "flagpost", "file_sd_configs": [{"files": [str(self._targets)]}]},
            ],
        }


def _write_rules(folder: Path) -> None:
    """Write the chart's own rules, except for their intervals and how long they wait."""
    for path in ALERTS.glob("*.yaml"):
        document = yaml.safe_load(path.read_text())
        for group in document["groups"]:
            group.pop("interval", None)
            for rule in group["rules"]:
                if "for" in rule:
                    rule["for"] = HOLD
        (folder / f"{path.stem}.rules.yaml").write_text(yaml.safe_dump(document))


def _answer(labels: Mapping[str, str], texts: Iterable[str]) -> Answer:
    numbers = map(float, texts)
    return Answer(labels, tuple(number for number in numbers if math.isfinite(number)))
