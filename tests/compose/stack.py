"""docker-compose.yml, started on an engine of the tests' own with images that were built here.

In: an engine. Out: `Stack`: Docker Compose's commands, and requests to the ports that it publishes.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import yaml

from image.engine import Engine
from image.local_images import ROOT, flagpost_image, other_image
from real_kafka.parts import kafka_jars
from running import FLAGPOST

HERE = Path(__file__).parent
COMPOSE = ROOT / ".tools" / "docker" / "bin" / "docker-compose"
FILE = ROOT / "docker-compose.yml"
UP_SECONDS = 420
NOT_HERE = "grafana"
"""The one service whose image cannot be built from package registries."""
PROMETHEUS = "http://127.0.0.1:9090"

REQUEST = """
import sys
from urllib.request import Request, urlopen

url, body, *headers = sys.argv[1:]
request = Request(url, body.encode() or None, dict(header.split(": ", 1) for header in headers))
print(urlopen(request, timeout=20).read().decode())
"""


def services() -> dict[str, Any]:
    """The file's services."""
    return dict(yaml.safe_load(FILE.read_text())["services"])


def build_images(engine: Engine) -> None:
    """Build the images of the services that can run here, under the names that the file uses."""
    names = {name: service["image"] for name, service in services().items()}
    flagpost_image(engine, names["consumer"], "--target=demo")
    other_image(engine, names["kafka"], HERE / "kafka.Dockerfile", kafka_jars())
    other_image(engine, names["prometheus"], HERE / "prometheus.Dockerfile", HERE)


class Stack:
    """The services of the file."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def compose(self, *arguments: str) -> str:
        """Run Docker Compose; returns its standard output."""
        return self._engine.run([str(COMPOSE), f"--file={FILE}", *arguments], seconds=UP_SECONDS + 60)

    def up(self) -> None:
        """Start everything that can run here, and wait until every health check is green.

        Raises:
            RuntimeError: a service was not healthy in time; the text has the services' last log lines.
        """
        waiting = ("--detach", "--wait", f"--wait-timeout={UP_SECONDS}", "--no-build", "--pull=never")
        try:
            self.compose("up", *waiting, f"--scale={NOT_HERE}=0")
        except RuntimeError as error:
            raise RuntimeError(f"{error}\n{self.compose('logs', '--tail=20')}") from error

    def down(self) -> None:
        """Stop the services, and remove containers, volumes and networks."""
        self.compose("down", "--volumes")

    def health(self) -> Counter[tuple[str, str]]:
        """The number of containers by service and state: the health, or else the state and the exit code."""
        lines = self.compose("ps", "--all", "--format=json").splitlines()
        found = (json.loads(line) for line in lines)
        return Counter(
            (one["Service"], one["Health"] or f"{one['State']} {one['ExitCode']}") for one in found
        )

    def inside(self, service: str, *command: str) -> str:
        """Run a command in the first container of a service."""
        return self.compose("exec", "--no-TTY", service, *command)

    def outside(self, *command: str) -> str:
        """Run this machine's own `flagpost` against Kafka's published port."""
        servers = "FLAGPOST_KAFKA__BOOTSTRAP_SERVERS=localhost:9094"
        return self._engine.beside("env", servers, str(FLAGPOST), *command)

    def ask(self, url: str, body: str = "", *headers: str) -> str:
        """Send a request to a published port; returns the body. Raises RuntimeError if the answer is not 2xx."""
        return self._engine.beside(sys.executable, "-c", REQUEST, url, body, *headers)

    def values(self, expression: str) -> dict[str, float]:
        """The current values of a PromQL expression, by the series' job."""
        answer = json.loads(self.ask(f"{PROMETHEUS}/api/v1/query?{urlencode({'query': expression})}"))
        return {one["metric"].get("job", ""): float(one["value"][1]) for one in answer["data"]["result"]}
