"""Addresses, and whom they stand for.

In: peers' addresses, `x-forwarded-for`. Out: a party, which is an IPv4 address or an IPv6 network of 64 bits, as one
machine has as many IPv6 addresses as it likes.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import Final, TypeAlias

Network: TypeAlias = IPv4Network | IPv6Network

MAX_HOPS: Final = 32
"""Trusted proxies in a row; whoever knows one of their addresses could otherwise have us look at thousands."""


def party_of(address: str) -> str:
    """Whom an address stands for; a text that is none stands for itself."""
    try:
        found = _plain(address)
    except ValueError:
        return address
    return str(found) if isinstance(found, IPv4Address) else str(IPv6Network((found, 64), strict=False))


@dataclass(frozen=True, slots=True)
class Proxies:
    """Proxies whose word on where a request comes from is taken."""

    networks: tuple[Network, ...] = ()

    def holds(self, address: str) -> bool:
        """Whether it is one of theirs."""
        try:
            found = _plain(address)
        except ValueError:
            return False
        return any(found in network for network in self.networks)

    def client(self, peer: str, forwarded: Iterable[str]) -> str:
        """Where a request comes from: the last address before the trusted ones.

        Args:
            peer: the connection's.
            forwarded: the values of every `x-forwarded-for`, in their order. Each proxy adds the address that it saw
                at the end, so what stands before the first that is not trusted is the sender's own invention.
        """
        hops = [hop.strip() for value in forwarded for hop in value.split(",")]
        for hop in hops[: -MAX_HOPS - 1 : -1]:
            if not self.holds(peer):
                break
            peer = hop
        return peer


def _plain(address: str) -> IPv4Address | IPv6Address:
    """Without a zone, or a port as some proxies add; an IPv4 address in IPv6's clothes is one. Raises ValueError."""
    if address.startswith("["):
        address = address[1:].partition("]")[0]
    elif address.count(":") == 1:
        address = address.partition(":")[0]
    found = ip_address(address.partition("%")[0])
    return found.ipv4_mapped or found if isinstance(found, IPv6Address) else found
