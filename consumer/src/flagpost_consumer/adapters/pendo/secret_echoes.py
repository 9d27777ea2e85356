"""Finds a secret that an answer echoes: as it is, or escaped as in JSON, also in JSON within JSON.

In: a secret. Out: a pattern that finds it in an answer. Searching takes time in proportion to the answer, whatever is
in it.
"""

from __future__ import annotations

import re

STARS = b"***"
_ESCAPE = rb"\\*+"
"""The backslashes before a character, including the one that begins its code, as in JSON."""
_RUN = re.compile(r"\\+|[^\\]")


def echoes_of(secret: str) -> re.Pattern[bytes]:
    """A pattern that finds a secret in an answer."""
    runs = [found[0] for found in _RUN.finditer(secret)]
    # Backslashes before the first character may stay: looking for them would take long in an answer with many.
    return re.compile(b"".join(_forms(run, _ESCAPE if at else b"") for at, run in enumerate(runs)))


def _forms(run: str, escape: bytes) -> bytes:
    """All ways to write one character, or several backslashes in a row."""
    if run.startswith("\\"):
        # Each may be several, or \u005c. Not from within a longer run: that would be looked at from each place.
        return rb"(?<!\\)(?:\\{%d,}+|(?:\\++u005[cC]){%d})" % (len(run), len(run))
    units = run.encode("utf-16-be")
    coded = rb"\\++".join(rb"u(?i:%s)" % units[at : at + 2].hex().encode() for at in range(0, len(units), 2))
    plain = re.escape(run.encode())
    return b"(?:%s%s|%s%s)" % (escape, plain, escape or rb"\\", coded)
