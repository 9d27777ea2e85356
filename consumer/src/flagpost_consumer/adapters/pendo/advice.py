"""What to do about an answer of Pendo's, in words for a reader of the log, /status or `flagpost check`.

In: the endpoint and the answer. Out: one sentence.
"""

from __future__ import annotations

from flagpost_consumer.core.pendo.endpoint import EndpointName
from flagpost_consumer.core.pendo.verdict import Answer, Verdict, judge

STATUS_PAGE = "https://status.pendo.io reports outages"

_SECRET = {
    EndpointName.TRACK: (
        "set pendo.track_secret to the Track Event shared secret of your application in Pendo; it is another value "
        "than the integration key"
    ),
    EndpointName.METADATA: (
        "create an integration key with write access in Pendo (Settings > Integrations), in the region of "
        "pendo.region, and set pendo.integration_key"
    ),
}
_URL = {EndpointName.TRACK: "pendo.track_url", EndpointName.METADATA: "pendo.api_url"}
_LIMIT = {
    EndpointName.TRACK: "pendo.track_requests_per_minute",
    EndpointName.METADATA: "pendo.metadata_requests_per_minute",
}


def what_to_do(endpoint: EndpointName, answer: Answer) -> str:
    """What an operator can do about an answer that was not a success."""
    verdict, status = judge(answer), answer.status
    if status is None:
        return (
            f"check that {_URL[endpoint]} (pendo.region) can be reached: flagpost check tests it, with pendo.proxy "
            f"and pendo.ca_file; {STATUS_PAGE}"
        )
    if verdict is Verdict.SETUP:
        wrong_address = (
            f"check pendo.region and {_URL[endpoint]}: the server there is not this endpoint of Pendo's"
        )
        return _SECRET[endpoint] if status in (401, 403) else wrong_address
    if verdict is Verdict.THROTTLED:
        return f"nothing now: requests slow down by themselves; if this lasts, lower {_LIMIT[endpoint]}"
    if verdict is Verdict.TRANSIENT:
        return f"nothing now: requests are retried; {STATUS_PAGE}"
    return "look at the request: flagpost preview shows one, and flagpost dead-letters shows the refused ones"
