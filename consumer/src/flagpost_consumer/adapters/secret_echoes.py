"""A secret that an answer echoes, in whichever form: as it is, or escaped as in JSON, also in JSON within JSON.

In: a secret. Out: what finds it in an answer. Looking takes time in proportion to the answer, whatever is in it.
"""

from __future__ import annotations

import re

STARS = b"***"
_ESCAPE = rb"\\*+"
"""The backslashes before a character. They may be none before its code, too: a backslash before it has taken them."""
_RUN = re.compile(r"\\+|[^\\]")


def echoes_of(secret: str) -> re.Pattern[bytes]:
    """Finds a secret in an answer."""
    runs = [found[0] for found in _RUN.finditer(secret)]
    # Backslashes before the first character may stay; to look for them would take time, from each of many.
    return re.compile(b"".join(_forms(run, _ESCAPE if at else b"") for at, run in enumerate(runs)))


def _forms(run: str, escape: bytes) -> bytes:
    """Of one character, or of several backslashes in a row: how it may be written."""
    if run.startswith("\\"):
        # Each may be several, or \u005c. Not from within a longer run: that would be looked at from each place.
        return rb"(?<!\\)(?:\\{%d,}+|(?:\\++u005[cC]){%d})" % (len(run), len(run))
    units = run.encode("utf-16-be")
    coded = rb"\\++".join(rb"u(?i:%s)" % units[at : at + 2].hex().encode() for at in range(0, len(units), 2))
    plain = re.escape(run.encode())
    return b"(?:%s%s|%s%s)" % (escape, plain, escape or rb"\\", coded)
