"""A real schema registry (Apicurio, which speaks Confluent's API) on 127.0.0.1, in memory.

`SchemaRegistry` is a registry as its clients see it. `OwnRegistry` starts one, with a directory for its log.
"""

from __future__ import annotations

import json
import signal
from pathlib import Path
from urllib.error import URLError
from urllib.request import Request, urlopen

from deadlines import stretched
from real_kafka.parts import REGISTRY_VERSION, registry_jars
from real_kafka.processes import JavaProcess, free_port

CALL_SECONDS = 20.0


class SchemaRegistry:
    """A registry for tests, as its clients see it."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.url = f"http://127.0.0.1:{port}/apis/ccompat/v7"
        """Confluent's API, as `kafka.schema_registry.url` takes it."""

    def ports(self) -> list[int]:
        """The arguments with which another process makes the same `SchemaRegistry`."""
        return [self.port]

    def register(self, subject: str, schema: str) -> int:
        """Add an Avro schema (its JSON); returns its id."""
        answer = self._post(f"/subjects/{subject}/versions", {"schema": schema})
        return int(answer["id"])

    def _post(self, path: str, body: dict[str, str]) -> dict[str, int]:
        request = Request(  # noqa: S310 - our own address
            self.url + path,
            json.dumps(body).encode(),
            {"content-type": "application/vnd.schemaregistry.v1+json"},
        )
        with urlopen(request, timeout=stretched(CALL_SECONDS)) as answer:  # noqa: S310
            read: dict[str, int] = json.load(answer)
            return read


class OwnRegistry(SchemaRegistry):
    """A registry that its owner starts and stops."""

    def __init__(self, directory: Path) -> None:
        super().__init__(free_port())
        runner = registry_jars() / f"apicurio-registry-app-{REGISTRY_VERSION}-runner.jar"
        arguments = ["-Dquarkus.http.host=127.0.0.1", f"-Dquarkus.http.port={self.port}", "-jar", str(runner)]
        self._process = JavaProcess(arguments, directory / "registry.log", self._answers)

    def stop(self) -> None:
        """Shut down."""
        self._process.end(signal.SIGTERM)

    def _answers(self) -> bool:
        try:
            with urlopen(f"{self.url}/subjects", timeout=1) as answer:  # noqa: S310
                return bool(answer.status == 200)
        except (URLError, OSError):
            return False
