"""Digests of exposures: a visitor of an experiment's variation, without naming the visitor.

In: Optimizely's ids of experiment and variation, the visitor's id, a salt. Out: a short text. Whoever has the ids, as
in Optimizely's export, can find out whether a digest is theirs; a digest alone names nobody, and two with different
salts do not show that they belong to one visitor.
"""

from __future__ import annotations

from base64 import urlsafe_b64encode
from hashlib import blake2b
from typing import Final, NamedTuple

DIGEST_BYTES: Final = 9
"""12 characters of text. The probability that any digest of a million exposures equals another's among a million is 1
in 5 billion.
"""


class Exposure(NamedTuple):
    """A visitor of an experiment's variation, by Optimizely's ids."""

    experiment_id: str
    variation_id: str
    visitor_id: str


def exposure_of(experiment_id: str | None, variation_id: str | None, visitor_id: str) -> Exposure:
    """The ids as Optimizely gets them: an empty one for none, and for a variation id without digits.

    (optimizely-sdk 5.7, `event.event_id_normalizer`: such variations, of deliveries, are sent as null.)
    """
    is_told = variation_id is not None and variation_id.isascii() and variation_id.isdigit()
    return Exposure(experiment_id or "", variation_id or "" if is_told else "", visitor_id)


def exposure_digest(salt: str, exposure: Exposure) -> str:
    """The digest of an exposure."""
    told = "\0".join(exposure).encode("utf-8", "surrogatepass")
    keyed = blake2b(told, digest_size=DIGEST_BYTES, key=salt.encode()[: blake2b.MAX_KEY_SIZE])
    return urlsafe_b64encode(keyed.digest()).decode()
