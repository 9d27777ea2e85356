"""`make audit` fails on an advisory, and reports a database that it cannot reach as not audited."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

import pytest

from real_kafka.processes import free_port
from releasing.releases import Released

pytestmark = [pytest.mark.thorough, pytest.mark.timeout(900)]

ADVISORY = {
    "id": "GHSA-hx9q-6w63-j58v",
    "summary": "Nesting without a bound.",
    "affected": [
        {
            "package": {"name": "orjson", "ecosystem": "PyPI"},
            "ranges": [{"type": "ECOSYSTEM", "events": [{"introduced": "0"}, {"fixed": "3.11.7"}]}],
        }
    ],
}


@contextmanager
def database(affected: str) -> Iterator[str]:
    """An OSV database on loopback that knows one advisory, of `name==version`."""

    class Answers(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
            is_affected = f"{asked['package']['name']}=={asked['version']}" == affected
            content = json.dumps({"vulns": [ADVISORY]} if is_affected else {}).encode()
            self.send_response(200)
            self.send_header("content-length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *arguments: Any) -> None:  # noqa: A002
            """Log nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Answers) as server:
        thread = Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/v1/query"
        finally:
            server.shutdown()
            thread.join()


def test_an_advisory_for_the_oldest_allowed_version_fails_the_audit(released: Released) -> None:
    with database("orjson==3.11.6") as url:
        audited = released.program("-m", "release.audit", "--osv-url", url)
    assert audited.returncode == 1
    assert "the oldest versions that are allowed: 1 advisories known of " in audited.stdout
    assert "orjson 3.11.6: GHSA-hx9q-6w63-j58v, fixed in 3.11.7" in audited.stdout
    assert "what the lock has: 0 advisories known of " in audited.stdout
    assert "NOT AUDITED" not in audited.stdout


def test_an_unreachable_database_is_reported_and_fails_a_complete_audit(released: Released) -> None:
    nobody = f"http://127.0.0.1:{free_port()}/v1/query"
    audited = released.program("-m", "release.audit", "--osv-url", nobody)
    assert audited.returncode == 0, audited.stderr
    assert audited.stdout.count("NOT AUDITED") == 2
    assert released.program("-m", "release.audit", "--osv-url", nobody, "--complete").returncode == 1
