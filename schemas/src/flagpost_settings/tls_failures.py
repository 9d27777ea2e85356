"""Describes a TLS failure: an untrusted or expired certificate, or another name.

In: what an HTTP client raised (aiohttp's errors and urllib's hold Python's ssl errors in different places). Out: a
line, or None if something else failed. For Pendo, the registry's clients and `flagpost check`.
"""

from __future__ import annotations

import ssl
from typing import Final

_VERIFY_CODES: Final = {
    9: "the server's certificate is not valid yet; look at this machine's clock",
    10: "the server's certificate has expired",
    62: "the server's certificate is for another name",
    64: "the server's certificate is for another name",
}
"""OpenSSL's X509_V_ERR_…; all others mean that no trusted authority has signed the certificate."""

_HOLDERS: Final = ("certificate_error", "os_error", "reason", "__cause__", "__context__")
"""Where clients keep the original error."""
_MAX_DEPTH: Final = 5


def tls_failure(error: BaseException) -> str | None:
    """What is wrong; None: it is not about TLS."""
    found = _ssl_error(error, _MAX_DEPTH)
    if found is None:
        return None
    if isinstance(found, ssl.SSLCertVerificationError):
        what = _VERIFY_CODES.get(found.verify_code, "the server's certificate is untrusted; see ca_file")
        return f"TLS fails: {what} ({found.verify_message.rstrip('.')})"
    return f"TLS fails ({found.reason or type(found).__name__})"


def _ssl_error(error: BaseException, depth: int) -> ssl.SSLError | None:
    """Python's own SSL error, the innermost: aiohttp's errors are of the same class, but hold no details."""
    held = (getattr(error, name, None) for name in _HOLDERS) if depth else ()
    inner = (_ssl_error(each, depth - 1) for each in held if isinstance(each, BaseException))
    outer = error if isinstance(error, ssl.SSLError) else None
    return next((each for each in inner if each is not None), outer)
