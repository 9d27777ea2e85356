"""A Kubernetes API server on 127.0.0.1, with an etcd of its own and nothing else: no controllers, so no pods run.

In: a directory. Out: a kubeconfig for programs, and requests as an administrator. Applied objects are admitted (Pod
Security included), checked and stored as in any cluster; nothing else happens, because controllers would do that.
"""

from __future__ import annotations

import json
import secrets
import ssl
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml

from cluster import cluster_parts
from real_kafka.processes import end, free_port

START_SECONDS: Final = 180.0
STOP_SECONDS: Final = 30.0
ANSWER_SECONDS: Final = 30.0
PAUSE_SECONDS: Final = 0.2
LOG_CHARACTERS: Final = 2000


class Refused(Exception):  # noqa: N818 - an answer, not a fault
    """The API server refused a request; the text is the server's."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(f"{status}: {text}")
        self.status = status


@dataclass(frozen=True, slots=True)
class ApiServer:
    """A running API server."""

    url: str
    kubeconfig: Path
    token: str

    def get(self, path: str) -> Any:
        """Returns an object, or a list of objects. Raises Refused."""
        return self._ask("GET", path)

    def post(self, path: str, body: Mapping[str, Any]) -> Any:
        """Create an object; returns it as it was stored. Raises Refused."""
        return self._ask("POST", path, body)

    def names(self, path: str) -> list[str]:
        """The names of a list's objects, sorted. Raises Refused."""
        return sorted(each["metadata"]["name"] for each in self.get(path)["items"])

    def has(self, path: str) -> bool:
        """Whether the path can be read; False also while the server does not listen."""
        with suppress(OSError, Refused):
            return bool(self._ask("GET", path))
        return False

    def _ask(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Any:
        request = urllib.request.Request(  # noqa: S310 - https, to 127.0.0.1
            self.url + path,
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={"Authorization": f"Bearer {self.token}", "Content-Type": "application/json"},
        )
        try:
            with urllib.request.urlopen(request, timeout=ANSWER_SECONDS, context=_trusting()) as answer:  # noqa: S310
                text = answer.read().decode()
        except urllib.error.HTTPError as error:
            raise Refused(error.code, error.read().decode()) from None
        return json.loads(text) if text.startswith("{") else text


@contextmanager
def running_api_server(directory: Path) -> Iterator[ApiServer]:
    """Start etcd and the API server; both are stopped at the end."""
    server = ApiServer(f"https://127.0.0.1:{free_port()}", directory / "kubeconfig", secrets.token_hex(16))
    server.kubeconfig.write_text(yaml.safe_dump(_kubeconfig(server)))
    (directory / "tokens.csv").write_text(f"{server.token},admin,admin,system:masters\n")
    with ExitStack() as running:
        etcd_url = f"http://127.0.0.1:{free_port()}"
        running.enter_context(
            _program(
                _etcd_command(directory, etcd_url), directory / "etcd.log", lambda: _is_healthy(etcd_url)
            )
        )
        command = _api_server_command(directory, etcd_url, server)
        running.enter_context(
            _program(command, directory / "kube-apiserver.log", lambda: server.has("/readyz"))
        )
        yield server


def _trusting() -> ssl.SSLContext:
    """Accept any certificate: the server signs its own, and the token is valid only for this server."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def _kubeconfig(server: ApiServer) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "it", "cluster": {"server": server.url, "insecure-skip-tls-verify": True}}],
        "users": [{"name": "it", "user": {"token": server.token}}],
        "contexts": [{"name": "it", "context": {"cluster": "it", "user": "it"}}],
        "current-context": "it",
    }


def _etcd_command(directory: Path, url: str) -> list[str]:
    peers = f"http://127.0.0.1:{free_port()}"
    return [
        str(cluster_parts.etcd()),
        f"--data-dir={directory / 'etcd'}",
        f"--listen-client-urls={url}",
        f"--advertise-client-urls={url}",
        f"--listen-peer-urls={peers}",
        f"--initial-advertise-peer-urls={peers}",
        f"--initial-cluster=default={peers}",
        "--unsafe-no-fsync",
    ]


def _api_server_command(directory: Path, etcd_url: str, server: ApiServer) -> list[str]:
    key = directory / "service-accounts.key"
    subprocess.run(["openssl", "genrsa", "-out", str(key), "2048"], check=True, capture_output=True)
    return [
        str(cluster_parts.api_server()),
        f"--etcd-servers={etcd_url}",
        "--bind-address=127.0.0.1",
        f"--secure-port={server.url.rpartition(':')[2]}",
        f"--cert-dir={directory / 'certificates'}",
        f"--token-auth-file={directory / 'tokens.csv'}",
        "--authorization-mode=RBAC",
        "--service-cluster-ip-range=10.0.0.0/24",
        "--service-account-issuer=https://kubernetes.default.svc",
        f"--service-account-key-file={key}",
        f"--service-account-signing-key-file={key}",
        # Nothing connects to this server through a service of the cluster.
        "--endpoint-reconciler-type=none",
    ]


@contextmanager
def _program(command: list[str], log: Path, is_ready: Callable[[], bool]) -> Iterator[None]:
    with log.open("wb") as out:
        process = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT)
    try:
        deadline = time.monotonic() + START_SECONDS
        while not is_ready():
            last_lines = log.read_text(errors="replace")[-LOG_CHARACTERS:]
            if process.poll() is not None:
                raise RuntimeError(f"{command[0]} ended with code {process.returncode}:\n{last_lines}")
            if time.monotonic() > deadline:
                raise RuntimeError(f"{command[0]} is not ready after {START_SECONDS:g} s:\n{last_lines}")
            time.sleep(PAUSE_SECONDS)
        yield
    finally:
        end(process, STOP_SECONDS)


def _is_healthy(etcd_url: str) -> bool:
    with suppress(OSError), urllib.request.urlopen(f"{etcd_url}/health", timeout=ANSWER_SECONDS) as answer:  # noqa: S310
        return bool(json.load(answer)["health"] == "true")
    return False
