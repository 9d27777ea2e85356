"""The stand-in as a separate program that another process controls over HTTP."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from typing import Any

import orjson
import pytest
from click.testing import CliRunner

from deadlines import stretched
from flagpost_consumer.demo.pendo_stand_in.__main__ import main

PROGRAM = [sys.executable, "-m", "flagpost_consumer.demo.pendo_stand_in"]
DEADLINE_SECONDS = 20


@contextmanager
def program(*options: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    with subprocess.Popen([*PROGRAM, *options], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        name, _, url = process.stdout.readline().strip().partition(" ")
        assert name == "pendo-stand-in"
        try:
            yield process, url
        finally:
            process.kill()


class Remote:
    """A blocking client of a stand-in in another process."""

    def __init__(self, url: str) -> None:
        self._host = url.removeprefix("http://")

    def ask(self, method: str, path: str, body: object = None, key: str = "") -> tuple[int, bytes]:
        connection = HTTPConnection(self._host, timeout=stretched(DEADLINE_SECONDS))
        headers = {"content-type": "application/json", "x-pendo-integration-key": key}
        data = body if isinstance(body, bytes) else orjson.dumps(body) if body is not None else b""
        connection.request(method, path, data, headers)
        answer = connection.getresponse()
        try:
            return answer.status, answer.read()
        finally:
            connection.close()

    def control(self, method: str, name: str, body: object = None) -> Any:
        status, answer = self.ask(method, f"/_stand_in/{name}", body)
        assert status == 200, answer
        return orjson.loads(answer)

    def lines(self, name: str) -> list[Any]:
        status, answer = self.ask("GET", f"/_stand_in/{name}")
        assert status == 200, answer
        return [orjson.loads(line) for line in answer.splitlines()]

    def track(self, visitor_id: str, key: str = "stand-in-track-secret") -> int:
        body = {
            "type": "track",
            "event": "Experiment Viewed",
            "visitorId": visitor_id,
            "timestamp": time.time_ns() // 1_000_000,
            "properties": {"flag_key": "checkout", "variation_key": "b"},
            "context": {},
        }
        return self.ask("POST", "/data/track", body, key)[0]

    def metadata(self, visitor_id: str, key: str = "stand-in-integration-key") -> tuple[int, bytes]:
        body = [{"visitorId": visitor_id, "values": {"optimizely_checkout": "b"}}]
        return self.ask("POST", "/api/v1/metadata/visitor/custom/value?create=true", body, key)


@pytest.fixture(scope="module")
def shared() -> Iterator[Remote]:
    options = ("--visitor-interval", "0", "--visitor-field", "optimizely_checkout=[Optimizely] checkout")
    with program(*options) as (_, url):
        yield Remote(url)


@pytest.fixture
def remote(shared: Remote) -> Remote:
    shared.control("POST", "reset")
    return shared


def test_it_is_healthy(remote: Remote) -> None:
    assert remote.ask("GET", "/_stand_in/healthz") == (200, b"ok\n")


def test_received_can_be_read_in_pages(remote: Remote) -> None:
    for visitor in ("v1", "v2", "v3"):
        assert remote.track(visitor) == 200
    assert [one["visitor_id"] for one in remote.lines("received")] == ["v1", "v2", "v3"]
    assert [one["visitor_id"] for one in remote.lines("received?newest=2")] == ["v2", "v3"]
    assert len(remote.lines("received?newest=9")) == 3
    (second,) = remote.lines("received?offset=1&limit=1")
    assert (second["number"], second["status"], second["fate"]) == (1, 200, "recorded")
    assert orjson.loads(second["body"])["visitorId"] == "v2"
    assert "stand-in-track-secret" not in str(second)


def test_counts(remote: Remote) -> None:
    remote.track("v1")
    remote.track("v2", key="wrong")
    counts = remote.control("GET", "counts")
    assert counts["outcomes"] == {"track": {"200": 1, "403": 1}}
    assert counts["decisions"] == [{"flag_key": "checkout", "variation_key": "b", "count": 1}]
    assert (counts["requests"], counts["repeats"], counts["violations"]) == (2, 0, 0)


def test_violations(remote: Remote) -> None:
    remote.ask("POST", "/data/track", b"{}", "stand-in-track-secret")
    rules = {violation["rule"] for violation in remote.lines("violations")}
    assert rules == {"members", "timestamp"}


def test_faults_can_be_scripted(remote: Remote) -> None:
    order = {
        "visitors": {
            "v1": {"steps": [500, {"status": 429, "retry_after_seconds": 2}], "afterwards": 400},
        },
        "next": {"metadata": [408]},
        "failing_ids": {"v8": "refused"},
        "poisoned_ids": ["v9"],
        "latency_seconds": 0.001,
    }
    remote.control("POST", "faults", order)
    assert [remote.track("v1") for _ in range(4)] == [500, 429, 400, 400]
    assert [remote.metadata(visitor)[0] for visitor in ("v1", "v1", "v9")] == [408, 200, 400]
    assert orjson.loads(remote.metadata("v8")[1])["errors"] == [{"index": 0, "id": "v8", "error": "refused"}]
    remote.control("POST", "faults", {"clear": True})
    assert remote.track("v1") == 200


def test_outages_begin_and_end(remote: Remote) -> None:
    remote.control("POST", "faults", {"outages": {"track": 503, "token": {"status": 404}}})
    assert remote.track("v1") == 503
    assert remote.ask("GET", "/api/v1/token/verify", key="stand-in-integration-key")[0] == 404
    remote.control("POST", "faults", {"outages": {"track": None}})
    assert remote.track("v1") == 200
    assert remote.ask("GET", "/api/v1/token/verify", key="stand-in-integration-key")[0] == 404


def test_a_mix_can_be_set(remote: Remote) -> None:
    remote.control("POST", "faults", {"mix": {"seed": 3, "chances": [[0.5, 500], [0.5, 502]]}})
    assert {remote.track(f"v{number}") for number in range(30)} == {500, 502}


def test_metadata_and_fields_can_be_read_and_declared(remote: Remote) -> None:
    remote.metadata("v1")
    assert remote.control("GET", "metadata?id=v1") == {"optimizely_checkout": "b"}
    assert remote.control("GET", "metadata?id=v1&kind=visitor&group=agent") == {}
    remote.control("POST", "fields", [{"api_name": "plan", "display_name": "Plan", "kind": "account"}])
    _, schema = remote.ask("GET", "/api/v1/metadata/schema/account", key="stand-in-integration-key")
    assert orjson.loads(schema)["custom"] == {"plan": {"Type": "string", "DisplayName": "Plan"}}


def test_keys_can_be_changed() -> None:
    with program("--track-secret", "t", "--integration-key", "i", "--refused-status", "401") as (_, url):
        remote = Remote(url)
        assert (remote.track("v1", "t"), remote.metadata("v1", "i")[0]) == (200, 200)
        remote.control("POST", "keys", {"track_secret": "t2"})
        assert (remote.track("v2", "t"), remote.track("v3", "t2")) == (401, 200)
        assert remote.metadata("v1", "i")[0] == 200


@pytest.mark.parametrize(
    ("name", "body", "complaint"),
    [
        ("faults", {"outage": 503}, "outage: Extra inputs are not permitted"),
        ("faults", {"outages": {"tracks": 503}}, "outages.tracks.[key]"),
        ("faults", {"mix": {"seed": 1, "chances": [[2, 500]]}}, "probabilities"),
        ("keys", {"secret": "x"}, "secret: Extra inputs"),
        ("fields", {}, "body: Input should be a valid array"),
        ("faults", b"{", "body: Invalid JSON"),
    ],
)
def test_an_invalid_command_is_explained(remote: Remote, name: str, body: object, complaint: str) -> None:
    status, answer = remote.ask("POST", f"/_stand_in/{name}", body)
    assert status == 400
    assert complaint in answer.decode()


@pytest.mark.parametrize(
    ("path", "complaint"),
    [("received?offset=x", "int() with base 10: 'x'"), ("metadata?kind=user", "'user' is not a valid Kind")],
)
def test_an_invalid_query_is_explained(remote: Remote, path: str, complaint: str) -> None:
    status, answer = remote.ask("GET", f"/_stand_in/{path}")
    assert status == 400
    assert complaint in answer.decode()


def test_the_answer_to_an_unknown_command_lists_the_known_ones(remote: Remote) -> None:
    status, answer = remote.ask("GET", "/_stand_in/faults")
    assert status == 404
    assert b"POST /_stand_in/faults" in answer


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_stops_cleanly(number: signal.Signals) -> None:
    with program() as (process, url):
        Remote(url).control("POST", "faults", {"outages": {"track": {"ending": "hang"}}})
        with socket.create_connection(("127.0.0.1", int(url.rpartition(":")[2]))) as hanging:
            hanging.sendall(b"POST /data/track HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}")
            process.send_signal(number)
            assert process.wait(stretched(DEADLINE_SECONDS)) == 0


def test_a_port_in_use_is_explained() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        ended = subprocess.run(
            [*PROGRAM, "--port", str(port)],
            capture_output=True,
            text=True,
            timeout=stretched(DEADLINE_SECONDS),
            check=False,
        )
    assert ended.returncode == 1
    assert f"cannot listen on 127.0.0.1:{port}" in ended.stderr
    assert "choose another" in ended.stderr


def test_a_field_needs_both_names() -> None:
    result = CliRunner().invoke(main, ["--visitor-field", "checkout"])
    assert result.exit_code == 2, result.output
    assert "'checkout' is not API_NAME=DISPLAY NAME" in result.output
