"""The present write keys, each with its name.

In: settings, and the files that they name, read again on `refresh`. Out: the `Key` for a text that somebody sent, or
None. Every key is compared in constant time, by its SHA-256, so that not even its length is revealed.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable, Iterator

import structlog

from flagpost_publisher.gateway.key import Key
from flagpost_publisher.gateway.secret_lines import SecretLines
from flagpost_publisher.gateway.settings import GatewaySettings

log = structlog.get_logger(__name__)


class KeyRing:
    """The keys of `gateway.keys` and `gateway.write_keys`; call `refresh` regularly."""

    def __init__(self, settings: GatewaySettings) -> None:
        """Read the keys; one that cannot be read admits nobody."""
        self._hashed: list[tuple[bytes, Key]] = []
        self._files: list[tuple[SecretLines, Callable[[int], Key]]] = []
        for name, named in settings.keys.items():
            key, source = named.known_as(name), named.source(name)
            if named.key_sha256 is not None:
                self._hashed.append((bytes.fromhex(named.key_sha256), key))
            if source is not None:
                self._files.append((SecretLines(source), _always(key)))
        if settings.write_keys_source is not None:
            self._files.append((SecretLines(settings.write_keys_source), _numbered))
        self._known = self._all()

    @property
    def names(self) -> list[str]:
        """The names of all keys; those of `gateway.write_keys` are named by their lines."""
        return list(dict.fromkeys(key.name for _, key in self._known))

    @property
    def files(self) -> list[SecretLines]:
        """The files from which keys are read."""
        return [lines for lines, _ in self._files]

    def find(self, text: str) -> Key | None:
        """The key for `text`; None: there is none. An empty text is no key, whatever hashes are set."""
        if not text.strip():
            return None
        digest = _digest(text)
        found = None
        for known, key in self._known:  # compare with every key, even after a match
            if hmac.compare_digest(digest, known):
                found = key
        return found

    def refresh(self) -> bool:
        """Apply changes, and log them by name; returns whether there were any."""
        changed = [lines.refresh() for lines in self.files]
        if not any(changed):
            return False
        before, self._known = self._known, self._all()
        log.info(
            "write keys have changed",
            added=_names_without(self._known, before),
            gone=_names_without(before, self._known),
        )
        return True

    def _all(self) -> list[tuple[bytes, Key]]:
        """If two names have the same key, the first counts: keys with their own name go before others."""
        known: dict[bytes, Key] = {}
        for digest, key in (*self._hashed, *self._read()):
            first = known.setdefault(digest, key)
            if first.is_public != key.is_public or first.types != key.types:
                log.error(
                    "one write key has two names; the rules of the first apply",
                    first=first.name,
                    other=key.name,
                )
        return list(known.items())

    def _read(self) -> Iterator[tuple[bytes, Key]]:
        for lines, key_of in self._files:
            for number, line in enumerate(lines.lines, start=1):
                if line:
                    yield _digest(line), key_of(number)


def _always(key: Key) -> Callable[[int], Key]:
    return lambda _: key


def _numbered(number: int) -> Key:
    return Key(f"key-{number}")


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode(errors="surrogatepass")).digest()


def _names_without(some: list[tuple[bytes, Key]], others: list[tuple[bytes, Key]]) -> list[str]:
    """The names of keys that are not among the others, compared by their values, because numbered keys may move."""
    known = {digest for digest, _ in others}
    return [key.name for digest, key in some if digest not in known]
