"""Where requests to Pendo go and how they are made; apart from the client, whose imports take a while.

In: settings. Out: addresses and headers.
"""

from __future__ import annotations

from dataclasses import dataclass

from flagpost_consumer.core.pendo.endpoint import EndpointName
from flagpost_consumer.settings import Settings

INTEGRATION_KEY_HEADER = "x-pendo-integration-key"


@dataclass(frozen=True, slots=True)
class PendoAddress:
    """Where requests go and how they are made, without the secrets."""

    track_url: str
    api_url: str
    track_secret_header: str
    create_missing: bool
    request_timeout_seconds: float
    metadata_timeout_seconds: float

    def metadata_url(self, target: str, group: str) -> str:
        """Where the metadata of `visitor` or `account` goes (Pendo's metadata API documentation)."""
        query = "?create=true" if self.create_missing else ""
        return f"{self.api_url}/api/v1/metadata/{target}/{group}/value{query}"

    def headers(self, endpoint: EndpointName, secret: str) -> dict[str, str]:
        """The headers of a request, besides those of every request."""
        track = endpoint is EndpointName.TRACK
        name = self.track_secret_header if track else INTEGRATION_KEY_HEADER
        return {name: secret, "content-type": "application/json"}


def pendo_address(settings: Settings) -> PendoAddress:
    """The addresses that the settings give."""
    pendo = settings.pendo
    return PendoAddress(
        track_url=pendo.urls.track,
        api_url=pendo.urls.api,
        track_secret_header=pendo.track_secret_header,
        create_missing=settings.metadata.create_missing,
        request_timeout_seconds=pendo.request_timeout_seconds,
        metadata_timeout_seconds=pendo.metadata_timeout_seconds,
    )
