"""A service whose Optimizely decisions go to Flagpost: one line attaches the publisher.

In: for each user on stdin, a JSON line {"visitor_id": …, "attributes": {…}}. Out: a decision of every flag, printed,
and published by the way. Ends with 1 when Kafka did not take all of them.
"""

import json
import os
import sys
from pathlib import Path
from typing import TextIO

from optimizely.event.event_processor import ForwardingEventProcessor
from optimizely.optimizely import Optimizely

from flagpost_publisher import Publisher

DATAFILE = Path(__file__).parent.parent / "datafile.json"
CARRIED = ("plan", "seats", "score", "beta")


class Nowhere:
    """Takes impressions: the datafile is a made-up project's. A real one needs none of this."""

    @staticmethod
    def dispatch_event(_event: object) -> None:
        return


def optimizely_client() -> Optimizely:
    datafile = Path(os.environ.get("DATAFILE", DATAFILE)).read_text("utf-8")
    return Optimizely(datafile, event_processor=ForwardingEventProcessor(Nowhere))


def serve(client: Optimizely, users: TextIO) -> None:
    for line in users:
        visit = json.loads(line)
        user = client.create_user_context(visit["visitor_id"], visit.get("attributes"))
        if user is None:
            continue  # the SDK has logged what is wrong with the id
        for flag, decision in user.decide_all().items():
            print(visit["visitor_id"], flag, decision.variation_key if decision.enabled else "off")


def main() -> int:
    publisher = Publisher.from_env(service="example-python", attributes=CARRIED)
    client = optimizely_client()
    publisher.attach(client)
    serve(client, sys.stdin)
    failed = publisher.close(float(os.environ.get("FLUSH_SECONDS", "10")))
    print(f"{publisher.stats().delivered} decisions published, {failed} failed", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
