"""Sends calls with Segment's unchanged Python library: only the host is set, and gzip is on.

In: python segment_send.py HOST WRITE_KEY, one call a line on stdin: {"kind": "track", "arguments": {…}}.
Out: exit code 0 if the library reports that everything arrived, otherwise 1 and why on stderr.
"""

from __future__ import annotations

import json
import sys
from datetime import datetime

from segment.analytics.client import Client

NAMES = {"userId": "user_id", "anonymousId": "anonymous_id", "groupId": "group_id"}


def main(host: str, write_key: str) -> int:
    failures: list[Exception] = []
    client = Client(write_key, host=host, gzip=True, on_error=lambda error, _batch: failures.append(error))
    for line in sys.stdin:
        call = json.loads(line)
        arguments = {NAMES.get(name, name): value for name, value in call["arguments"].items()}
        arguments["timestamp"] = datetime.fromisoformat(arguments["timestamp"])
        getattr(client, call["kind"])(**arguments)
    client.shutdown()
    for failure in failures:
        sys.stderr.write(f"{failure!r}\n")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
