"""Which texts are URLs that a client can connect to, and whether the network can see what is sent there.

In: text. Out: its parts, or None; yes or no; and an address in the form of URLs.
"""

from __future__ import annotations

import ipaddress
import re
from typing import Final
from urllib.parse import SplitResult, urlsplit

HOST_NAME: Final = re.compile(r"(?i)[a-z0-9_-]{1,63}(\.[a-z0-9_-]{1,63})*\.?")


def http_url(text: str) -> SplitResult | None:
    """The parts of an http or https URL; None if it is not one."""
    try:
        parts = urlsplit(text)
        _ = parts.port
    except ValueError:
        return None
    return parts if parts.scheme in ("http", "https") and _is_host(parts.hostname or "") else None


def authority(host: str, port: int) -> str:
    """`host:port` for a URL, with an IPv6 address in brackets (RFC 3986 section 3.2.2)."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _is_host(name: str) -> bool:
    """Whether a client can connect to the name; names with other letters have an ASCII form that begins with xn--."""
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return HOST_NAME.fullmatch(name) is not None
    return True


def shows_secrets(parts: SplitResult) -> bool:
    """Whether others could read what is sent there: plain http to another machine."""
    return parts.scheme == "http" and not is_loopback(parts.hostname or "")


def is_loopback(host: str) -> bool:
    """Whether the host is this machine."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")  # RFC 6761
