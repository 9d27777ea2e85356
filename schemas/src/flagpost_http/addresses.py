"""Which client an address stands for, also behind a proxy.

In: peers' addresses, `x-forwarded-for`. Out: a party: an IPv4 address or an IPv6 network of 64 bits, because one
machine can have any number of IPv6 addresses.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import Final, TypeAlias

Network: TypeAlias = IPv4Network | IPv6Network

MAX_HOPS: Final = 32
"""Limit of trusted proxies in a row; otherwise whoever knows one of their addresses could make us look at
thousands.
"""


def party_of(address: str) -> str:
    """The party of an address; a text that is not an address stands for itself."""
    try:
        found = _plain(address)
    except ValueError:
        return address
    return str(found) if isinstance(found, IPv4Address) else str(IPv6Network((found, 64), strict=False))


@dataclass(frozen=True, slots=True)
class Proxies:
    """Trusted proxies: their information about the origin of a request is used."""

    networks: tuple[Network, ...] = ()

    def holds(self, address: str) -> bool:
        """Whether an address is one of theirs."""
        try:
            found = _plain(address)
        except ValueError:
            return False
        return any(found in network for network in self.networks)

    def client(self, peer: str, forwarded: Iterable[str]) -> str:
        """The origin of a request: the last address before the trusted ones.

        Args:
            peer: the connection's.
            forwarded: the values of every `x-forwarded-for`, in order. Each proxy appends the address that it saw, so
            the sender may have invented everything before the first untrusted one.
        """
        hops = [hop.strip() for value in forwarded for hop in value.split(",")]
        for hop in hops[: -MAX_HOPS - 1 : -1]:
            if not self.holds(peer):
                break
            peer = hop
        return peer


def _plain(address: str) -> IPv4Address | IPv6Address:
    """An address without a zone, or a port that some proxies add; an IPv4-mapped IPv6 address becomes IPv4. Raises
    ValueError.
    """
    if address.startswith("["):
        address = address[1:].partition("]")[0]
    elif address.count(":") == 1:
        address = address.partition(":")[0]
    found = ip_address(address.partition("%")[0])
    return found.ipv4_mapped or found if isinstance(found, IPv6Address) else found
