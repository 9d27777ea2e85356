"""The proxy and the certificates for the HTTP requests of all programs.

In: the settings for one destination (Pendo, the schema registry), and the environment. Out: the proxy for a URL, and
a TLS context. Imports no pydantic, so that the Publisher can use it without the extra `settings`.
"""

from __future__ import annotations

import ipaddress
import re
import ssl
from base64 import b64encode
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from hashlib import blake2b
from pathlib import Path
from typing import Final, NoReturn
from urllib.parse import unquote, urlsplit

from flagpost_settings.problems import Problem, SettingsError
from flagpost_settings.urls import authority, http_url, is_loopback

NO_PROXY: Final = "none"
"""The setting's value for a direct connection, whatever the environment says."""

ACCEPTED: Final = f"it should be a URL such as http://proxy.example:3128, or {NO_PROXY}"
DEFAULT_PROXY_PORT: Final = 80


@dataclass(frozen=True, slots=True)
class Proxy:
    """A proxy that requests go through."""

    url: str
    """Without the user name and the password."""
    username: str | None = None
    password: str = field(default="", repr=False)

    @property
    def headers(self) -> dict[str, str]:
        """The headers for the proxy only."""
        return {} if self.username is None else {"proxy-authorization": basic(self.username, self.password)}


@dataclass(frozen=True, slots=True)
class Outbound:
    """The settings for requests to one destination."""

    section: str
    """The section of its keys, for error texts: `pendo`."""
    proxy: str | None = field(default=None, repr=False)
    """A URL, which may contain a password, or `none`; None: use the environment's."""
    ca_file: str | None = None
    """Certificates that are trusted instead of the system's, PEM."""
    certificate_file: str | None = None
    """Our own certificate, PEM; the key may be in it."""
    key_file: str | None = None

    def proxy_to(self, url: str, environ: Mapping[str, str]) -> Proxy | None:
        """The proxy for requests to `url`; None: direct.

        Raises:
            SettingsError: a variable of the environment has a proxy that cannot be used.
        """
        if self.proxy is not None:
            return None if self.proxy.lower() == NO_PROXY else _proxy(self.proxy)
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)
        name, text = _variable(f"{parts.scheme}_proxy", environ)
        if not text or is_loopback(host) or bypasses(_variable("no_proxy", environ)[1], host, port):
            return None
        proxy = _proxy(text if "://" in text else f"http://{text}")
        if proxy is None:
            accepted = f"{ACCEPTED.removesuffix(f', or {NO_PROXY}')}; or set {self.section}.proxy"
            raise SettingsError([Problem(name, "", f"is not a proxy that can be used: {accepted}")])
        return proxy

    def tls(self) -> ssl.SSLContext:
        """A context made of the present files; callers share it until one of them changes.

        Raises:
            SettingsError: a file cannot be used.
        """
        files = {
            "ca_file": self.ca_file,
            "certificate_file": self.certificate_file,
            "key_file": self.key_file,
        }
        return _context(
            self, tuple(self._digest(key, path) for key, path in files.items() if path is not None)
        )

    def make_context(self) -> ssl.SSLContext:
        """A new context. Raises SettingsError: a file cannot be used."""
        context = self._trusting()
        context.set_alpn_protocols(["http/1.1"])
        if self.certificate_file is not None:
            try:
                context.load_cert_chain(self.certificate_file, self.key_file, password=_no_password)
            except (OSError, ValueError) as error:
                self._refuse("certificate_file", self.certificate_file, _wrong_pair(error, self.key_file))
        return context

    def wrong_proxy(self) -> str | None:
        """What is wrong with the setting `proxy`; None: nothing."""
        fine = self.proxy is None or self.proxy.lower() == NO_PROXY or _proxy(self.proxy) is not None
        return None if fine else ACCEPTED

    def wrong_files(self) -> Iterator[tuple[str, str]]:
        """Each key (`ca_file`) whose file cannot be used, and why."""
        try:
            self.tls()
        except SettingsError as error:
            for problem in error.problems:
                yield problem.key.rpartition(".")[2], f"{problem.origin} {problem.text}"

    def _trusting(self) -> ssl.SSLContext:
        try:
            return ssl.create_default_context(cafile=self.ca_file)
        except (OSError, ValueError):
            text = "holds no certificates in PEM form; give a file with the certificates to trust"
            self._refuse("ca_file", self.ca_file or "", text)

    def _digest(self, key: str, path: str) -> bytes:
        """A digest of a file's content."""
        try:
            return blake2b(Path(path).read_bytes()).digest()
        except OSError as error:
            self._refuse(key, path, f"cannot be read ({error.strerror}); mount it, or fix its path or rights")
        except ValueError:
            self._refuse(key, path, "is not a path: it holds a NUL character")

    def _refuse(self, key: str, path: str, text: str) -> NoReturn:
        raise SettingsError([Problem(f"{self.section}.{key}", path, text)])


def basic(username: str, password: str) -> str:
    """The value of an authorization header."""
    return f"Basic {b64encode(f'{username}:{password}'.encode()).decode()}"


def bypasses(no_proxy: str, host: str, port: int) -> bool:
    """Whether NO_PROXY exempts a host: a name with all below it, an address or a network, each with a port or not."""
    return any(_exempts(entry, host.rstrip("."), port) for entry in re.split(r"[,\s]+", no_proxy) if entry)


def _exempts(entry: str, host: str, port: int) -> bool:
    if entry == "*":
        return True
    name, only_port = _split_port(entry)
    if only_port not in (None, str(port)):
        return False
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        domain = name.lower().removeprefix("*").strip(".")
        return domain != "" and (host == domain or host.endswith(f".{domain}"))
    try:
        return address in ipaddress.ip_network(name, strict=False)
    except ValueError:
        return False


def _split_port(entry: str) -> tuple[str, str | None]:
    if entry.startswith("["):
        name, _, port = entry[1:].partition("]")
        return name, port.removeprefix(":") or None
    if entry.count(":") == 1:
        name, _, port = entry.partition(":")
        return name, port
    return entry, None


def _variable(name: str, environ: Mapping[str, str]) -> tuple[str, str]:
    """The effective variable, and its text; lower case wins, as with curl."""
    for spelling in (name, name.upper()):
        if environ.get(spelling):
            return spelling, environ[spelling].strip()
    return name.upper(), ""


def _proxy(text: str) -> Proxy | None:
    """The proxy in a URL; None: it cannot be used."""
    parts = http_url(text)
    if parts is None or parts.scheme != "http" or parts.path.strip("/") or parts.query or parts.fragment:
        return None
    address = authority(parts.hostname or "", parts.port or DEFAULT_PROXY_PORT)
    username = None if parts.username is None else unquote(parts.username)
    return Proxy(f"http://{address}", username, unquote(parts.password or ""))


@lru_cache(maxsize=8)
def _context(outbound: Outbound, _: tuple[bytes, ...]) -> ssl.SSLContext:
    """Made once: reading the system's certificates takes 17 ms, and a flood of schema ids asks 50 times a second."""
    return outbound.make_context()


def _wrong_pair(error: Exception, key_file: str | None) -> str:
    reason = getattr(error, "reason", None) or str(error)
    where = "in it" if key_file is None else f"in {key_file}"
    return (
        f"cannot be used with the private key {where} ({reason}); both should be one pair, PEM, unencrypted"
    )


def _no_password() -> NoReturn:
    """OpenSSL would ask at the terminal, and a service would wait there for ever."""
    raise ValueError("the key is encrypted")
